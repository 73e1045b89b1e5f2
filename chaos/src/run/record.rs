//! The clients of a run, and what the run's records come to in the report.

use std::time::Duration;

use anyhow::Result;

use super::Options;
use super::has_clients;
use crate::judge::appends::Lists;
use crate::judge::availability::{self, Pause, longest_gap, next_after};
use crate::judge::routes::Answer;
use crate::live::{Cluster, Service};
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
        let until = (fault.until.unwrap_or(fault.done) + settle).min(writing_until);
        fault.pause = Some(longest_gap(&acknowledged, fault.at, until));
        fault.next = next_after(&acknowledged, fault.done);
        let lasted = fault.until.unwrap_or(fault.done) - fault.at;
        let terms = Terms { lasted, lease: options.lease(), promise: options.promise() };
        fault.bound = Some(stands_still(fault.kind, &terms) + options.patience);
    }
    let spans: Vec<_> = report.faults.iter().map(|f| (f.at, f.until.unwrap_or(f.done))).collect();
    for (index, fault) in report.faults.iter_mut().enumerate() {
        let until = fault.until.unwrap_or(fault.done) + settle;
        let others = spans.iter().enumerate().filter(|(other, _)| *other != index);
        fault.overlaps = others.into_iter().any(|(_, (at, to))| *at < until && fault.at < *to);
        // Where nothing was acknowledged since the one before was undone, writes stand still for that.
        let before = spans.iter().filter(|(_, to)| *to <= fault.at).map(|(_, to)| *to).max();
        let since = before.and_then(|before| next_after(&acknowledged, before).map(|d| before + d));
        fault.overlaps |= before.is_some() && since.is_none_or(|since| since >= fault.at);
    }
    report.parts(&changes, &acknowledged);
    let pauses: Vec<_> = report.faults.iter().filter_map(measured).collect();
    report.findings.push(availability::check(&pauses));
}

/// A fault's pause, if it was made and is the only one that can have caused it.
fn measured(fault: &Fault) -> Option<Pause> {
    if fault.overlaps || fault.skipped.is_some() {
        return None;
    }
    let (pause, bound) = (fault.pause?, fault.bound?);
    Some(Pause { fault: format!("{} of {}", fault.kind, fault.on), at: fault.at, pause, bound })
}
