//! The clients of a run, and what the run's records come to in the report.

use std::time::Duration;

use anyhow::Result;

use super::Options;
use super::has_clients;
use crate::judge::appends::Lists;
use crate::judge::availability::{self, Pause, longest_gap, next_after};
use crate::judge::routes::Answer;
use crate::live::{Cluster, Service};
use crate::nemesis::Kind;
use crate::nemesis::bound::{Terms, stands_still};
use crate::observe::coordinator::CoordinatorWatch;
use crate::observe::metrics::Samples;
use crate::observe::{from_coordinator, from_samples};
use crate::report::{Fault, Point, Report};
use crate::workload::appends::Appenders;
use crate::workload::registers::Registers;
use crate::workload::{History, Outcome, Way, Writers};

/// How many clients connect to each node itself.
const DIRECT_CLIENTS: usize = 6;

/// Everybody who writes.
#[derive(Debug)]
pub(super) struct Crowd {
    writers: Writers,
    appenders: Option<Appenders>,
    registers: Option<Registers>,
}

/// What readers found at the end.
#[derive(Debug)]
pub(super) struct Present {
    pub writes: Vec<(u32, u64)>,
    pub lists: Option<Lists>,
    pub registers: Option<Vec<(u32, u64)>>,
}

impl Crowd {
    pub async fn start(cluster: &Cluster, options: &Options, history: &History) -> Result<Crowd> {
        anyhow::ensure!(has_clients(options.service), "that service has no clients yet");
        let (entrance, clients) = (cluster.entrance(), options.clients);
        let mut writers = Writers::start_at(options.service, entrance, clients, history).await?;
        let everyone = cluster.replicas.iter().cycle();
        let directly = everyone.take(DIRECT_CLIENTS * cluster.replicas.len());
        for (client, replica) in (clients + 1..).zip(directly) {
            writers.add((replica.address(), replica.service_port).into(), client, Way::Direct);
        }
        let first = clients + 1 + u32::try_from(DIRECT_CLIENTS * cluster.replicas.len())?;
        for (client, replica) in (first..).zip(cluster.replicas.iter()) {
            writers.add_busy((replica.address(), replica.service_port).into(), client);
        }
        let appenders = match options.service {
            Service::Postgres => {
                Some(Appenders::start(entrance, clients, options.seed, history).await?)
            }
            _ => None,
        };
        let registers = match options.service {
            Service::Redis | Service::MariaDb => {
                Some(Registers::start(options.service, entrance, history))
            }
            Service::Postgres | Service::Store | Service::Files => None,
        };
        Ok(Crowd { writers, appenders, registers })
    }

    pub async fn advance(&self, count: usize) -> Result<()> {
        self.writers.advance(count).await
    }

    pub async fn finish(self) -> Result<Present> {
        let lists = match self.appenders {
            Some(appenders) => Some(appenders.finish().await?),
            None => None,
        };
        let registers = match self.registers {
            Some(registers) => Some(registers.finish().await?),
            None => None,
        };
        let (_, writes) = self.writers.finish().await?;
        Ok(Present { writes, lists, registers })
    }
}

/// Every answer that clients got to what they wrote.
pub(super) fn answers(history: &History) -> Vec<Answer> {
    let writes = history.writes().into_iter().filter_map(|write| {
        let (invoked, ended, outcome) = (write.invoked, write.ended, write.outcome);
        Some(Answer { invoked, ended, outcome, server: write.server?, way: write.way })
    });
    let transactions = history.transactions().into_iter().map(|one| {
        let (invoked, ended, outcome) = (one.invoked, one.ended, one.outcome);
        Answer { invoked, ended, outcome, server: one.server, way: Way::Ambassador }
    });
    let mut all: Vec<_> = writes.chain(transactions).collect();
    all.sort_by_key(|answer| answer.ended);
    all
}

