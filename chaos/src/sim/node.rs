//! One node: its disk, its clock, and the process that runs on it while one does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_election::machine::{Directive, Machine, Moment};
use mainstay_election::values::{self, NodeName, Nonce, Terms};
use mainstay_sync::commit::Tally;
use mainstay_sync::position::{Epoch, Position, Seq};

use super::clock::Clock;
use super::disk::{Disk, Tag};
use super::look::Looker;
use super::terms::Standing;

/// A machine with a name.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// What survives its processes.
    pub disk: Disk,
    /// Its boot clock.
    pub clock: Clock,
    /// How wrong its wall clock is.
    pub wall_ms: i64,
    /// Counts its processes: what is under way for an older one is for nobody.
    pub life: u64,
    /// The one that runs.
    pub process: Option<Process>,
    /// Its clock stood still for a while, some time in this process' life.
    pub frozen: bool,
    /// Nothing of the process runs until then.
    pub paused_until: Duration,
    /// The longest that a sync takes, and until when that is so.
    pub slow: (u64, Duration),
}

/// A running daemon: the real machine, and the thin shell around it.
#[derive(Debug)]
pub struct Process {
    /// The election's.
    pub machine: Machine,
    /// Whose epochs are this process' own.
    pub incarnation: Nonce,
    /// What the coordinator showed last.
    pub looker: Looker,
    /// Calls without an answer so far.
    pub calls: BTreeSet<u64>,
    /// When the machine is ticked next.
    pub tick_at: Option<Duration>,
    /// What the replica is to be.
    pub directive: Option<Directive>,
    /// Until when the leader's mount answers, on this node's clock.
    pub gate: Moment,
    /// A report is on its way.
    pub reporting: bool,
    /// The log takes nothing of this epoch or an older one.
    pub sealed: Epoch,
    /// A sync is under way, up to here.
    pub syncing: Option<Seq>,
    /// Promises under way.
    pub promises: Vec<Promising>,
    /// The objects hold everything up to here.
    pub applied: Seq,
    /// The objects may hold anything up to here.
    pub touched: Seq,
    /// The applier has something to do and is about to.
    pub applying: bool,
    /// The objects are touched with committed records only.
    pub committed_only: bool,
    /// The applier goes no further, if there is a limit (`applier_limit` of the log).
    pub limit: Option<Seq>,
    /// What is durable where, in one leadership of this process after another.
    pub tally: Tally,
    /// The last step of it that the applier was told of; nothing before the process first led
    /// (`Commit::on_step`).
    pub told: Option<Seq>,
    /// What it is.
    pub role: Role,
    /// Reported from a leadership's first step to its last.
    pub leading: Option<Epoch>,
    /// The leader's service answers.
    pub ready: bool,
    /// By which terms it is to acknowledge, should it lead.
    pub wanted: Option<Terms>,
    /// By which it does.
    pub terms: Option<Terms>,
    /// What it last said of its voters, leading.
    pub standing: Standing,
    /// When a leader was last heard over its stream, and of which epoch.
    pub heard: Option<(Epoch, Moment)>,
    /// Since when without a long silence.
    pub hears_since: Moment,
}

/// A promise under way (`sync/src/volume/mod.rs`, `promise`).
#[derive(Clone, Copy, Debug)]
pub struct Promising {
    /// Nothing of this epoch or an older one from now on.
    pub through: Epoch,
    /// Where the log ended when it was asked for, which nobody may go by: a sync may be in flight.
    pub asked_at: Position,
    /// The vow is being stored.
    pub storing: bool,
}

/// What a process does beside taking part in elections.
#[derive(Debug, Default)]
pub enum Role {
    /// Nothing.
    #[default]
    Idle,
    /// Takes a leader's records.
    Following(Following),
    /// Makes records.
    Leading(Box<Leading>),
}

/// `src/replica/follow.rs` and `sync/src/replicate/follower.rs`.
#[derive(Debug)]
pub struct Following {
    /// Whom.
    pub leader: usize,
    /// In which epoch.
    pub epoch: Epoch,
    /// The session under way.
    pub session: Option<u64>,
    /// The next session comes this long after the last one's end.
    pub pause: Duration,
}

/// `src/replica/lead.rs` and `sync/src/volume/leading.rs`.
#[derive(Debug)]
pub struct Leading {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its EpochStart.
    pub start: Seq,
    /// The sessions that it serves, one per node: (follower, session).
    pub seats: Vec<(usize, u64)>,
    /// The service is being started, or runs.
    pub service: bool,
    /// Fsyncs that wait: up to which op.
    pub waiting: Vec<(Seq, Tag)>,
    /// The leadership is over and being wound up.
    pub over: bool,
    /// Gives up when all that was written is acknowledged.
    pub resigning: bool,
    /// Hands over to this node, since then: gives up only when that has everything too.
    pub heir: Option<(usize, Duration)>,
    /// Since when.
    pub began: Duration,
    /// The service appends up to here (async).
    pub allowed: Option<Seq>,
    /// A write waits for more to be allowed.
    pub wants: bool,
    /// Those who were asked onto the list of who may take over, and off it again then.
    pub asked: BTreeMap<NodeName, (values::VolumeId, Option<Duration>)>,
}

impl Node {
    /// Its boot clock now.
    #[must_use]
    pub fn local(&self, now: Duration) -> Moment {
        Moment::new(self.clock.show(now))
    }

    /// The leadership under way.
    #[must_use]
    pub fn leadership(&self) -> Option<&Leading> {
        match &self.process.as_ref()?.role {
            Role::Leading(leading) if !leading.over => Some(leading),
            _ => None,
        }
    }
}

impl Process {
    /// The leadership, also one that is being wound up.
    pub fn leading_mut(&mut self) -> Option<&mut Leading> {
        match &mut self.role {
            Role::Leading(leading) => Some(leading),
            _ => None,
        }
    }

    /// The following under way.
    pub fn following_mut(&mut self) -> Option<&mut Following> {
        match &mut self.role {
            Role::Following(following) => Some(following),
            _ => None,
        }
    }
}
