//! Disks that are full.
//!
//! Must hold: the service is told (`ENOSPC`, as a file system of its own would tell it) before
//! anything is acknowledged that is not stored; a full follower stops acknowledging and harms
//! nobody else; nothing is torn, and all goes on when there is room again.

use anyhow::{Context, Result};

use super::{Done, Nemesis, Undo};
use crate::live::Cluster;
use crate::world::image::Image;

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

fn fill(nemesis: &mut Nemesis, node: String) -> Result<Done> {
    image(&mut nemesis.cluster, &node)?.fill(LEFT)?;
    Ok(Done::to(node.clone(), Undo::Empty(node)))
}

/// A node's disk.
pub(super) fn image<'a>(cluster: &'a mut Cluster, node: &str) -> Result<&'a Image> {
    cluster.node(node)?.image().context("faults need a cluster in a world")
}
