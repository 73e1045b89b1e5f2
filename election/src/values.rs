//! What the keys below `/mainstay/<service>/` hold: JSON that a person can read with `etcdctl`.
//!
//! The machine writes these, everything that watches the service reads them through
//! [`crate::view::View`]. Fields that are not known are ignored, so that an older replica lives
//! beside a newer one; a field that is missing makes the value unreadable.
//!
//! The numbers and ids mirror those of the log that is being replicated, and have the same text
//! form. They are types of this crate because who leads must be decidable without knowing what a
//! log is.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

mod config;
mod identity;
pub mod keys;

pub use config::{Config, ConfigMark, Durability, MaxLag, Ruling, Term, Terms, majority};
pub use identity::{BadIdentity, ClusterId, Nonce, VolumeId};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One leadership of one process incarnation; 0 is "before the first leader".
    Epoch
}
number! {
    /// An op's place in the log; 0 is "nothing yet".
    Seq
}

/// A moment on a node's wall clock, in milliseconds since 1970: for people to read, never for a
/// decision, since nobody promises that two nodes' clocks agree.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

/// How far a log reaches: the epoch of its last record, and that record's seq. An older epoch is
/// behind however long its log is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// The epoch that wrote the last record.
    pub epoch: Epoch,
    /// The last record's seq.
    pub seq: Seq,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

/// Which epochs wrote a log, each with the seq of its first record, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(pub Vec<(Epoch, Seq)>);

impl Lineage {
    /// The newest epoch and its first seq.
    #[must_use]
    pub fn last(&self) -> Option<(Epoch, Seq)> {
        self.0.last().copied()
    }

    /// This lineage with `epoch` beginning at `first`, and at most `kept` entries, the newest.
    /// Entries at or past `first` go: their records are not part of this log.
    #[must_use]
    pub fn extended(&self, epoch: Epoch, first: Seq, kept: usize) -> Lineage {
        let mut entries: Vec<_> = self.0.iter().copied().filter(|(_, at)| *at < first).collect();
        entries.push((epoch, first));
        entries.drain(..entries.len().saturating_sub(kept));
        Lineage(entries)
    }
}

/// A node's name: what an operator calls one machine. It is part of keys, file names and metrics,
/// hence 1 to 63 letters, digits, `.`, `_` or `-`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        check_name(text)?;
        Ok(NodeName(text.to_owned()))
    }
}

impl TryFrom<String> for NodeName {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0
    }
}

/// A text that cannot name a node or a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a name: use 1 to 63 letters, digits, `.`, `_` or `-`, the first of them a \
     letter or digit"
)]
pub struct BadName(pub String);

/// Whether `text` can name a node or a service.
///
/// # Errors
/// [`BadName`], which says what would do.
pub fn check_name(text: &str) -> Result<(), BadName> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && text.len() <= 63 && text.bytes().all(plain) {
        Ok(())
    } else {
        Err(BadName(text.to_owned()))
    }
}

/// `epoch`: who took the newest one. Every write of a leader compares this key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochTaken {
    /// The newest epoch.
    pub epoch: Epoch,
    /// Made for this one taking, so that a node that never heard how its transaction ended can
    /// tell its own from another's.
    pub nonce: Nonce,
    /// Who took it.
    pub holder: NodeName,
}

/// `leader`: who leads now. It goes with the leader's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The leading node.
    pub node: NodeName,
    /// The volume that it leads with.
    pub volume: VolumeId,
    /// The epoch that it leads in.
    pub epoch: Epoch,
    /// Where followers reach it, as `host:port`.
    pub peer: String,
    /// Where clients reach the service, as `host:port`; absent in a volume without one.
    pub service: Option<String>,
    /// The service answers; before that, clients wait.
    pub ready: bool,
    /// The same as in `epoch`: this process, this leadership.
    pub nonce: Nonce,
}

/// A node with the volume that it had when it was let in. The same node with another volume is
/// somebody else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its node.
    pub node: NodeName,
    /// Its volume.
    pub volume: VolumeId,
}

/// What a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows a leader.
    Follower,
    /// Neither: it starts, waits or is blocked; its state text says why.
    Idle,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Idle => "idle",
        })
    }
}

