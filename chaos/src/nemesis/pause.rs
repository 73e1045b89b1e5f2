//! SIGSTOP, to the daemon, to the service, or to a whole node (frozen, as a hypervisor freezes it).
//!
//! Must hold: *one writer*. A daemon that is stopped past its lease is killed by its fencer, whose
//! clock goes on, before another can lead; a node that is frozen whole, fencer and all, answers
//! nobody, and when it goes on its gate is shut: in sync no follower acknowledges its epoch, and in
//! async its deadline is over. Nothing sent to it before may be acknowledged by it then. A stopped
//! service deposes nobody by itself: the daemon is well.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::bound::{START, Terms};
use super::{Done, Kind, Nemesis, Undo};
use crate::live::Cluster;
use crate::live::process::{send, tree};
use crate::world::Host;

/// The leader's daemon alone.
pub(super) async fn daemon(nemesis: &mut Nemesis) -> Result<Done> {
    let leader = nemesis.leader().await?;
    let node = leader.node.clone();
    let process = leader.process().context("the leader was ended by us")?;
    process.signal(Signal::STOP);
    let pid = process.pid();
    Ok(Done::to(node, Undo::Continue(vec![pid])))
}

/// All of the service's processes on the leader.
pub(super) async fn service(nemesis: &mut Nemesis) -> Result<Done> {
    let leader = nemesis.leader().await?;
    let node = leader.node.clone();
    let pids = leader.service_pids();
    anyhow::ensure!(!pids.is_empty(), "the leader runs no service now");
    for pid in &pids {
        send(*pid, Signal::STOP);
    }
    Ok(Done::to(node, Undo::Continue(pids)))
}

/// The leader's daemon and its fencer, so that nobody is left to kill the service in time. The daemon
/// goes on first: until it has killed the service itself, only its gate stands between a deposed
/// leader's service and the answers that it waits for.
pub(super) async fn guards(nemesis: &mut Nemesis) -> Result<Done> {
    let leader = nemesis.leader().await?;
    let node = leader.node.clone();
    let daemon = leader.process().context("the leader was ended by us")?.pid();
    let fencer = tree(daemon).into_iter().find(|pid| is_fencer(*pid));
    let fencer = fencer.context("the leader has no fencer now")?;
    send(fencer, Signal::STOP);
    send(daemon, Signal::STOP);
    Ok(Done::to(node, Undo::ContinueInTurn(daemon, fencer)))
}

/// Whether that process is a daemon's fencer: a hidden command of the same program.
fn is_fencer(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1).is_some_and(|word| word == FENCER)
}

/// How the daemon's program is told to be a fencer.
const FENCER: &[u8] = b"fencer";

/// Everything on the leader's host.
pub(super) async fn node(nemesis: &mut Nemesis) -> Result<Done> {
    let node = nemesis.leader().await?.node.clone();
    host(&nemesis.cluster, &node)?.freeze()?;
    Ok(Done::to(node.clone(), Undo::Thaw(node)))
}

/// How much later the second goes on: longer than it takes the first to see what time it is.
const TURN: Duration = Duration::from_millis(500);

pub(super) fn go_on_in_turn(first: i32, other: i32) {
    go_on(first);
    tokio::spawn(async move {
        tokio::time::sleep(TURN).await;
        go_on(other);
    });
}

pub(super) fn go_on(pid: i32) {
    send(pid, Signal::CONT);
}

/// The host of a node.
pub(super) fn host<'a>(cluster: &'a Cluster, node: &str) -> Result<&'a Arc<Host>> {
    cluster.world().context("faults need a cluster in a world")?.host(node)
}

/// A daemon or a node that is stopped is gone as far as others can tell, and one that comes back
/// sooner is back sooner. Of a stopped service nobody hears but its clients, who wait for its end.
pub(super) fn stands_still(kind: Kind, terms: &Terms) -> Duration {
    match kind {
        Kind::PauseService => terms.lasted + START,
        _ => terms.failover(),
    }
}
