//! Serialisability of list-append transactions, found as Elle finds it: the order of a list is the
//! order of its writers, a read says which of them came before and which after, and a cycle in all
//! of that is a history that no order of the transactions explains.
//!
//! No edge is drawn from real time to reads: a deposed leader may serve stale ones for as long as
//! its lease. Appends are held to real time, list by list.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::cycles::cycles;
use super::{Finding, Promise};
use crate::workload::appends::{Step, Transaction};
use crate::workload::{Outcome, ServerId};

/// The lists as a reader found them at the end.
pub type Lists = Vec<(i64, Vec<i64>)>;

/// Judges a history and its end.
#[must_use]
pub fn check(transactions: &[Transaction], lists: &Lists, promise: Promise) -> Finding {
    let history = History::new(transactions);
    let mut violations = history.bad_reads();
    violations.extend(history.bad_lists(lists));
    // Values from nowhere have no place in an order.
    let is_sound = violations.is_empty();
    if promise == Promise::Sync {
        violations.extend(lost(transactions, lists));
    }
    match promise {
        _ if !is_sound => {}
        Promise::Sync => {
            violations.extend(history.disorder(&|_| true, lists));
        }
        // What a failover lost may have been read before: each server's readers agree among
        // themselves, and with what came before them, but not with those of the next.
        Promise::Async => {
            let servers: HashSet<_> = transactions.iter().map(|one| one.server).collect();
            for server in servers {
                violations.extend(history.disorder(&|one| one == server, &Vec::new()));
            }
        }
    }
    let count = |outcome| transactions.iter().filter(|one| one.outcome == outcome).count();
    Finding {
        check: "list-append transactions are serialisable".to_owned(),
        looked_at: format!(
            "{} committed, {} refused, {} unknown; {} lists",
            count(Outcome::Acknowledged),
            count(Outcome::Failed),
            count(Outcome::Unknown),
            lists.len()
        ),
        violations,
    }
}

fn lost(transactions: &[Transaction], lists: &Lists) -> Vec<String> {
    let there: HashSet<_> = lists.iter().flat_map(|(_, list)| list).collect();
    let committed = transactions.iter().filter(|one| one.outcome == Outcome::Acknowledged);
    let appended = committed.flat_map(|one| one.steps.iter().map(move |step| (one, step)));
    let lost = appended.filter_map(|(one, step)| match step {
        Step::Append { key, value } if !there.contains(value) => Some(format!(
            "{value} was appended to list {key} by a transaction acknowledged at {} and is lost",
            seconds(one.ended)
        )),
        _ => None,
    });
    lost.collect()
}

struct History<'a> {
    transactions: &'a [Transaction],
    /// Who appended which value.
    writers: HashMap<i64, usize>,
}

