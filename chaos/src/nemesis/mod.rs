//! Faults: which there are, what each must leave standing, and how they are done and undone.
//!
//! A [`plan`] is made from a seed alone; victims are roles (the leader, some follower) that are
//! resolved when a fault is injected. Every fault returns its own [`Undo`].

pub mod bound;
pub mod clock;
pub mod coordinator;
pub mod disk;
pub mod kill;
mod kind;
pub mod membership;
pub mod network;
pub mod pause;
pub mod plan;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use crate::live::process::is_alive;
use crate::live::{Cluster, Replica, until};
use crate::world::{Link, Switch};
pub use kind::Kind;

/// How long a victim is looked for. When faults overlap there may be no leader for a while.
const SEARCH: Duration = Duration::from_secs(15);

/// How long everything may take to be well again on a machine that is busy.
const RECOVERY: Duration = Duration::from_secs(180);

/// How long a service manager waits before it starts a program again that has ended.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// What takes a fault back.
#[derive(Debug)]
pub enum Undo {
    /// It is over by itself.
    Nothing,
    /// It is over when this is.
    Wait(JoinHandle<()>),
    /// Lets the nodes be started again.
    Release(Vec<String>),
    /// Lets these processes go on.
    Continue(Vec<i32>),
    /// Lets the first go on, and the other a moment later.
    ContinueInTurn(i32, i32),
    /// Lets a host go on.
    Thaw(String),
    /// Joins what was cut.
    Join(Vec<Link>),
    /// Loses no packets any more.
    Steady(Vec<Link>),
    /// Lifts a host's bound on its rate.
    SpeedUp(String),
    /// Starts members of etcd again.
    StartEtcd(Vec<usize>),
    /// Repairs a disk that failed, and lets its node be started again.
    Mend(String),
    /// Makes a disk fast again.
    Hasten(String),
    /// Gives a node's disk its room back.
    Empty(String),
    /// Sets a node's clock right.
    SetClock(String),
}

impl Undo {
    /// Whether it can be done now; else later.
    #[must_use]
    pub fn is_due(&self) -> bool {
        match self {
            Undo::Wait(task) => task.is_finished(),
            _ => true,
        }
    }
}

/// What was done, for the report.
#[derive(Debug)]
pub struct Done {
    /// To whom.
    pub on: String,
    /// How to take it back.
    pub undo: Undo,
}

impl Done {
    fn to(on: impl Into<String>, undo: Undo) -> Done {
        Done { on: on.into(), undo }
    }
}

/// Does and undoes faults to a cluster in a world, and keeps its programs running as a service
/// manager would.
#[derive(Debug)]
pub struct Nemesis {
    /// The victim.
    pub cluster: Cluster,
    /// Nodes that are not to be started, with how many faults want that.
    held: BTreeMap<String, u32>,
    /// When each ended program was first seen to have ended.
    ended: BTreeMap<String, Instant>,
}

impl Nemesis {
    /// Takes charge of a running cluster.
    #[must_use]
    pub fn new(cluster: Cluster) -> Nemesis {
        Nemesis { cluster, held: BTreeMap::new(), ended: BTreeMap::new() }
    }

    /// Does a fault; `choice` decides where its kind leaves a choice.
    ///
    /// # Errors
    /// There is no such victim now, or the machine refused.
    pub async fn inject(&mut self, kind: Kind, choice: u64) -> Result<Done> {
        match kind {
            Kind::KillDaemon => kill::daemon(self).await,
            Kind::KillService => kill::service(self).await,
            Kind::KillNode => kill::node(self).await,
            Kind::KillFollower => kill::follower(self, choice).await,
            Kind::KillAll => kill::all(self),
            Kind::PauseDaemon => pause::daemon(self).await,
            Kind::PauseService => pause::service(self).await,
            Kind::PauseNode => pause::node(self).await,
            Kind::PauseGuards => pause::guards(self).await,
            Kind::CutFollowers => network::cut_followers(self).await,
            Kind::CutCoordinator => network::cut_coordinator(self).await,
            Kind::CutAll => network::cut_all(self).await,
            Kind::CutOutgoing => network::cut_one_way(self, network::Way::Outgoing).await,
            Kind::CutIncoming => network::cut_one_way(self, network::Way::Incoming).await,
            Kind::FlakyLink => network::flaky(self, choice).await,
            Kind::SlowLink => network::slow(self).await,
            Kind::KillEtcdLeader => coordinator::kill_leader(self).await,
            Kind::StopEtcd => coordinator::stop(self),
            Kind::WipeEtcd => coordinator::wipe(self),
            Kind::FillLeader => disk::fill_leader(self).await,
            Kind::FillFollower => disk::fill_follower(self, choice).await,
            Kind::FailDisk => disk::fail(self).await,
            Kind::SlowDisk => disk::slow(self).await,
            Kind::FlipByte => disk::flip_byte(self, choice).await,
            Kind::JumpClock => clock::jump(self, choice),
            Kind::Restart => membership::restart(self, choice),
            Kind::Replace => membership::replace(self, choice).await,
            Kind::Roll => membership::roll(self).await,
            Kind::Switchover => membership::switchover(self).await,
        }
    }