/// Puts the timeline into the report: leaders, throughput and latency, and each fault's pause.
pub(super) fn fill(
    report: &mut Report,
    history: &History,
    writing_until: Duration,
    watch: Option<&CoordinatorWatch>,
    samples: &Samples,
    options: &Options,
) {
    let answers = answers(history);
    let acknowledged: Vec<_> = answers
        .iter()
        .filter(|answer| answer.outcome == Outcome::Acknowledged && answer.way == Way::Ambassador)
        .map(|answer| answer.ended)
        .collect();
    let changes = watch.map(CoordinatorWatch::changes).unwrap_or_default();
    report.reigns = match watch {
        Some(_) => from_coordinator(&changes),
        None => from_samples(&samples.samples()),
    };
    report.lasted = writing_until;
    report.throughput = Point::of(&answers);
    report.servers = history.servers();
    // What comes next may begin before all is settled; it is not this one's doing.
    let settle = (2 * options.lease()).min(options.calm().mul_f64(0.8));
    for fault in &mut report.faults {
        let until = (fault.over() + settle).min(writing_until);
        fault.pause = Some(longest_gap(&acknowledged, fault.at, until));
        fault.next = next_after(&acknowledged, fault.done);
        let lasted = fault.over() - fault.at;
        let terms = Terms { lasted, lease: options.lease(), promise: options.promise() };
        fault.bound = Some(stands_still(fault.kind, &terms) + options.patience);
    }
    let alone: Vec<_> = (0..report.faults.len())
        .map(|index| is_alone(report, index, &acknowledged, settle))
        .collect();
    report.faults.iter_mut().zip(alone).for_each(|(fault, alone)| fault.alone = alone);
    report.parts(&changes, &acknowledged);
    let pauses: Vec<_> = report.faults.iter().filter_map(measured).collect();
    report.findings.push(availability::check(&pauses));
}

/// Whether how long writes stood still at a fault is its own doing, and all of it.
fn is_alone(report: &Report, index: usize, acknowledged: &[Duration], settle: Duration) -> bool {
    let fault = &report.faults[index];
    let others = || {
        let made = |(other, of): &(usize, &Fault)| *other != index && of.skipped.is_none();
        report.faults.iter().enumerate().filter(made).map(|(_, of)| of)
    };
    let another_was_near =
        others().any(|of| of.at < fault.over() + settle && fault.at < of.over().max(of.done));
    // Writes that have not come through since an earlier one was done, or undone, stand still for
    // that one.
    let found_a_stand = others().filter(|of| of.over() <= fault.at).any(|of| {
        let since = |from| next_after(acknowledged, from).is_none_or(|next| from + next > fault.at);
        since(of.done) || since(of.over())
    });
    // Clients are given time to leave first; if another fault came before the epoch did, that was not
    // seen.
    let next = report.faults.get(index + 1).map_or(Duration::MAX, |next| next.at);
    let mut epochs = report.reigns.iter().map(|reign| reign.began);
    let was_carried_out = epochs.any(|began| began >= fault.at && began < next);
    let is_whole = fault.kind != Kind::Switchover || was_carried_out;
    !another_was_near && !found_a_stand && is_whole
}

/// A fault's pause, if it was made and is the only one that can have caused it.
fn measured(fault: &Fault) -> Option<Pause> {
    if !fault.alone || fault.skipped.is_some() {
        return None;
    }
    let (pause, bound) = (fault.pause?, fault.bound?);
    Some(Pause { fault: format!("{} of {}", fault.kind, fault.on), at: fault.at, pause, bound })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Reign;

    const SETTLE: Duration = Duration::from_secs(3);

    fn seconds(all: &[u64]) -> Vec<Duration> {
        all.iter().copied().map(Duration::from_secs).collect()
    }

    fn report(faults: &[(Kind, u64)]) -> Report {
        let mut report = Report::new(&Options::default());
        for (kind, at) in faults {
            let at = Duration::from_secs(*at);
            report.faults.push(Fault::new(*kind, "a".to_owned(), at, at, None, None));
        }
        report
    }

    #[test]
    fn a_fault_that_finds_writes_at_a_stand_is_not_alone() {
        let report = report(&[(Kind::KillAll, 10), (Kind::KillFollower, 20)]);
        let alone = |acknowledged: &[u64]| {
            [0, 1].map(|index| is_alone(&report, index, &seconds(acknowledged), SETTLE))
        };
        assert_eq!(alone(&[9, 15, 19, 21]), [true, true]);
        assert_eq!(alone(&[9, 25]), [true, false]);
        assert_eq!(alone(&[9]), [true, false]);
    }

    #[test]
    fn a_fault_with_another_near_is_not_alone() {
        let report = report(&[(Kind::KillAll, 10), (Kind::KillFollower, 12)]);
        assert!(!is_alone(&report, 0, &seconds(&[9, 11, 13]), SETTLE));
        assert!(is_alone(&report, 1, &seconds(&[9, 11, 13]), SETTLE));
    }

    #[test]
    fn a_switchover_that_did_not_come_about_is_not_measured() {
        let mut report = report(&[(Kind::Switchover, 10), (Kind::KillNode, 20)]);
        let acknowledged = seconds(&[9, 11, 19, 21]);
        assert!(!is_alone(&report, 0, &acknowledged, SETTLE));
        let (node, began) = ("b".to_owned(), Duration::from_secs(15));
        report.reigns = vec![Reign { epoch: 2, node, began, ready: None, ended: None }];
        assert!(is_alone(&report, 0, &acknowledged, SETTLE));
    }
}