impl<'a> History<'a> {
    fn new(transactions: &'a [Transaction]) -> History<'a> {
        let mut writers = HashMap::new();
        for (index, transaction) in transactions.iter().enumerate() {
            for step in &transaction.steps {
                if let Step::Append { value, .. } = step {
                    writers.insert(*value, index);
                }
            }
        }
        History { transactions, writers }
    }

    /// Every read of a committed transaction: who, which list, what. (One that is refused in the
    /// end, or may have been, may have read what no order explains.)
    fn reads(&self) -> impl Iterator<Item = (usize, i64, &'a [i64])> {
        let all = self.transactions.iter().enumerate();
        let committed = all.filter(|(_, one)| one.outcome == Outcome::Acknowledged);
        committed.flat_map(|(index, one)| {
            one.steps.iter().filter_map(move |step| match step {
                Step::Read { key, seen: Some(seen) } => Some((index, *key, seen.as_slice())),
                _ => None,
            })
        })
    }

    fn bad_reads(&self) -> Vec<String> {
        let reads = self.reads().filter_map(|(index, key, seen)| {
            let what = self.bad_values(seen)?;
            Some(format!("transaction {index} read list {key}: {what}"))
        });
        let within = self.transactions.iter().enumerate().filter_map(|(index, one)| {
            let what = contradicts_itself(one)?;
            Some(format!("transaction {index} does not see its own work: {what}"))
        });
        reads.chain(within).chain(self.intermediate()).collect()
    }

    fn bad_lists(&self, lists: &Lists) -> Vec<String> {
        let bad = lists.iter().filter_map(|(key, list)| {
            Some(format!("list {key} at the end: {}", self.bad_values(list)?))
        });
        bad.collect()
    }

    fn bad_values(&self, list: &[i64]) -> Option<String> {
        let mut seen = HashSet::new();
        list.iter().find_map(|value| match self.writers.get(value) {
            None => Some(format!("{value}, which nobody appended")),
            Some(_) if !seen.insert(value) => Some(format!("{value} twice")),
            Some(writer) if self.transactions[*writer].outcome == Outcome::Failed => {
                Some(format!("{value} of a transaction that was rolled back"))
            }
            Some(_) => None,
        })
    }

    /// Reads that end amid another transaction's appends to the same list.
    fn intermediate(&self) -> Vec<String> {
        let bad = self.reads().filter_map(|(index, key, seen)| {
            let last = *seen.last()?;
            let writer = *self.writers.get(&last)?;
            let finals = self.transactions[writer].steps.iter().rev().find_map(|step| match step {
                Step::Append { key: of, value } if *of == key => Some(*value),
                _ => None,
            });
            (writer != index && finals != Some(last)).then(|| {
                format!("transaction {index} read list {key} amid the appends of {writer}")
            })
        });
        bad.collect()
    }

    /// Orders that contradict one another among the transactions of some servers.
    fn disorder(&self, is_of: &dyn Fn(ServerId) -> bool, lists: &Lists) -> Vec<String> {
        let own: Vec<_> =
            self.reads().filter(|(index, ..)| is_of(self.transactions[*index].server)).collect();
        let mut orders: HashMap<i64, &[i64]> = HashMap::new();
        let ends = lists.iter().map(|(key, list)| (*key, list.as_slice()));
        for (key, list) in own.iter().map(|(_, key, seen)| (*key, *seen)).chain(ends) {
            let order = orders.entry(key).or_default();
            if list.len() > order.len() {
                *order = list;
            }
        }
        let mut violations = Vec::new();
        for (index, key, seen) in &own {
            if !orders[key].starts_with(seen) {
                let tail = |list: &[i64]| list[list.len().saturating_sub(5)..].to_vec();
                violations.push(format!(
                    "transaction {index} saw list {key} in an order that others did not: \
                     …{:?} against …{:?}",
                    tail(seen),
                    tail(&orders[key][..seen.len().min(orders[key].len())])
                ));
            }
        }
        for (key, order) in &orders {
            violations.extend(self.against_time(*key, order));
        }
        if violations.is_empty() {
            violations.extend(self.cyclic(&own, &orders));
        }
        violations
    }

    /// An append that began after another's end was known must come after it.
    fn against_time(&self, key: i64, order: &[i64]) -> Option<String> {
        let mut latest: Option<(Duration, i64)> = None;
        for value in order {
            let writer = &self.transactions[*self.writers.get(value)?];
            if let Some((invoked, before)) = latest
                && writer.outcome == Outcome::Acknowledged
                && writer.ended < invoked
            {
                return Some(format!(
                    "list {key} has {value}, acknowledged at {}, after {before}, sent at {}",
                    seconds(writer.ended),
                    seconds(invoked)
                ));
            }
            if latest.is_none_or(|(invoked, _)| writer.invoked > invoked) {
                latest = Some((writer.invoked, *value));
            }
        }
        None
    }

    fn cyclic(&self, reads: &[(usize, i64, &[i64])], orders: &HashMap<i64, &[i64]>) -> Vec<String> {
        let mut edges = vec![Vec::new(); self.transactions.len()];
        let mut connect = |from: usize, to: usize| {
            if from != to {
                edges[from].push(to);
            }
        };
        for order in orders.values() {
            for pair in order.windows(2) {
                connect(self.writers[&pair[0]], self.writers[&pair[1]]);
            }
        }
        for (reader, key, seen) in reads {
            // Its own appends tell it nothing of others.
            let others = seen.iter().rposition(|value| self.writers[value] != *reader);
            if let Some(last) = others {
                connect(self.writers[&seen[last]], *reader);
            }
            let next = orders[key].iter().skip(seen.len()).map(|value| self.writers[value]);
            if let Some(next) = next.into_iter().find(|writer| writer != reader) {
                connect(*reader, next);
            }
        }
        let found = cycles(&edges).into_iter();
        found.map(|cycle| format!("a cycle of transactions: {}", self.told(&cycle))).collect()
    }

    /// What some transactions did, for whoever has to see why no order explains it.
    fn told(&self, cycle: &[usize]) -> String {
        let step = |step: &Step| match step {
            Step::Append { key, value } => format!("append {value} to {key}"),
            Step::Read { key, seen: None } => format!("read {key}"),
            Step::Read { key, seen: Some(seen) } => {
                let last = &seen[seen.len().saturating_sub(4)..];
                format!("read {key}: {} values, …{last:?}", seen.len())
            }
        };
        let one = |index: &usize| {
            let of = &self.transactions[*index];
            let steps: Vec<_> = of.steps.iter().map(step).collect();
            format!(
                "{index} ({:?}, server {}, {} to {}: {})",
                of.outcome,
                of.server.0,
                seconds(of.invoked),
                seconds(of.ended),
                steps.join("; ")
            )
        };
        cycle.iter().map(one).collect::<Vec<_>>().join(", then ")
    }
}

/// A transaction's later read must show its earlier read and its own appends since.
fn contradicts_itself(transaction: &Transaction) -> Option<String> {
    let mut expected: HashMap<i64, Vec<i64>> = HashMap::new();
    let mut own: HashMap<i64, Vec<i64>> = HashMap::new();
    for step in &transaction.steps {
        match step {
            Step::Append { key, value } => {
                if let Some(list) = expected.get_mut(key) {
                    list.push(*value);
                }
                own.entry(*key).or_default().push(*value);
            }
            Step::Read { key, seen: Some(seen) } => {
                let known = expected.get(key).is_none_or(|list| list == seen);
                if !known || !seen.ends_with(own.get(key).map_or(&[], Vec::as_slice)) {
                    return Some(format!("list {key} as {seen:?}"));
                }
                expected.insert(*key, seen.clone());
            }
            Step::Read { seen: None, .. } => {}
        }
    }
    None
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests;
