//! SIGSTOP, to the daemon, to the service, or to a whole node (frozen, as a hypervisor freezes it).
//!
//! Must hold: *one writer*. A daemon that is stopped past its lease is killed by its fencer, whose
//! clock goes on, before another can lead; a node that is frozen whole, fencer and all, answers
//! nobody, and when it goes on its gate is shut: in sync no follower acknowledges its epoch, and in
//! async its deadline is over. Nothing sent to it before may be acknowledged by it then. A stopped
//! service deposes nobody by itself: the daemon is well.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::{Done, Nemesis, Undo};
use crate::live::Cluster;
use crate::live::process::send;
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

/// Everything on the leader's host.
pub(super) async fn node(nemesis: &mut Nemesis) -> Result<Done> {
    let node = nemesis.leader().await?.node.clone();
    host(&nemesis.cluster, &node)?.freeze()?;
    Ok(Done::to(node.clone(), Undo::Thaw(node)))
}

pub(super) fn go_on(pid: i32) {
    send(pid, Signal::CONT);
}

/// The host of a node.
pub(super) fn host<'a>(cluster: &'a Cluster, node: &str) -> Result<&'a Arc<Host>> {
    cluster.world().context("faults need a cluster in a world")?.host(node)
}