/// How far behind the leader a replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// Ops that it lacks.
    pub ops: u64,
    /// Bytes of the log that it lacks.
    pub bytes: u64,
    /// Milliseconds since the oldest op that it lacks was made.
    pub ms: u64,
}

/// What came of comparing a replica's content with its leader's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// When it ended.
    pub at: UnixMs,
    /// As of which op.
    pub seq: Seq,
    /// Chunks that were compared.
    pub chunks: u64,
    /// Chunks that were written meanwhile, and left to the next time.
    pub moved_on: u64,
    /// Chunks that differed and were mended from the leader.
    pub mended: u64,
    /// Chunks that the leader itself knows to be wrong on its disk.
    pub leader_wrong: u64,
    /// What differed, the first of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

/// A chunk that a replica held otherwise than its leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The file's path, or its id if it has none.
    pub file: String,
    /// The chunk's first byte.
    pub offset: u64,
    /// The leader's hash.
    pub leader: String,
    /// The replica's hash.
    pub here: String,
    /// What was done about it, for people.
    pub done: String,
}

/// How far a replica is with something that takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// With what.
    pub task: Task,
    /// Done so far: bytes of a copy, else chunks.
    pub done: u64,
    /// About how many there are; 0 until that is known.
    pub total: u64,
    /// Since it began, on average.
    pub bytes_per_second: u64,
    /// About how long it still takes.
    pub ms_left: Option<u64>,
}

/// What takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A whole copy.
    Copying,
    /// What changed since a position in common.
    CatchingUp,
    /// Comparing the content with the leader's.
    Comparing,
}

/// What an operator says of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// Never takes over.
    pub nofailover: bool,
    /// Breaks ties between equal positions; the higher wins.
    pub priority: i32,
}

/// `replicas/<node>`: a live replica's own words. It goes with the replica's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The node.
    pub node: NodeName,
    /// Its volume.
    pub volume: VolumeId,
    /// The volume's cluster; absent while it is blank.
    pub cluster: Option<ClusterId>,
    /// Where other replicas reach it, as `host:port`.
    pub peer: String,
    /// Where its API listens, as `host:port`, if it does.
    pub api: Option<String>,
    /// What it does.
    pub role: Role,
    /// What it does in words for an operator, with the cause when it waits.
    pub state: String,
    /// What is durable on its disk.
    pub position: Position,
    /// The last seq that its objects hold.
    pub applied: Seq,
    /// The last seq that it holds, durable or not.
    pub head: Seq,
    /// How far it is behind the leader, as far as it knows.
    pub lag: Lag,
    /// The highest epoch that it promised to.
    pub promised: Epoch,
    /// Its copy is not complete yet, so it cannot take over.
    pub building: bool,
    /// The epoch whose leader it does not hear any more (sync): enough of them elect another one.
    #[serde(default)]
    pub suspects: Option<Epoch>,
    /// The newest config that its disk holds.
    #[serde(default)]
    pub stored: Option<ConfigMark>,
    /// Leading: for how many milliseconds it has not heard a write quorum, if it does not (sync).
    #[serde(default)]
    pub quorum_lost_ms: Option<u64>,
    /// When its content was last compared with the leader's, and what came of it.
    #[serde(default)]
    pub verified: Option<Verification>,
    /// What it is busy with, if that takes long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// When it wrote this.
    pub time: UnixMs,
    /// Its program's version.
    pub version: String,
    /// What its operator says of it.
    pub tags: Tags,
}

/// `ballots/<node>`: a promise, and what its maker holds. Kept until the next one replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// Who promises.
    pub node: NodeName,
    /// With which volume.
    pub volume: VolumeId,
    /// Nothing of an epoch below this one is taken any more: the epoch that the ballot is for.
    pub promised: Epoch,
    /// Its durable position, read after the promise was durable.
    pub position: Position,
    /// The newest entry of its lineage.
    pub lineage_end: Option<(Epoch, Seq)>,
    /// Ops durable but not applied yet: how long a promotion would take.
    pub backlog: u64,
    /// Breaks ties; the higher wins.
    pub priority: i32,
}

