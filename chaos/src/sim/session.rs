//! A session between a follower and its leader, as both ends and the wire know it.
//!
//! The wire is QUIC's: in order and without gaps within a session, whatever the network does; loss
//! shows as delay, and a direction that carries nothing as silence that ends the session
//! (`sync/src/transport`). Messages are those of `sync/src/replicate/message.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_election::machine::Moment;
use mainstay_sync::op::Record;
use mainstay_sync::position::{Epoch, Lineage, Position, Seq, VolumeId};
use mainstay_sync::replicate::check::Expected;
use mainstay_sync::replicate::plan::{Leading, Standing, Verdict};

use super::disk::Tag;

/// What travels. The two directions share one type here.
#[derive(Clone, Debug)]
pub enum Message {
    /// Opens a session.
    Hello(Box<Standing>),
    /// Answers it.
    Welcome(Box<Leading>, Verdict),
    /// The verdict is carried out.
    Ready { after: Position, volume: VolumeId },
    /// Records follow.
    Started,
    /// Some.
    Records(Vec<Record>),
    /// How far the leader is, and when it said so on its clock.
    Beat { committed: Seq, at: Moment },
    /// What is safe at the follower, and the newest beat that it heard.
    Ack { epoch: Epoch, durable: Seq, applied: Seq, echo: Moment },
    /// Asks for everything, or for what was born after an op.
    Fetch { since: Option<Seq> },
    /// A copy begins: as of which checkpoint.
    Begin { position: Position, lineage: Lineage },
    /// Some places of the objects, as they were when read.
    Piece(Vec<(Seq, Tag)>),
    /// Whole once the records up to there are laid over it.
    End { through: Position },
    /// Nothing: the link lives.
    Ping,
    /// The other end is gone, in order; a leader also says whether it leads no more.
    Close {
        /// It leads no more.
        leaves: bool,
    },
}

/// One direction.
#[derive(Debug, Default)]
pub struct Pipe {
    /// Sent and not arrived.
    pub under_way: VecDeque<Message>,
    /// When the last of them arrives, if nothing stops it.
    pub last: Duration,
}

/// Both ends and what is between them.
#[derive(Debug)]
pub struct Session {
    /// Its follower's node and process.
    pub follower: (usize, u64),
    /// The leader's node.
    pub leader: usize,
    /// To the leader.
    pub up: Pipe,
    /// To the follower.
    pub down: Pipe,
    /// The follower's end, while it has one.
    pub taker: Option<Taker>,
    /// The leader's, while it has one.
    pub server: Option<Server>,
}

/// The follower's end (`sync/src/replicate/intake.rs`).
#[derive(Debug)]
pub struct Taker {
    /// When the leader was last heard.
    pub heard: Duration,
    /// What was welcomed by.
    pub leading: Option<Leading>,
    /// The verdict to carry out.
    pub verdict: Option<Verdict>,
    /// A copy that arrives: up to where records are needed, once that is known.
    pub copying: Option<Option<Position>>,
    /// A delta that arrives.
    pub staged: Option<Staged>,
    /// Records flow.
    pub expected: Option<Expected>,
    /// The newest beat.
    pub echo: Moment,
}

/// What lies in `staging/`: a delta, until the volume goes over to it.
#[derive(Debug)]
pub struct Staged {
    /// The last op in common, or the leader's checkpoint if that is before it.
    pub base: Seq,
    /// Where the volume stands.
    pub from: Position,
    /// The leader's checkpoint that it is of.
    pub to: Position,
    /// The lineage up to that.
    pub lineage: Lineage,
    /// The leader's places that were born since.
    pub places: Vec<(Seq, Tag)>,
    /// The records after the checkpoint.
    pub records: Vec<Record>,
    /// Up to where records are needed, once that is known.
    pub through: Option<Position>,
    /// All is there, and on its way to the disk.
    pub switching: bool,
}

impl Staged {
    /// The records that belong to the delta, and those that came after them.
    #[must_use]
    pub fn split(&self, through: Seq) -> (Vec<Record>, Vec<Record>) {
        self.records.iter().cloned().partition(|record| record.head.seq <= through)
    }
}

/// The leader's end (`sync/src/replicate/session.rs`).
#[derive(Debug)]
pub struct Server {
    /// The leader's process.
    pub life: u64,
    /// Its leadership.
    pub epoch: Epoch,
    /// When the follower was last heard.
    pub heard: Duration,
    /// The follower's volume.
    pub volume: VolumeId,
    /// What was decided on.
    pub leading: Leading,
    /// The decision.
    pub verdict: Verdict,
    /// Records flow.
    pub started: bool,
    /// The last record sent.
    pub sent: Seq,
    /// What the follower has.
    pub durable: Seq,
    /// The last committed record that the follower was told of.
    pub told: Seq,
    /// A sending is about to happen.
    pub sending: bool,
    /// The copy or delta under way: held from here on, and pieces left to read.
    pub snapshot: Option<(Seq, u64)>,
    /// The last op in common, of a delta.
    pub since: Seq,
    /// The newest beat that the follower echoed, on the leader's clock.
    pub echoed: Moment,
}
