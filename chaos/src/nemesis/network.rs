//! Links that are cut, both ways or one, or that lose or delay packets.
//!
//! Must hold: *one writer* and, in sync, *durability*, whoever is cut off from whom: an
//! acknowledgement needs a write quorum's, a takeover its promises, and two quorums meet. In async
//! the lease: a leader that cannot reach the coordinator has stopped by the time that its key goes.
//! In sync a leader that is cut off from the coordinator alone goes on while a quorum hears it, and
//! nobody takes over. One that is cut off from all steps down. A flaky or slow link deposes nobody
//! as long as beats get through in time; that it does depose is a loss of comfort, not of safety.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::bound::Terms;
use super::{Done, Kind, Nemesis, Undo};
use crate::judge::Promise;
use crate::world::Link;

/// In which direction the leader's packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Outgoing,
    Incoming,
}

/// Leader and all other replicas; both still reach the coordinator and the clients.
pub(super) async fn cut_followers(nemesis: &mut Nemesis) -> Result<Done> {
    let (node, leader) = leader(nemesis).await?;
    let replicas = nemesis.cluster.replicas.iter().map(|replica| replica.address());
    let links: Vec<_> = replicas
        .filter(|address| *address != leader)
        .flat_map(|address| Link::both(leader, address))
        .collect();
    cut(nemesis, node, links)
}

/// Leader and coordinator; replicas still reach one another.
pub(super) async fn cut_coordinator(nemesis: &mut Nemesis) -> Result<Done> {
    let (node, leader) = leader(nemesis).await?;
    let hosts = hosts(nemesis)?.into_iter();
    let links = hosts
        .filter(|(name, _)| name.starts_with("etcd"))
        .flat_map(|(_, address)| Link::both(leader, address))
        .collect();
    cut(nemesis, node, links)
}

/// Leader and everything else, clients too.
pub(super) async fn cut_all(nemesis: &mut Nemesis) -> Result<Done> {
    let (node, leader) = leader(nemesis).await?;
    let links = others(nemesis, leader)?.flat_map(|address| Link::both(leader, address)).collect();
    cut(nemesis, node, links)
}

/// Leader and everything else, in one direction.
pub(super) async fn cut_one_way(nemesis: &mut Nemesis, way: Way) -> Result<Done> {
    let (node, leader) = leader(nemesis).await?;
    let link = |address| match way {
        Way::Outgoing => Link { from: leader, to: address },
        Way::Incoming => Link { from: address, to: leader },
    };
    let links = others(nemesis, leader)?.map(link).collect();
    cut(nemesis, node, links)
}

/// Between the leader and one follower, both ways.
pub(super) async fn flaky(nemesis: &mut Nemesis, choice: u64) -> Result<Done> {
    let (node, leader) = leader(nemesis).await?;
    let follower = nemesis.follower(choice).await?;
    let (other, address) = (follower.node.clone(), follower.address());
    let links = Link::both(leader, address).to_vec();
    nemesis.switch()?.make_flaky(&links)?;
    Ok(Done::to(format!("{node}, {other}"), Undo::Steady(links)))
}

/// All that goes to and from the leader's host.
pub(super) async fn slow(nemesis: &mut Nemesis) -> Result<Done> {
    let (node, _) = leader(nemesis).await?;
    let host = super::pause::host(&nemesis.cluster, &node)?;
    nemesis.switch()?.slow_down(host, "4mbit")?;
    Ok(Done::to(node.clone(), Undo::SpeedUp(node)))
}

async fn leader(nemesis: &mut Nemesis) -> Result<(String, Ipv4Addr)> {
    let leader = nemesis.leader().await?;
    Ok((leader.node.clone(), leader.address()))
}

fn cut(nemesis: &mut Nemesis, node: String, links: Vec<Link>) -> Result<Done> {
    nemesis.switch()?.cut(&links)?;
    Ok(Done::to(node, Undo::Join(links)))
}

fn hosts(nemesis: &Nemesis) -> Result<Vec<(String, Ipv4Addr)>> {
    let world = nemesis.cluster.world().context("faults need a cluster in a world")?;
    Ok(world.hosts().iter().map(|host| (host.name.clone(), host.address)).collect())
}

fn others(nemesis: &Nemesis, one: Ipv4Addr) -> Result<impl Iterator<Item = Ipv4Addr> + use<>> {
    let all = hosts(nemesis)?.into_iter().map(|(_, address)| address);
    Ok(all.filter(move |address| *address != one))
}

/// Whoever is cut off is replaced as one who died. A leader that is heard and hears nobody is not
/// suspected, and gives up only when its own lease is over. One follower's bad link is no reason to
/// wait for it. Without its followers a leader goes on in async, and without its coordinator in sync.
pub(super) fn stands_still(kind: Kind, terms: &Terms) -> Duration {
    match (kind, terms.promise) {
        (Kind::FlakyLink, _)
        | (Kind::CutFollowers, Promise::Async)
        | (Kind::CutCoordinator, Promise::Sync) => Duration::ZERO,
        (Kind::CutIncoming | Kind::CutOutgoing, _) => terms.lease + terms.failover(),
        _ => terms.failover(),
    }
}
