//! What replication needs of the two volumes that it keeps equal.
//!
//! Calls that may wait for a disk are made off the async threads; which do not is said at each. Implemented by the volume, and by an in-memory model in tests.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::plan::Standing;
use crate::log::Frame;
use crate::op::Record;
use crate::position::{ClusterId, Epoch, FileId, Lineage, Position, Seq, VolumeId};
use crate::store::rows::Row;

/// Why the leader's volume gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The log no longer has it: the follower must copy.
    #[error("the log begins at record {oldest} now")]
    Released {
        /// The oldest record that it holds.
        oldest: Seq,
    },
    /// It cannot be read.
    #[error("cannot read the leader's volume: {0}")]
    Failed(String),
}

/// Why the follower's volume did not take it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {why}")]
pub struct SinkError {
    /// What was tried, as a verb with its object.
    pub action: &'static str,
    /// What the volume said.
    pub why: String,
}

/// The leader's volume. Only [`Source::records`] and [`Source::snapshot`] may wait for a disk.
pub trait Source: Send + Sync + 'static {
    /// Its cluster.
    fn cluster(&self) -> ClusterId;

    /// Its id.
    fn volume(&self) -> VolumeId;

    /// Which epochs wrote its log, the current one last.
    fn lineage(&self) -> Lineage;

    /// Its last record.
    fn head(&self) -> Position;

    /// The oldest record still held; past the head if none.
    fn first(&self) -> Seq;

    /// The last committed record.
    fn committed(&self) -> Seq;

    /// About how many bytes of records are held after `seq`.
    fn bytes_after(&self, seq: Seq) -> u64;

    /// The records after `after`, from disk if they are old. They are held until read.
    ///
    /// # Errors
    /// They are released, or the log cannot be read.
    fn records(&self, after: Seq) -> Result<Box<dyn Records>, SourceError>;

    /// The follower `volume` has everything up to `seq` durable, said in a session of `epoch`.
    fn peer_durable(&self, volume: VolumeId, epoch: Epoch, seq: Seq);

    /// The whole volume as of a checkpoint. While it lives, the records after its position and
    /// the objects that it names are held.
    ///
    /// # Errors
    /// The volume cannot be read.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, SourceError>;
}

/// Records in order, each once.
pub trait Records: Send {
    /// The next ones, as far as they are here (at least one: waits for it), at most about
    /// `bytes_max` bytes of them. Durable here or not: a follower need not wait for our disk.
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Vec<Frame>, SourceError>>;
}

/// A volume being read in whole while its leader goes on writing.
pub trait Snapshot: Send {
    /// The position of its rows.
    fn position(&self) -> Position;

    /// Which epochs led there.
    fn lineage(&self) -> Lineage;

    /// Bytes that the files take on disk, about.
    fn bytes_total(&self) -> u64;

    /// The next piece; `None`: that was all. Every row of a file comes before its bytes. Holes are
    /// left out. Bytes may be of any op up to the volume's head after the call.
    ///
    /// # Errors
    /// The index or an object cannot be read.
    fn next(&mut self) -> Result<Option<Piece>, SourceError>;
}

/// A part of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Rows of the index.
    Rows(Vec<Row>),
    /// Bytes of a file.
    Data {
        /// Which.
        id: FileId,
        /// Where they begin.
        offset: u64,
        /// What they are.
        bytes: Bytes,
    },
}

/// The follower's volume. One session at a time writes to it. What only asks waits for no disk.
pub trait Sink: Send + Sync + 'static {
    /// Where it stands. `protocol`, `service` and `node` are filled in by the session.
    fn standing(&self) -> Standing;

    /// The last durable record. Falls when a tail is truncated.
    fn durable(&self) -> Position;

    /// The last op whose outcome the objects hold.
    fn applied(&self) -> Seq;

    /// Has `told` called after every step of [`Sink::durable`], for as long as the volume lives.
    fn on_durable(&self, told: Box<dyn Fn() + Send + Sync>);

    /// The newest epoch of which nothing is taken any more.
    fn promised(&self) -> Epoch;

    /// Resolves when `bytes` more may come without letting the unapplied run away.
    fn ready(&self, bytes: u64) -> BoxFuture<'static, ()>;

    /// Takes the next record of a session of `epoch`; it is durable some time later. Waits for
    /// no disk.
    ///
    /// # Errors
    /// It was not taken.
    fn receive(&self, epoch: Epoch, record: &Record) -> Result<(), SinkError>;

    /// Drops the records after `after`, none of which was applied; keeps what they held aside.
    ///
    /// # Errors
    /// The log is as it was.
    fn truncate_after(&self, after: Seq) -> Result<(), SinkError>;

    /// Moves everything aside, as plain files; the volume is blank then and has another id.
    ///
    /// # Errors
    /// It may be half done, and goes on at the next try.
    fn set_aside(&self, why: &str) -> Result<(), SinkError>;

    /// Empties the volume, marks it as building, and takes a copy.
    ///
    /// # Errors
    /// The volume may be empty and building; the next try begins again.
    fn build(&self, start: CopyStart) -> Result<Box<dyn Builder>, SinkError>;
}

/// What a copy is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStart {
    /// The leader's cluster; a blank volume belongs to it from here on.
    pub cluster: ClusterId,
    /// The position of its rows.
    pub position: Position,
    /// Which epochs led there.
    pub lineage: Lineage,
}

/// A follower's volume while a copy arrives. Dropped before [`Builder::finish`], it stays
/// building, is not promotable, and the next session copies again.
pub trait Builder: Send {
    /// Takes the next piece, in the order in which the snapshot gave them.
    ///
    /// # Errors
    /// It is unsound, or the disk failed.
    fn piece(&mut self, piece: Piece) -> Result<(), SinkError>;

    /// Takes the next record after the copy's position; only once all rows and bytes are there.
    ///
    /// # Errors
    /// It was not taken.
    fn record(&mut self, epoch: Epoch, record: &Record) -> Result<(), SinkError>;

    /// All is there: makes it durable, and the volume one like any other.
    ///
    /// # Errors
    /// The volume stays building.
    fn finish(self: Box<Self>) -> Result<(), SinkError>;
}