    /// Takes a fault back.
    ///
    /// # Errors
    /// The machine refused.
    pub fn undo(&mut self, undo: Undo) -> Result<()> {
        match undo {
            Undo::Nothing | Undo::Wait(_) => Ok(()),
            Undo::Release(nodes) => {
                for node in nodes {
                    self.release(&node);
                }
                Ok(())
            }
            Undo::Continue(pids) => {
                pids.into_iter().filter(|pid| is_alive(*pid)).for_each(pause::go_on);
                Ok(())
            }
            Undo::ContinueInTurn(first, other) => {
                pause::go_on_in_turn(first, other);
                Ok(())
            }
            Undo::SetClock(node) => clock::set(self, &node, 0),
            Undo::Thaw(node) => pause::host(&self.cluster, &node)?.thaw(),
            Undo::Join(links) => self.switch()?.join(&links),
            Undo::Steady(links) => self.switch()?.make_steady(&links),
            Undo::SpeedUp(node) => {
                let host = pause::host(&self.cluster, &node)?;
                self.switch()?.speed_up(host)
            }
            Undo::StartEtcd(members) => coordinator::start(self, &members),
            Undo::Mend(node) => disk::mend(self, &node),
            Undo::Hasten(node) => {
                disk::image(&mut self.cluster, &node)?.trouble()?.slow_down(Duration::ZERO);
                Ok(())
            }
            Undo::Empty(node) => disk::image(&mut self.cluster, &node)?.empty(),
        }
    }

    /// Starts what has ended by itself, as a service manager does after a moment.
    ///
    /// # Errors
    /// The binary cannot be run.
    pub fn tend(&mut self) -> Result<()> {
        for replica in &mut self.cluster.replicas {
            let held = self.held.get(&replica.node).is_some_and(|count| *count > 0);
            let has_ended = match replica.process() {
                Some(process) => process.ended().is_some(),
                None => true,
            };
            if held || !has_ended {
                self.ended.remove(&replica.node);
                continue;
            }
            let since = self.ended.entry(replica.node.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= RESTART_AFTER {
                replica.start()?;
            }
        }
        Ok(())
    }

    /// Waits until every node is in its role, and starts meanwhile what has ended by itself.
    ///
    /// # Errors
    /// They were not in time.
    pub async fn whole(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            self.tend()?;
            let replicas = self.cluster.replicas.iter();
            let nodes: Vec<_> = replicas.map(|replica| replica.node.as_str()).collect();
            let status = self.cluster.status().await;
            if status.as_ref().is_ok_and(|status| status.is_whole(&nodes)) {
                return Ok(());
            }
            let waited = start.elapsed();
            anyhow::ensure!(
                waited < RECOVERY,
                "not every node is in its role after {waited:.0?}: {status:?}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn hold(&mut self, node: &str) {
        *self.held.entry(node.to_owned()).or_default() += 1;
    }

    fn release(&mut self, node: &str) {
        if let Some(count) = self.held.get_mut(node) {
            *count = count.saturating_sub(1);
        }
    }

    /// Who leads now.
    async fn leader(&mut self) -> Result<&mut Replica> {
        let step = Duration::from_millis(200);
        let cluster = &self.cluster;
        let found = until("a leader to do something to", SEARCH, step, async || {
            cluster.status().await.ok()?.leader
        })
        .await?;
        self.cluster.node(&found)
    }

    /// Some running node that does not lead.
    async fn follower(&mut self, choice: u64) -> Result<&mut Replica> {
        let leader = self.leader().await?.node.clone();
        let held = &self.held;
        let mut others: Vec<_> = self
            .cluster
            .replicas
            .iter_mut()
            .filter(|replica| replica.node != leader)
            .filter(|replica| held.get(&replica.node).is_none_or(|count| *count == 0))
            .collect();
        let count = u64::try_from(others.len())?.max(1);
        let index = usize::try_from(choice % count)?;
        anyhow::ensure!(index < others.len(), "no follower runs");
        Ok(others.swap_remove(index))
    }

    fn switch(&self) -> Result<&Switch> {
        let world = self.cluster.world().context("faults need a cluster in a world")?;
        Ok(world.switch())
    }
}
