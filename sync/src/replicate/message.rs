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
//! A full copy, one channel on a link of its own, between Welcome and Ready:
//!
//! ```text
//! Copy                       ->
//!                            <-     Begin(position s), Rows.., (Extent, data)..
//!                            <-     End(d)
//! (closes once Started: until then the leader keeps the records after s)
//! ```
//!
//! A delta, in the same place. Several Fetch may be on their way at once:
//!
//! ```text
//! Delta(since)               ->
//!                            <-     Changes(position s), Rows.., RowsEnd
//! Want(rows it had changed)  ->
//!                            <-     Rows.., Answered(those there are none of)
//! Fetch(chunks, hashes)      ->
//!                            <-     (Extent, data or Zeros).., Fetched
//! Complete                   ->
//!                            <-     End(d)
//! ```
//!
//! A comparison, one channel on a link of its own, beside a live session, when a Beat asks for it:
//!
//! ```text
//! Verify(at)                 ->
//! Compare(chunks)            ->
//!                            <-     Hashes
//! Chunk                      ->     only of one that differs
//!                            <-     Chunk(found), data
//! Verified(outcome)          ->
//! ```

use serde::{Deserialize, Serialize};

use super::plan::{Leading, Standing, Verdict};
use crate::op::Time;
use crate::position::{Epoch, FileId, Position, Seq, VolumeId};
use crate::store::rows::Row;
use crate::store::stage::Want;
use crate::volume::{Ask, ChangesHeader, Hashed, SnapshotHeader};

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
    /// Opens a copy session: send everything.
    Copy {
        /// The follower's volume, as in its live session.
        volume: VolumeId,
    },
    /// Opens a delta session: send what was born after `since`.
    Delta {
        /// The follower's volume, as in its live session.
        volume: VolumeId,
        /// The last record in common.
        since: Seq,
        /// With all names and attributes, as deletions here may have left no trace.
        whole: bool,
    },
    /// Send these rows, which a history that lost has changed here.
    Want(Vec<Want>),
    /// Send what of these chunks differs.
    Fetch(Vec<Ask>),
    /// There is no more to ask for.
    Complete,
    /// Opens a comparison.
    Verify {
        /// The follower's volume, as in its live session.
        volume: VolumeId,
        /// As of which record.
        at: Seq,
    },
    /// Say the hashes of these chunks.
    Compare(Vec<(FileId, u64)>),
    /// Send this chunk.
    Chunk {
        /// Whose.
        id: FileId,
        /// Which.
        chunk: u64,
    },
    /// What came of a comparison.
    Verified(Verified),
}

/// What came of comparing a follower's content with its leader's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// As of which record.
    pub at: Seq,
    /// Which comparison of the leader's it was.
    pub run: u64,
    /// Chunks that were compared.
    pub compared: u64,
    /// Chunks that were written after `at`, on either side, before they could be.
    pub moved_on: u64,
    /// What differed, the first of it.
    pub mismatches: Vec<Mismatch>,
    /// How many there were in all.
    pub mismatched: u64,
}

/// A chunk that two replicas hold differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// The file's path, or its id if it has none.
    pub file: String,
    /// The chunk's first byte.
    pub offset: u64,
    /// The leader's hash.
    pub leader: String,
    /// The follower's hash.
    pub follower: String,
    /// What was done about it.
    pub outcome: Outcome,
}

/// What was done about a chunk that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The follower has the leader's bytes now, and its own are in its quarantine.
    Mended,
    /// The leader knows that its own bytes are wrong: it must not go on as leader.
    LeaderIsWrong,
    /// It was written before it could be mended.
    MovedOn,
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
    /// Answers a Delta.
    Changes(ChangesHeader),
    /// Rows of the index at the position of Begin or Changes.
    Rows(Vec<Row>),
    /// All changed rows were sent.
    RowsEnd,
    /// All rows that a Want asked for were sent.
    Answered {
        /// Of these there are none.
        absent: Vec<Want>,
    },
    /// As much is zeros.
    Zeros {
        /// Whose.
        id: FileId,
        /// Of the first byte.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// Answers a Compare, in its order; none of a chunk that was written later.
    Hashes(Vec<Option<Hashed>>),
    /// Answers a Chunk; if it was found the next frame is its data.
    Chunk {
        /// Whether it was not written later.
        found: bool,
    },
    /// All that differs in what a Fetch asked for was sent.
    Fetched,
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
    /// The newest comparison that was asked for, and as of which record; 0: none.
    pub verify: (u64, Seq),
    /// Its clock.
    pub at: Time,
    /// When it was said, for its sender alone: an acknowledgement that gives it back was made
    /// after that.
    pub stamp: Stamp,
}

/// Nanoseconds since the boot of the machine that made it; 0 is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp(pub u64);
