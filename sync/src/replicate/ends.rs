//! What replication needs of the two volumes that it keeps equal.
//!
//! Calls that may wait for a disk are made off the async threads; which do not is said at each. Implemented by the volume, and by an in-memory model in tests.

use futures::future::BoxFuture;

use super::plan::Standing;
use crate::log::Frame;
use crate::op::Record;
use crate::position::{ClusterId, Epoch, Lineage, Position, Seq, VolumeId};
use crate::store::rows::Row;
use crate::store::stage::{Need, Want};
use crate::volume::{Ask, ChangesHeader, Differing, Piece, SnapshotHeader, Volume};

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
    /// Its cluster; `None`: it is blank, and cannot be followed.
    fn cluster(&self) -> Option<ClusterId>;

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

    /// What was born after `since`, or after the checkpoint if that is before it, as of that
    /// checkpoint, held as a snapshot is; `whole`: with all names and attributes.
    ///
    /// # Errors
    /// The volume cannot be read, or gives no deltas.
    fn changes(&self, since: Seq, whole: bool) -> Result<Box<dyn Changes>, SourceError> {
        let _ = whole;
        Err(SourceError::Failed(format!("it gives no delta since {since}")))
    }

    /// The volume whose content can be compared, if it is a real one.
    fn to_verify(&self) -> Option<Volume> {
        None
    }
}

/// Records in order, each once.
pub trait Records: Send {
    /// The next ones, as far as they are here (at least one: waits for it), at most about
    /// `bytes_max` bytes of them. Durable here or not: a follower need not wait for our disk.
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Vec<Frame>, SourceError>>;
}

/// A volume being read in whole while its leader goes on writing.
pub trait Snapshot: Send {
    /// What it is of.
    fn header(&self) -> SnapshotHeader;

    /// The next piece; `None`: that was all. Every row of a file comes before its bytes. Holes are
    /// left out. Bytes may be of any op up to the volume's head after the call.
    ///
    /// # Errors
    /// The index or an object cannot be read.
    fn next(&mut self) -> Result<Option<Piece>, SourceError>;

    /// After the last piece: the last record that must be laid over them.
    fn through(&self) -> Position;
}

/// What changed in a volume since an op, being read out while its leader goes on writing.
pub trait Changes: Send {
    /// What it is of.
    fn header(&self) -> ChangesHeader;

    /// The next of the leader's own changes; empty when that was all.
    ///
    /// # Errors
    /// The index cannot be read.
    fn next_rows(&mut self) -> Result<Vec<Row>, SourceError>;

    /// Asks for rows that the follower changed in a history of its own.
    fn ask(&mut self, wants: Vec<Want>);

    /// The next of those; empty when that was all.
    ///
    /// # Errors
    /// The index cannot be read.
    fn next_answer(&mut self) -> Result<Vec<Row>, SourceError>;

    /// Those, since the last time, that there are no rows for.
    fn take_absent(&mut self) -> Vec<Want>;

    /// What of a chunk differs from the follower's. Bytes may be of any op up to the volume's
    /// head after the call.
    ///
    /// # Errors
    /// There is no such chunk, or the object cannot be read.
    fn differing(&mut self, ask: &Ask) -> Result<Vec<Differing>, SourceError>;

    /// After the last chunk: the last record that must be laid over them.
    fn through(&self) -> Position;
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

    /// From now on this volume takes part in `epoch`, which `leader` leads, and in none before it.
    /// Durable when it returns.
    ///
    /// # Errors
    /// That epoch is over here, or another's.
    fn accept_leader(&self, epoch: Epoch, leader: VolumeId) -> Result<(), SinkError>;

    /// From now on this volume takes nothing of `epoch` or an older one. Durable when it returns.
    ///
    /// # Errors
    /// What the disk said.
    fn decline(&self, epoch: Epoch) -> Result<(), SinkError>;

    /// Resolves when `bytes` more may come without letting the unapplied run away.
    fn ready(&self, bytes: u64) -> BoxFuture<'static, ()>;

