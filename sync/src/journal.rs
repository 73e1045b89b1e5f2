//! What a mount needs from the volume beneath it.
//!
//! The capture knows the requests of a kernel and nothing of disks and peers; the volume knows
//! logs and objects and nothing of FUSE. These traits are all that lies between.

use std::io;

use crate::op::{Change, Time};
use crate::position::{FileId, Seq};
use bytes::Bytes;

/// Why an op was not taken. The mount turns each into what the service may see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The log's disk is full: `ENOSPC`.
    #[error("no space is left for the log")]
    NoSpace,
    /// The log failed for good: `EIO` until the process ends.
    #[error("the log failed earlier: {0}")]
    Failed(String),
    /// This leadership is over: nothing may be answered any more.
    #[error("this replica no longer leads")]
    Deposed,
}

/// Called once, when what was waited for is so, or can never be.
pub type Waiter = Box<dyn FnOnce(Result<(), Refused>) + Send>;

/// Takes ops in order, and says when they are safe.
pub trait Journal: Send + Sync {
    /// Takes the next op: gives it the next seq, queues it for the log, the followers and the
    /// objects, and returns at once.
    ///
    /// The caller holds the lock under which it planned `changes`, so that the order of seqs is
    /// the order of plans. Never blocks on a disk or a peer; see [`Journal::ready`] for that.
    ///
    /// # Errors
    /// Nothing was taken.
    fn append(&self, at: Time, changes: Vec<Change>, payload: Bytes) -> Result<Seq, Refused>;

    /// Whether `bytes` more may be taken now without letting the unapplied run away.
    ///
    /// `Some(waiter)` gives the waiter back: go on at once. `None`: it was kept and is called
    /// when there is room. Call it holding no lock.
    fn ready(&self, bytes: u64, waiter: Waiter) -> Option<Waiter>;

    /// Calls `waiter` once everything up to `seq` is committed (perhaps before this returns).
    fn when_committed(&self, seq: Seq, waiter: Waiter);

    /// The last op whose outcome the objects hold.
    fn applied(&self) -> Seq;

    /// Has `told` called, from the applier, after each step of [`Journal::applied`].
    fn on_applied(&self, told: Box<dyn Fn(Seq) + Send + Sync>);
}

/// The objects, as far as the applier has brought them.
pub trait Objects: Send + Sync {
    /// Reads from `id`'s object into `into` and returns how many bytes there were; fewer than
    /// asked means that the object ends there (the rest reads as zeros up to the file's size).
    /// A file whose object does not exist yet has no bytes.
    ///
    /// # Errors
    /// What the disk said.
    fn read_at(&self, id: FileId, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// `SEEK_DATA` and `SEEK_HOLE` of the object, as `lseek(2)`; `None`: nothing past `offset`.
    ///
    /// # Errors
    /// What the disk said.
    fn seek(&self, id: FileId, offset: u64, data: bool) -> io::Result<Option<u64>>;

    /// Bytes that the object takes on disk.
    ///
    /// # Errors
    /// What the disk said.
    fn allocated(&self, id: FileId) -> io::Result<u64>;

    /// Blocks of the file system beneath: `(block size, total, free, available)`.
    ///
    /// # Errors
    /// What the disk said.
    fn space(&self) -> io::Result<(u64, u64, u64, u64)>;
}