/// `requests/<name>`: what an operator wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Request {
    /// Hand leadership over, planned.
    Switchover {
        /// To whom; absent is to the best.
        target: Option<NodeName>,
        /// The epoch to be left. In a later one the request is stale.
        epoch: Epoch,
        /// When it was asked for.
        at: UnixMs,
    },
    /// A switchover for later: the leader puts the switchover itself in its place when the time
    /// has come. Until then it allows and changes nothing.
    #[serde(rename = "switchover-scheduled")]
    SwitchoverScheduled {
        /// To whom; absent is to the best.
        target: Option<NodeName>,
        /// The epoch to be left. In a later one the request is stale.
        epoch: Epoch,
        /// When it was asked for.
        at: UnixMs,
        /// When it is due, by the leader's clock.
        due: UnixMs,
    },
    /// What became of a switchover that did not happen, in its request's place: the leader goes
    /// on. The next request replaces it.
    #[serde(rename = "switchover-refused")]
    SwitchoverRefused {
        /// The epoch that was to be left, and goes on.
        epoch: Epoch,
        /// Why, and what to do about it.
        why: String,
    },
    /// No failover while this is present.
    Pause {
        /// For the next operator to read.
        reason: String,
        /// When it was asked for.
        at: UnixMs,
    },
    /// Compare every replica's content with the leader's. Removed when it is done.
    Verify {
        /// When it was asked for.
        at: UnixMs,
    },
    /// Keep fewer copies than were asked for, until the voters are back (sync).
    Degrade {
        /// The epoch that shall go on. In a later one the request is stale.
        epoch: Epoch,
        /// When it was asked for.
        at: UnixMs,
    },
    /// Put back the config that this node's disk has, although not all of its voters are here.
    Recover {
        /// Whose.
        node: NodeName,
        /// When it was asked for.
        at: UnixMs,
    },
    /// Take over without the safety that is missing.
    Failover {
        /// Who shall lead.
        target: NodeName,
        /// Ops acknowledged elsewhere may be lost.
        allow_data_loss: bool,
        /// The epoch to be left. In a later one the request is stale.
        epoch: Epoch,
        /// When it was asked for.
        at: UnixMs,
    },
}

/// `ambassadors/<id>`: a live ambassador. It goes with the ambassador's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ambassador {
    /// Its id, unique per process.
    pub id: String,
    /// Where clients connect.
    pub listen: String,
    /// Its program's version.
    pub version: String,
    /// It acts by the key `leader` as it was put at this revision, or later.
    #[serde(default)]
    pub acts_on: u64,
    /// Clients that arrive are forwarded to that leader.
    #[serde(default)]
    pub forwards: bool,
    /// Clients still connected to a leader, while none is forwarded; else it is not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<u64>,
}

/// `history/<epoch>`: how an epoch began. Written in the transaction that took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    /// The epoch.
    pub epoch: Epoch,
    /// Who took it.
    pub node: NodeName,
    /// Its first record's seq.
    pub first: Seq,
    /// When, on the taker's clock.
    pub at: UnixMs,
    /// Why, in words: first start, failover, switchover.
    pub cause: String,
    /// How many ops of the epoch before were lost, at least; none where that is not known.
    pub lost_ops: Option<u64>,
    /// Who led before.
    pub previous: Option<NodeName>,
}

/// A value as it is stored.
///
/// # Panics
/// Never: every value of this module has a JSON form (only maps with keys that are no strings have
/// none).
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("values of this module have string keys only")
}

/// A stored value, read back.
///
/// # Errors
/// [`BadValue`], naming the key and quoting the value.
pub fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, BadValue> {
    serde_json::from_slice(value).map_err(|error| BadValue {
        key: key.to_owned(),
        value: shortened(value),
        cause: error.to_string(),
    })
}

/// A key whose value cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator's key {key:?} cannot be read: {cause}; its value is {value}")]
pub struct BadValue {
    /// The key, without the service's root.
    pub key: String,
    /// The value, shortened.
    pub value: String,
    /// What is wrong with it.
    pub cause: String,
}

fn shortened(value: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(value);
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests;
