//! etcd without its leader, without a quorum, and without its memory.
//!
//! Must hold: everything, for data never goes through the coordinator. While it elects a new leader
//! of its own nobody is deposed, since leases outlast that. Without a quorum nobody can take over;
//! in async the leader steps down when its lease is over, in sync it goes on while a quorum of
//! replicas hears it. When etcd is back there is a leader again without anyone's help.

use std::time::Duration;

use anyhow::{Context, Result};

use super::bound::Terms;
use super::{Done, Kind, Nemesis, Undo};
use crate::judge::Promise;
use crate::live::etcd::Etcd;

/// Whichever member leads etcd.
pub(super) async fn kill_leader(nemesis: &mut Nemesis) -> Result<Done> {
    let etcd = etcd(nemesis)?;
    let leader = etcd.leader().await.context("etcd has no leader now")?;
    etcd.kill_member(leader);
    Ok(Done::to(format!("etcd{leader}"), Undo::StartEtcd(vec![leader])))
}

/// All members but a minority.
pub(super) fn stop(nemesis: &mut Nemesis) -> Result<Done> {
    let etcd = etcd(nemesis)?;
    let members: Vec<_> = (0..=etcd.size() / 2).collect();
    for member in &members {
        etcd.kill_member(*member);
    }
    let names: Vec<_> = members.iter().map(|member| format!("etcd{member}")).collect();
    Ok(Done::to(names.join(", "), Undo::StartEtcd(members)))
}

/// All members with all that they hold, and empty ones in their places. A config that a quorum's
/// vows still hold may be put back; epochs must go on rising.
pub(super) fn wipe(nemesis: &mut Nemesis) -> Result<Done> {
    let etcd = etcd(nemesis)?;
    etcd.kill_all();
    etcd.wipe()?;
    for member in 0..etcd.size() {
        etcd.start_member(member)?;
    }
    Ok(Done::to("etcd", Undo::Nothing))
}

pub(super) fn start(nemesis: &mut Nemesis, members: &[usize]) -> Result<()> {
    let etcd = etcd(nemesis)?;
    for member in members {
        if !etcd.is_started(*member) {
            etcd.start_member(*member)?;
        }
    }
    Ok(())
}

fn etcd(nemesis: &mut Nemesis) -> Result<&mut Etcd> {
    nemesis.cluster.etcd.as_mut().context("the coordinator is no etcd")
}

/// etcd elects within any lease, and nobody waits for it meanwhile. Without a quorum of its members a
/// leader in sync goes on; in async it steps down, and there is none until they are back. Without its
/// memory, leader and config are put back, or elected anew.
pub(super) fn stands_still(kind: Kind, terms: &Terms) -> Duration {
    match (kind, terms.promise) {
        (Kind::StopEtcd, Promise::Async) => terms.lasted + terms.failover(),
        (Kind::WipeEtcd, _) => terms.lease + terms.failover(),
        _ => Duration::ZERO,
    }
}
