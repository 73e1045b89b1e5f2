//! A node whose time of day is suddenly wrong, by an hour or by ten days, forward or back, and right
//! again after a while, as a time server's correction or an operator's mistake makes it.
//!
//! Must hold: everything, and nobody notices. What fences counts on CLOCK_BOOTTIME, which nobody
//! sets; the time of day is written down for people, and decides nothing. Certificates are valid for
//! longer than any clock here is wrong by.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Done, Nemesis, Undo};

/// Nobody waits for a clock that people read.
pub(super) const STANDS_STILL: Duration = Duration::ZERO;

const HOUR: i64 = 3600;

/// How wrong a clock can be, in seconds.
const JUMPS: [i64; 4] = [HOUR, -HOUR, 240 * HOUR, -240 * HOUR];

/// Any node's, the leader's as often as another's.
pub(super) fn jump(nemesis: &mut Nemesis, choice: u64) -> Result<Done> {
    let count = u64::try_from(nemesis.cluster.replicas.len())?;
    let node = nemesis.cluster.replicas[usize::try_from(choice % count)?].node.clone();
    let jump = JUMPS[usize::try_from(choice / count % 4)?];
    set(nemesis, &node, jump)?;
    Ok(Done::to(format!("{node} by {} h", jump / HOUR), Undo::SetClock(node)))
}

/// Sets a node's clock so many seconds ahead of the machine's.
pub(super) fn set(nemesis: &Nemesis, node: &str, ahead: i64) -> Result<()> {
    let world = nemesis.cluster.world().context("faults need a cluster in a world")?;
    world.host(node)?.clock()?.set(ahead)
}
