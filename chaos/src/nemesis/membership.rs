//! What operators do, on a bad day: restarts, replacements, planned hand-overs.
//!
//! Must hold: a restart and a switchover lose nothing, in async too, for the leader waits until its
//! heir has everything. A blank node never leads, whatever its name led before, and its vote does
//! not count until it has a copy; a node's loss with its disk is one loss, which sync survives as
//! long as the others are there (so nothing else is done meanwhile).

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::bound::{START, Terms};
use super::{Done, Kind, Nemesis, Undo};
use crate::live::until;
use crate::observe::metrics::is_healthy;

const SWITCHOVER_PATIENCE: Duration = Duration::from_secs(60);

/// A blank node copies everything before it follows.
const COPY_PATIENCE: Duration = Duration::from_secs(120);

/// Any node: SIGTERM, and a new start when it has ended.
pub(super) fn restart(nemesis: &mut Nemesis, choice: u64) -> Result<Done> {
    let count = u64::try_from(nemesis.cluster.replicas.len())?;
    let index = usize::try_from(choice % count)?;
    let replica = &mut nemesis.cluster.replicas[index];
    let node = replica.node.clone();
    replica.process().context("that node is down")?.signal(Signal::TERM);
    Ok(Done::to(node, Undo::Nothing))
}

/// Any node: killed, its disk emptied, and started. Waits first until no other copy is wanting,
/// and then until the new one is complete.
pub(super) async fn replace(nemesis: &mut Nemesis, choice: u64) -> Result<Done> {
    let count = u64::try_from(nemesis.cluster.replicas.len())?;
    let node = replace_one(nemesis, usize::try_from(choice % count)?).await?;
    Ok(Done::to(node, Undo::Nothing))
}

/// All nodes, one after another, as a provider recycles its instances.
pub(super) async fn roll(nemesis: &mut Nemesis) -> Result<Done> {
    let mut nodes = Vec::new();
    for index in 0..nemesis.cluster.replicas.len() {
        nodes.push(replace_one(nemesis, index).await?);
    }
    Ok(Done::to(nodes.join(", "), Undo::Nothing))
}

async fn replace_one(nemesis: &mut Nemesis, index: usize) -> Result<String> {
    nemesis.whole().await?;
    let replica = &mut nemesis.cluster.replicas[index];
    replica.wipe()?;
    let (node, api) = (replica.node.clone(), replica.api());
    replica.start()?;
    // The coordinator still shows for a while what the dead node said last.
    let step = Duration::from_millis(100);
    until("the new node to follow", COPY_PATIENCE, step, async || {
        is_healthy(api).await.then_some(())
    })
    .await?;
    nemesis.whole().await?;
    Ok(node)
}

/// Asks for it as an operator would. It lasts until the answer comes, and other faults may come before:
/// clients are given some seconds to leave, and only then does the leader go.
pub(super) async fn switchover(nemesis: &mut Nemesis) -> Result<Done> {
    let leader = nemesis.leader().await?;
    let node = leader.node.clone();
    let mut command = tokio::process::Command::from(leader.mainstay(&["switchover"]));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let asked = tokio::spawn(async move {
        match tokio::time::timeout(SWITCHOVER_PATIENCE, command.output()).await {
            Ok(Ok(output)) if output.status.success() => {}
            // That it is refused amid other faults is an answer, too.
            other => tracing::info!(?other, "a switchover was not carried out"),
        }
    });
    Ok(Done::to(node, Undo::Wait(asked)))
}

/// What is planned takes no longer than what is not; one that was replaced may have led. A service that
/// is stopped in order is given the time for it that a start takes.
pub(super) fn stands_still(kind: Kind, terms: &Terms) -> Duration {
    match kind {
        Kind::Switchover => 2 * START,
        _ => START + terms.failover(),
    }
}
