//! Everything that a session says besides records: one file for the wire.
//!
//! Changes here are a new [`PROTOCOL`](super::plan::PROTOCOL). The live session, one channel on
//! one link:
//!
//! ```text
//! follower                          leader
//! Hello(standing)            ->
//!                            <-     Welcome(leading, verdict)
//! (does as the verdict says)
//! Ready(position, volume)    ->
//!                            <-     Started
//!                            <-     records, Beat now and then
//! Ack now and then           ->
//! ```
//!
//! A copy, one channel on a link of its own, between Welcome and Ready (protocol 2 knows only
//! `since` 0, everything; a later one may send only what was born after `since`):
//!
//! ```text
//! Delta(since)               ->
//!                            <-     Begin(position s), Rows.., (Extent, data)..
//!                            <-     End(d)
//! (closes once Started: until then the leader keeps the records after s)
//! ```

use serde::{Deserialize, Serialize};

use super::plan::{Leading, Standing, Verdict};
use crate::op::Time;
use crate::position::{Epoch, FileId, Position, Seq, VolumeId};
use crate::store::rows::Row;
use crate::volume::SnapshotHeader;

/// From a follower.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToLeader {
    /// Opens a live session.
    Hello(Standing),
    /// The verdict is carried out: send what follows this record.
    Ready {
        /// The follower's head.
        after: Position,
        /// Its volume: a copy makes another one of it, as what the old one acknowledged is gone.
        volume: VolumeId,
    },
    /// What is safe here. Counts only if `epoch` is the session's.
    Ack {
        /// The session's.
        epoch: Epoch,
        /// Everything up to here is durable in the follower's log.
        durable: Seq,
        /// And up to here in its objects.
        applied: Seq,
        /// The `stamp` of the newest beat that was heard before this was said.
        echo: Stamp,
    },
    /// Opens a copy session: send what was born after `since`.
    Delta {
        /// The follower's volume, as in its live session.
        volume: VolumeId,
        /// 0 is everything.
        since: Seq,
    },
}

/// From a leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToFollower {
    /// Answers a Hello.
    Welcome(Welcome),
    /// Answers a Ready: the records after it are held until sent.
    Started,
    /// What a record does not say.
    Beat(Beat),
    /// Answers a Delta.
    Begin(SnapshotHeader),
    /// Rows of the index at Begin's position.
    Rows(Vec<Row>),
    /// The next frame is data at this place.
    Extent {
        /// Whose.
        id: FileId,
        /// Of its first byte.
        offset: u64,
    },
    /// The copy is at one position once the records up to `through` are laid over it.
    End {
        /// A position of the leader's after it had read the last byte.
        through: Position,
    },
}

/// What the leader says of itself and of the follower.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Its side of the decision.
    pub leading: Leading,
    /// Its decision.
    pub verdict: Verdict,
    /// Its clock.
    pub at: Time,
}

/// How far the leader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Its last record.
    pub head: Seq,
    /// Its last committed one.
    pub committed: Seq,
    /// About how many bytes of its records it does not know to be durable at the follower.
    pub behind_bytes: u64,
    /// How old the oldest of those is.
    pub behind_ms: u64,
    /// Its clock.
    pub at: Time,
    /// When it was said, for its sender alone: an acknowledgement that gives it back was made
    /// after that.
    pub stamp: Stamp,
}

/// Nanoseconds since the boot of the machine that made it; 0 is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp(pub u64);
