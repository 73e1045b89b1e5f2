//! Disks that are full, that fail, that are slow, and one that changes what it holds.
//!
//! Must hold: the service is told (`ENOSPC`, as a file system of its own would tell it) before
//! anything is acknowledged that is not stored; a full follower stops acknowledging and harms
//! nobody else; nothing is torn, and all goes on when there is room again. After an fdatasync that
//! failed a process acknowledges nothing any more, for what the kernel has dropped no later sync
//! brings back; a slow disk makes everything slow, and nothing wrong. A byte that a disk
//! changes under a follower is found before that copy counts for anything (content is compared
//! before a replica becomes a voter), and is never spread.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use super::bound::{START, Terms};
use super::{Done, Kind, Nemesis, Undo};
use crate::live::Cluster;
use crate::world::image::Image;

/// How much longer a slow disk takes for each request.
const DELAY: Duration = Duration::from_millis(50);

/// What is left of a full disk.
const LEFT: u64 = 256 << 10;

/// The leader's.
pub(super) async fn fill_leader(nemesis: &mut Nemesis) -> Result<Done> {
    let node = nemesis.leader().await?.node.clone();
    fill(nemesis, node)
}

/// A follower's.
pub(super) async fn fill_follower(nemesis: &mut Nemesis, choice: u64) -> Result<Done> {
    let node = nemesis.follower(choice).await?.node.clone();
    fill(nemesis, node)
}

/// The leader's fails every request, until an operator has it checked.
pub(super) async fn fail(nemesis: &mut Nemesis) -> Result<Done> {
    let node = nemesis.leader().await?.node.clone();
    image(&mut nemesis.cluster, &node)?.trouble()?.fail(true);
    Ok(Done::to(node.clone(), Undo::Mend(node)))
}

/// The leader's takes its time.
pub(super) async fn slow(nemesis: &mut Nemesis) -> Result<Done> {
    let node = nemesis.leader().await?.node.clone();
    image(&mut nemesis.cluster, &node)?.trouble()?.slow_down(DELAY);
    Ok(Done::to(node.clone(), Undo::Hasten(node)))
}

/// A disk that failed is checked and mounted again; the daemon is ended for it.
pub(super) fn mend(nemesis: &mut Nemesis, node: &str) -> Result<()> {
    let replica = nemesis.cluster.node(node)?;
    replica.kill();
    let image = replica.image().context("faults need a cluster in a world")?;
    image.trouble()?.fail(false);
    image.mend()
}

/// What the service has not written for so long it is not about to write: what is changed there stays
/// changed until somebody looks.
const AT_REST: Duration = Duration::from_secs(10);

/// Comparing all contents takes a while on a busy machine.
const VERIFY_PATIENCE: Duration = Duration::from_secs(120);

/// One in a file at rest of a follower's copy; then all contents are compared, as an operator has them
/// compared now and then. That it was found and mended shows at the run's end, when all replicas must
/// hold the same.
pub(super) async fn flip_byte(nemesis: &mut Nemesis, choice: u64) -> Result<Done> {
    let follower = nemesis.follower(choice).await?;
    let node = follower.node.clone();
    let mut objects = Vec::new();
    let mut folders = vec![follower.state().join("objects")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let (entry, metadata) =
                entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            if metadata.is_dir() {
                folders.push(entry);
            } else if metadata.len() > 0 && metadata.modified()?.elapsed()? > AT_REST {
                objects.push((entry, metadata.len()));
            }
        }
    }
    // In an order that does not hang on the disk's.
    objects.sort();
    let count = u64::try_from(objects.len())?.max(1);
    let chosen = objects.get(usize::try_from(choice % count)?);
    let (path, length) = chosen.context("nothing of the follower's is at rest")?;
    let file = File::options().read(true).write(true).open(path)?;
    let offset = choice / count % length;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ 0x10], offset)?;
    file.sync_all()?;
    let mut verify = tokio::process::Command::from(follower.mainstay(&["verify"]));
    let verify = verify.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(VERIFY_PATIENCE, verify).await;
    let output = output.context("mainstay verify came to no end")??;
    tracing::info!(said = %String::from_utf8_lossy(&output.stdout), "compared");
    Ok(Done::to(node, Undo::Nothing))
}

fn fill(nemesis: &mut Nemesis, node: String) -> Result<Done> {
    image(&mut nemesis.cluster, &node)?.fill(LEFT)?;
    Ok(Done::to(node.clone(), Undo::Empty(node)))
}

/// A node's disk.
pub(super) fn image<'a>(cluster: &'a mut Cluster, node: &str) -> Result<&'a Image> {
    cluster.node(node)?.image().context("faults need a cluster in a world")
}

/// A service that is told that there is no room stops or ends, and nobody deposes a leader for that:
/// it goes on when there is room again. A disk that fails ends its leader's work. A slow one lets
/// through some writes all the time, each after a dozen slow requests of its file system's journal.
/// Followers' disks stand in nobody's way.
pub(super) fn stands_still(kind: Kind, terms: &Terms) -> Duration {
    match kind {
        Kind::FillLeader => terms.lasted + terms.failover(),
        Kind::FailDisk => terms.failover(),
        Kind::SlowDisk => 12 * DELAY + START,
        _ => Duration::ZERO,
    }
}
