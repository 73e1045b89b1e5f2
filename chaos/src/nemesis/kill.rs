//! SIGKILL, to one process, to a node, to all nodes.
//!
//! Must hold: *prefix* (what the killed leader's disk and the followers' hold are states that its
//! volume went through), since objects are touched only with records that are in the log; in sync,
//! *durability*, since a write quorum had every acknowledged record on its disks, and SIGKILL does
//! not take the kernel's page cache, let alone a disk; *one writer*, since whoever is killed does
//! not answer. A killed daemon must not leave a service behind that writes on: its mount is gone,
//! and its fencer ends it. A killed service is started again in place, in the same epoch, and
//! finds what it had.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::bound::{START, Terms};
use super::{Done, Kind, Nemesis, Undo};
use crate::live::process::{parent, send};

/// The leader's daemon alone; the fencer and the service are left to themselves.
pub(super) async fn daemon(nemesis: &mut Nemesis) -> Result<Done> {
    let leader = nemesis.leader().await?;
    let node = leader.node.clone();
    leader.process().context("the leader was ended by us")?.signal(Signal::KILL);
    nemesis.hold(&node);
    Ok(Done::to(node.clone(), Undo::Release(vec![node])))
}

/// The service's first process on the leader.
pub(super) async fn service(nemesis: &mut Nemesis) -> Result<Done> {
    let leader = nemesis.leader().await?;
    let node = leader.node.clone();
    let pids = leader.service_pids();
    let first = pids.iter().find(|pid| !parent(**pid).is_some_and(|of| pids.contains(&of)));
    send(*first.context("the leader runs no service now")?, Signal::KILL);
    Ok(Done::to(node, Undo::Nothing))
}

/// Everything on the leader's host.
pub(super) async fn node(nemesis: &mut Nemesis) -> Result<Done> {
    let leader = nemesis.leader().await?;
    let node = leader.node.clone();
    leader.kill();
    nemesis.hold(&node);
    Ok(Done::to(node.clone(), Undo::Release(vec![node])))
}

/// Everything on a follower's host.
pub(super) async fn follower(nemesis: &mut Nemesis, choice: u64) -> Result<Done> {
    let follower = nemesis.follower(choice).await?;
    let node = follower.node.clone();
    follower.kill();
    nemesis.hold(&node);
    Ok(Done::to(node.clone(), Undo::Release(vec![node])))
}

/// Everything on every node's host, as a data centre's loss of power.
pub(super) fn all(nemesis: &mut Nemesis) -> Result<Done> {
    let mut nodes = Vec::new();
    for replica in &mut nemesis.cluster.replicas {
        replica.kill();
        nodes.push(replica.node.clone());
    }
    for node in &nodes {
        nemesis.hold(node);
    }
    Ok(Done::to(nodes.join(", "), Undo::Release(nodes)))
}

/// Writes stand still until another leads; after the service's own death until it runs again where
/// it ran. A follower's death stands in nobody's way: the others of the quorum acknowledge. After the
/// death of all, the leader's key may be there for one lease more.
pub(super) fn stands_still(kind: Kind, terms: &Terms) -> Duration {
    match kind {
        Kind::KillFollower => Duration::ZERO,
        Kind::KillService => START,
        Kind::KillAll => terms.lasted + terms.lease + terms.failover(),
        _ => terms.failover(),
    }
}
