//! The end of a run: the world is healed, everything must come back, and all is judged.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Options;
use super::record::{Crowd, Present, answers};
use crate::demo::checker;
use crate::judge::loss::{self, Told};
use crate::judge::{Finding, acknowledged, appends, leadership, registers, routes};
use crate::live::Cluster;
use crate::nemesis::{Kind, Nemesis};
use crate::observe::coordinator::CoordinatorWatch;
use crate::report::Report;
use crate::workload::History;
use crate::workload::tree::Tree;

/// Waits until every node is in its role and clients get on, with nothing broken any more.
pub(super) async fn recover(nemesis: &mut Nemesis, crowd: &Crowd) -> Result<()> {
    nemesis.whole().await?;
    crowd.advance(50).await
}

/// What clients were told against what is there.
pub(super) fn judge(report: &mut Report, history: &History, present: &Present, options: &Options) {
    let promise = options.promise();
    report.findings.push(acknowledged::check(&history.writes(), &present.writes, promise));
    if let Some(lists) = &present.lists {
        report.findings.push(appends::check(&history.transactions(), lists, promise));
    }
    if let Some(ends) = &present.registers {
        let uses = history.registers();
        report.findings.push(registers::check(&uses, ends, promise, options.lease()));
    }
}

/// Who answered when, which can be judged whatever became of the cluster.
pub(super) fn judge_answers(report: &mut Report, history: &History, options: &Options) {
    report.findings.push(leadership::check(&report.reigns));
    let answers = answers(history);
    report.findings.push(routes::one_writer(&answers));
    report.findings.push(routes::gated(&answers, &delayed(report), LATE));
    report.findings.push(routes::cut(&answers, options.lease()));
    report.findings.push(routes::forwarded(&history.connections(), &answers, options.lease()));
}

/// In async: what is not there against the bound, and against what the cluster itself says of it.
pub(super) fn judge_losses(
    report: &mut Report,
    history: &History,
    present: &Present,
    watch: Option<&CoordinatorWatch>,
    cluster: &Cluster,
    options: &Options,
) -> Result<()> {
    // Only a real etcd shows its history to an onlooker.
    let Some(watch) = watch else { return Ok(()) };
    let mut told = Told::default();
    for change in watch.changes() {
        let value = change.value.as_ref().filter(|_| change.key.starts_with("history/"));
        // A change of the config within an epoch has a line of its own, with the same number.
        let Some(value) = value.filter(|_| !change.key.contains('-')) else { continue };
        if let Some(epoch) = value["epoch"].as_u64() {
            told.history.insert(epoch, value["lost_ops"].as_u64());
        }
    }
    for replica in &cluster.replicas {
        for manifest in replica.set_aside()? {
            told.set_aside.extend(manifest["position"]["epoch"].as_u64());
        }
    }
    for fault in report.faults.iter().filter(|fault| fault.skipped.is_none()) {
        match fault.kind {
            Kind::Replace => drop(told.disks_were_lost.insert(fault.on.clone())),
            // One after the other, all of them.
            Kind::Roll => {
                told.disks_were_lost.extend(cluster.replicas.iter().map(|of| of.node.clone()))
            }
            _ => {}
        }
    }
    let bound = options.max_lag + NOTICED;
    let writes = history.writes();
    report.findings.push(loss::check(&writes, &present.writes, &report.reigns, &told, bound));
    Ok(())
}

/// How long it takes a leader to see that a follower is too far behind, and to take it off the list
/// of those who may take over.
const NOTICED: Duration = Duration::from_secs(1);

/// How late an answer may come to its client on a busy machine, if nothing delays it on purpose.
const LATE: Duration = Duration::from_secs(1);

/// When answers may have been on their way for long.
fn delayed(report: &Report) -> Vec<(Duration, Duration)> {
    let faults = report.faults.iter().filter(|fault| fault.kind.delays_answers());
    faults.map(|fault| (fault.at, fault.until.unwrap_or(Duration::MAX))).collect()
}

/// What is on the disks.
pub(super) async fn inspect(report: &mut Report, cluster: &mut Cluster, options: &Options) {
    let own = match checker::end_sessions(options.service, cluster).await {
        Ok(()) => checker::run(options.service, cluster).await,
        Err(error) => Err(error),
    };
    report.findings.push(finding(checker::name(options.service), "the leader's volume", own));
    let equal = equal(cluster).await;
    let (looked_at, result) = match equal {
        Ok(count) => (format!("{count} files of each"), Ok(())),
        Err(error) => (String::new(), Err(error)),
    };
    report.findings.push(finding("every replica holds the same files", &looked_at, result));
}

fn finding(check: &str, looked_at: &str, result: Result<()>) -> Finding {
    Finding {
        check: check.to_owned(),
        looked_at: looked_at.to_owned(),
        violations: result.err().map(|error| format!("{error:#}")).into_iter().collect(),
    }
}

/// Stops all replicas and compares what they export; says how many files each has.
async fn equal(cluster: &mut Cluster) -> Result<usize> {
    // The service's own checker may have ended the leader; a copy needs everyone.
    for replica in &mut cluster.replicas {
        if !replica.is_started() {
            replica.start()?;
        }
    }
    let status = cluster.quiet().await?;
    let leader = status.leader.context("a quiet cluster has a leader")?;
    // The service goes on writing, so whoever is stopped first would lack what came after. A leader
    // that stops in order waits until its followers have everything; and nobody is to lead next.
    cluster.node(&leader)?.ask(&["pause", "--reason", "the replicas are compared"])?;
    cluster.node(&leader)?.stop().await?;
    let nodes: Vec<_> = cluster.replicas.iter().map(|replica| replica.node.clone()).collect();
    for node in nodes.iter().filter(|node| **node != leader) {
        cluster.node(node)?.kill();
    }
    let mut trees = Vec::new();
    for node in &nodes {
        let target = cluster.folder().join(format!("export-{node}"));
        cluster.node(node)?.export(&target)?;
        trees.push((node, Tree::read(&target)?));
    }
    for (node, tree) in &trees[1..] {
        if let Some(difference) = trees[0].1.difference(tree) {
            anyhow::bail!("{} and {node} differ: {difference}", trees[0].0);
        }
    }
    Ok(trees[0].1.len())
}
