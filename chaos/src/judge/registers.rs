//! Registers that are read go forward only: what one holds is what its one writer put there last, as
//! far as the reader can have known.
//!
//! A deposed leader may serve stale reads for as long as its lease, so only what was acknowledged
//! a lease ago must be seen by everybody; the same server shows it at once. A put whose outcome is
//! unknown may come late, over a later one: a reader who finds that is not misled by us.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Finding, Promise};
use crate::workload::registers::{RegisterUse, Use};
use crate::workload::{Outcome, ServerId};

/// Judges all uses of registers and what they held at the end; `stale` is how old a read may be.
#[must_use]
pub fn check(
    uses: &[RegisterUse],
    ends: &[(u32, u64)],
    promise: Promise,
    stale: Duration,
) -> Finding {
    let mut puts: BTreeMap<u32, Vec<&RegisterUse>> = BTreeMap::new();
    for used in uses.iter().filter(|used| matches!(used.what, Use::Put(_))) {
        puts.entry(used.register).or_default().push(used);
    }
    let of = |register| puts.get(&register).map_or(&[][..], Vec::as_slice);
    let mut violations = Vec::new();
    let mut reads = 0;
    for read in uses {
        let Use::Found(found) = read.what else { continue };
        reads += 1;
        let server = Some((read.server, stale));
        let (from, until) = (read.invoked, read.ended);
        let reader = Reader { from, until, server, promise };
        if let Some(what) = reader.objects(of(read.register), found) {
            let at = read.invoked.as_secs_f64();
            violations.push(format!("register {} at {at:.3} s: {what}", read.register));
        }
    }
    let last = puts.values().flatten().filter(|put| put.outcome == Outcome::Acknowledged);
    let last = last.max_by_key(|put| put.ended).map(|put| put.server);
    for (register, found) in ends {
        // In async, what an earlier server had acknowledged may be gone.
        let server = last.filter(|_| promise == Promise::Async).map(|last| (last, Duration::MAX));
        let reader = Reader { from: Duration::MAX, until: Duration::MAX, server, promise };
        if let Some(what) = reader.objects(of(*register), *found) {
            violations.push(format!("register {register} at the end: {what}"));
        }
    }
    Finding {
        check: "registers go forward: no read misses what was acknowledged before it".to_owned(),
        looked_at: format!(
            "{} puts, {reads} reads of {} registers",
            puts.values().map(Vec::len).sum::<usize>(),
            ends.len()
        ),
        violations,
    }
}

struct Reader {
    from: Duration,
    until: Duration,
    /// Who answered, and how far behind others it may be; at the end nobody is.
    server: Option<(ServerId, Duration)>,
    promise: Promise,
}

impl Reader {
    /// What is wrong with finding `found`.
    fn objects(&self, puts: &[&RegisterUse], found: u64) -> Option<String> {
        let put = puts.iter().find(|put| put.what == Use::Put(found));
        match put {
            None if found != 0 => return Some(format!("{found}, which nobody put there")),
            Some(put) if put.invoked > self.until => {
                return Some(format!("{found}, which was put there only later"));
            }
            Some(put) if put.outcome == Outcome::Unknown => return None,
            _ => {}
        }
        let known = puts.iter().filter(|put| {
            put.outcome == Outcome::Acknowledged && self.knows(put.server, put.ended)
        });
        let newest = known.filter_map(|put| match put.what {
            Use::Put(value) => Some((value, put.ended)),
            Use::Found(_) => None,
        });
        let (value, at) = newest.max()?;
        let at = at.as_secs_f64();
        (value > found).then(|| format!("{found}, though {value} was acknowledged at {at:.3} s"))
    }

    /// Whether what `server` acknowledged at `at` must be seen.
    fn knows(&self, server: ServerId, at: Duration) -> bool {
        match self.server {
            Some((own, _)) if own == server => at <= self.from,
            Some(_) if self.promise == Promise::Async => false,
            Some((_, stale)) => at.saturating_add(stale) <= self.from,
            None => at <= self.from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(what: Use, server: u32, from: u64, to: u64) -> RegisterUse {
        RegisterUse {
            register: 0,
            what,
            invoked: Duration::from_secs(from),
            ended: Duration::from_secs(to),
            outcome: Outcome::Acknowledged,
            server: ServerId(server),
        }
    }

    fn count(uses: &[RegisterUse], end: u64, promise: Promise) -> usize {
        check(uses, &[(0, end)], promise, Duration::from_secs(5)).violations.len()
    }

    #[test]
    fn the_same_server_forgets_nothing() {
        let mut uses = [used(Use::Put(1), 0, 0, 1), used(Use::Found(0), 0, 2, 3)];
        assert_eq!(count(&uses, 1, Promise::Async), 1);
        uses[1].what = Use::Found(1);
        assert_eq!(count(&uses, 1, Promise::Async), 0);
        uses[1].what = Use::Found(7);
        assert_eq!(count(&uses, 1, Promise::Async), 1, "nobody put that there");
        let together = [used(Use::Put(1), 0, 0, 4), used(Use::Found(0), 0, 2, 3)];
        assert_eq!(count(&together, 1, Promise::Sync), 0, "it was not acknowledged yet");
    }

    #[test]
    fn another_server_may_be_stale_for_a_lease_and_async_may_lose() {
        let at = |from| [used(Use::Put(1), 0, 0, 1), used(Use::Found(0), 1, from, from + 1)];
        assert_eq!(count(&at(5), 1, Promise::Sync), 0);
        assert_eq!(count(&at(6), 1, Promise::Sync), 1);
        assert_eq!(count(&at(6), 1, Promise::Async), 0);
    }

    #[test]
    fn at_the_end_all_is_there_that_may_not_be_lost() {
        let uses = [used(Use::Put(1), 0, 0, 1), used(Use::Put(2), 1, 9, 10)];
        assert_eq!(count(&uses, 2, Promise::Sync), 0);
        assert_eq!(count(&uses, 1, Promise::Sync), 1);
        assert_eq!(count(&uses, 1, Promise::Async), 1, "no failover came after it");
        assert_eq!(count(&uses[..1], 0, Promise::Sync), 1);
    }

    #[test]
    fn what_came_late_by_an_unknown_put_misleads_nobody() {
        let mut uses =
            [used(Use::Put(1), 0, 0, 1), used(Use::Put(2), 0, 2, 3), used(Use::Found(1), 0, 4, 5)];
        assert_eq!(count(&uses, 2, Promise::Sync), 1);
        uses[0].outcome = Outcome::Unknown;
        assert_eq!(count(&uses, 2, Promise::Sync), 0);
    }
}
