//! What the machine is told and what it asks for.

use std::sync::Arc;
use std::time::Duration;

use crate::coordinator::{Compare, Grant, LeaseId, Write};
use crate::machine::{Directive, Moment};
use crate::values::{
    ClusterId, Config, Epoch, Lag, Lineage, Member, NodeName, Position, Progress, Seq, Terms,
    Verification, VolumeId,
};
use crate::view::View;

/// Names one transaction of this machine; a late answer to an older one is recognised by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All of it was written.
    Done,
    /// A compare did not hold.
    Refused,
    /// The lease that it would have put keys with is gone.
    LeaseGone,
    /// Nobody can say; it may even happen later.
    Unknown(String),
}

/// What a replica says of itself. The latest report replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The copy of the volume that this process has opened *and locked*.
    pub volume: VolumeId,
    /// The cluster that the volume belongs to; none if it was never part of one.
    pub cluster: Option<ClusterId>,
    /// The last record that is durable here.
    pub position: Position,
    /// The seq of the last op that the objects hold.
    pub applied: Seq,
    /// The seq of the last op in the log, durable or not.
    pub head: Seq,
    /// The vow: no record of this epoch or an earlier one is taken any more.
    pub promised: Epoch,
    /// A copy is being taken in: what is here is no prefix of anything yet.
    pub building: bool,
    /// The epoch whose leadership is still being carried out here, to its last thread: set from
    /// the moment a [`Directive::Lead`] is taken up until the service is dead, the mount is gone
    /// and the log is quiet.
    pub leading: Option<Epoch>,
    /// Leading, and the service answers.
    pub ready: bool,
    /// Where clients reach the service while this replica leads, as `host:port`.
    pub service: Option<String>,
    /// Why this replica must not lead although its volume could ("the service failed to start 3
    /// times").
    pub unfit: Option<String>,
    /// How far it lags behind the leader it follows, as far as it can know.
    pub lag: Lag,
    /// Following: the epoch of the leader whose stream was heard last in this process' life, and
    /// when. [`Moment::NEVER`] if that leader has said goodbye.
    pub heard: Option<(Epoch, Moment)>,
    /// Leading: when the newest word was sent that a write quorum, this replica included, has
    /// answered by now. Whoever answered had promised nothing away at that moment.
    pub quorum_heard: Moment,
    /// Leading: whose copies hold everything that was committed when they were looked at, with
    /// their content compared.
    pub caught_up: Vec<Member>,
    /// Leading: the terms in force, once everything acknowledged before they were is durable on
    /// every quorum that they name.
    pub covered: Option<Terms>,
    /// The newest config that is durable on this replica's disk.
    pub stored: Option<Arc<Config>>,
    /// What came of comparing its content with the leader's, the last time.
    pub verified: Option<Verification>,
    /// What it is busy with, if that takes long.
    pub progress: Option<Progress>,
    /// What it is doing, for people.
    pub state: String,
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Everything in the coordinator, as one read returned it.
    Viewed {
        /// When the read was sent: what it shows was true then or later.
        sent: Moment,
        /// What it shows.
        view: Arc<View>,
    },
    /// A read failed, or what it returned makes no sense.
    Unreadable(String),
    /// An answer to [`Effect::Transact`].
    Transacted(Ticket, Fate),
    /// A lease was granted; `sent` is when it was asked for.
    Granted {
        /// When the request left.
        sent: Moment,
        /// The lease, with the ttl that the coordinator will count.
        grant: Grant,
    },
    /// The lease lives on; `sent` is when that was asked for.
    KeptAlive {
        /// When the request left.
        sent: Moment,
        /// The lease that was asked about.
        lease: LeaseId,
        /// The ttl that the coordinator counts from some moment after `sent`.
        ttl: Duration,
    },
    /// No answer about the lease.
    LeaseUnanswered(String),
    /// The coordinator no longer knows the lease.
    LeaseGone(LeaseId),
    /// The replica reports.
    Report(Box<Report>),
    /// The promise that [`Effect::Promise`] asked for is durable, and only then was the position
    /// read.
    Promised {
        /// The volume that promises.
        volume: VolumeId,
        /// No record of this epoch or an earlier one is taken any more.
        through: Epoch,
        /// Where the log ends, for good as far as those epochs go.
        position: Position,
        /// Which epochs wrote it.
        lineage: Lineage,
    },
    /// The leader's replica wants `node` among those that may take over, or out of them. The
    /// config in the view says when it is so.
    Eligible {
        /// Whose copy.
        node: NodeName,
        /// Which copy.
        volume: VolumeId,
        /// In or out.
        eligible: bool,
    },
    /// The leader of `epoch` wants to be it no longer; its service is stopped and drained.
    Resign {
        /// The leadership to end.
        epoch: Epoch,
        /// For the status and the log.
        why: String,
    },
    /// Time has passed.
    Tick,
}

/// Something to do. Effects are carried out in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Let the leader's mount answer until then; [`Moment::NEVER`]: not at all.
    Gate(Moment),
    /// Acknowledge by these terms from now on, as the leader. Comes before the
    /// [`Directive::Lead`] that it is for.
    Terms(Terms),
    /// What the replica is to be from now on.
    Direct(Directive),
    /// Seal the log through this epoch, then say where it ends ([`Event::Promised`]).
    Promise(Epoch),
    /// Read everything. A read that is under way was asked too early: drop it.
    Read,
    /// Try this.
    Transact(Ticket, Vec<Compare>, Vec<Write>),
    /// Ask for a lease of at least this ttl.
    Grant(Duration),
    /// Ask for more of this lease.
    KeepAlive(LeaseId),
}