    /// Takes the next record of a session of `epoch`; it is durable some time later. Waits for
    /// no disk.
    ///
    /// # Errors
    /// It was not taken.
    fn receive(&self, epoch: Epoch, record: &Record) -> Result<(), SinkError>;

    /// The leader of this session says that everything up to `seq` is committed.
    fn committed(&self, seq: Seq);

    /// Drops the records after `after`, none of which was applied; keeps what they held aside.
    ///
    /// # Errors
    /// The log is as it was.
    fn truncate_after(&self, after: Position) -> Result<(), SinkError>;

    /// Moves everything aside, as plain files; the volume is blank then and has another id.
    ///
    /// # Errors
    /// It may be half done, and goes on at the next try.
    fn set_aside(&self, why: &str) -> Result<(), SinkError>;

    /// Empties the volume, marks it as building, and takes a copy. It may have another id then.
    ///
    /// # Errors
    /// The volume may be empty and building; the next try begins again.
    fn build(&self, header: &SnapshotHeader) -> Result<Box<dyn Builder>, SinkError>;

    /// Whether a delta since `base` must bring all names and attributes. Applies what the log
    /// holds first.
    ///
    /// # Errors
    /// It cannot be told.
    fn needs_whole(&self, base: Position) -> Result<bool, SinkError> {
        let _ = base;
        Ok(true)
    }

    /// Begins to take a delta beside the volume; `shared` is the last op in common.
    ///
    /// # Errors
    /// The volume is as it was.
    fn catch_up(
        &self,
        header: &ChangesHeader,
        shared: Position,
    ) -> Result<Box<dyn Delta>, SinkError> {
        let _ = (header, shared);
        Err(SinkError { action: "begin a delta", why: "this volume takes none".to_owned() })
    }

    /// Throws away what is left of an earlier delta: it is not needed any more.
    ///
    /// # Errors
    /// What the disk said.
    fn forget_delta(&self) -> Result<(), SinkError> {
        Ok(())
    }

    /// The volume whose content can be compared, if it is a real one.
    fn to_verify(&self) -> Option<Volume> {
        None
    }
}

/// A delta while it arrives. Dropped before its [`Builder`] has finished, it leaves the volume as
/// it was, and the next one goes on from what is here of it.
pub trait Delta: Send {
    /// Takes rows: the leader's own changes, or answers.
    ///
    /// # Errors
    /// They are unsound, or the disk failed.
    fn take_rows(&mut self, rows: &[Row]) -> Result<(), SinkError>;

    /// All of the leader's own changes are here: finds out what else to ask for.
    ///
    /// # Errors
    /// The disk failed.
    fn find_wants(&mut self) -> Result<(), SinkError>;

    /// The next things to ask for after `last`.
    ///
    /// # Errors
    /// The disk failed.
    fn wants(&self, last: Option<&Want>, limit: usize) -> Result<Vec<Want>, SinkError>;

    /// The leader has no rows for these.
    ///
    /// # Errors
    /// The disk failed.
    fn take_absent(&mut self, wants: &[Want]) -> Result<(), SinkError>;

    /// All rows are here: finds out which chunks to ask for, and says how many.
    ///
    /// # Errors
    /// The disk failed.
    fn find_needs(&mut self) -> Result<u64, SinkError>;

    /// The next chunks to ask for after `last`, and the last of them.
    ///
    /// # Errors
    /// The disk failed.
    fn asks(&self, last: Option<Need>, limit: usize)
    -> Result<(Vec<Ask>, Option<Need>), SinkError>;

    /// Takes what differs in a chunk that was asked for.
    ///
    /// # Errors
    /// It was not asked for, or the disk failed.
    fn take_differing(&mut self, ask: &Ask, found: &Differing) -> Result<(), SinkError>;

    /// All rows and blocks are here; what is left are the records, from the leader of `by`.
    fn into_builder(self: Box<Self>, by: Epoch) -> Box<dyn Builder>;
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

    /// All is there, and the records up to `through`: waits until they are durable and applied,
    /// and makes the volume one like any other.
    ///
    /// # Errors
    /// The volume stays building.
    fn finish(self: Box<Self>, through: Position) -> Result<(), SinkError>;
}
