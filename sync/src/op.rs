//! What the log says: absolute outcomes of one filesystem operation.
//!
//! A [`Record`] is one op: a list of [`Change`]s and the bytes that they wrote. Each change says
//! what *is* afterwards and never what was done (an entry names this file, a file has this size),
//! so applying a record twice, or over a state that already holds later ones, and then applying
//! those again, ends in the same tree. Replay after a kill and catch-up under writes rest on that.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::position::{Epoch, FileId, Position, Seq};

/// Seconds and nanoseconds since 1970, as `stat(2)` has them: `nanos` counts forward, also
/// before 1970.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time {
    /// Whole seconds, may be negative.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// What a file is. The numbers are those of `mknod(2)`'s device argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file; its bytes are in an object of its own.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and where it points.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
}

/// Everything `stat(2)` and `readlink(2)` tell of a file but its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// What it is, for as long as it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky (`07777`).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that point here; for a directory 2 plus its subdirectories. 0: unlinked, still open.
    pub nlink: u32,
    /// Bytes; for a symlink its target's length; 0 for the others.
    pub size: u64,
    /// Last access (set by utimens and creation; reads do not move it: volumes are `noatime`).
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of content or attributes.
    pub ctime: Time,
}

/// One absolute outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The file `id` exists with these attributes. Where `size` is below what was stored, the
    /// bytes past it are gone: growing again later reads zeros there.
    Node {
        /// Whose.
        id: FileId,
        /// All of them.
        attributes: Attributes,
    },
    /// The file `id` is gone for good: no name and no open handle is left.
    Gone {
        /// Whose.
        id: FileId,
    },
    /// In directory `parent`, `name` names `child`, or nothing.
    Entry {
        /// The directory.
        parent: FileId,
        /// One path component, 1 to 255 bytes, without `/`.
        name: Vec<u8>,
        /// What it names now.
        child: Option<FileId>,
    },
    /// `length` bytes, next in the record's payload, are at `offset`. The size is said by a
    /// [`Change::Node`] of the same record, always present beside this.
    Write {
        /// Where.
        id: FileId,
        /// First byte.
        offset: u64,
        /// How many of the payload's bytes.
        length: u32,
    },
    /// `length` bytes from `offset` read as zeros and their space is given back (punch-hole).
    /// Does not change the size. `length` may reach past the end.
    Zero {
        /// Where.
        id: FileId,
        /// First byte.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// Space for `length` bytes from `offset` is reserved, content and size unchanged
    /// (fallocate). A hint: a replica that cannot reserve goes on.
    Reserve {
        /// Where.
        id: FileId,
        /// First byte.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// The extended attribute `name` of `id` has this value, or is gone.
    Xattr {
        /// Whose.
        id: FileId,
        /// Full name, with its namespace (`user.x`).
        name: Vec<u8>,
        /// Its value.
        value: Option<Vec<u8>>,
    },
    /// A leader's first record: nothing of an older epoch comes after it.
    EpochStart {
        /// The leader's node name, for people.
        node: String,
    },
}

/// A record without its payload's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The leadership that wrote it.
    pub epoch: Epoch,
    /// Its place.
    pub seq: Seq,
    /// The leader's clock when it was made, for lag and for people; nothing is ordered by it.
    pub at: Time,
    /// Outcomes, in order.
    pub changes: Vec<Change>,
}

impl Head {
    /// Where the log stands once it holds this record.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq }
    }

    /// How many payload bytes the changes call for.
    #[must_use]
    pub fn payload_length(&self) -> u64 {
        let written = |change: &Change| match change {
            Change::Write { length, .. } => u64::from(*length),
            _ => 0,
        };
        self.changes.iter().map(written).sum()
    }
}

/// One op: its outcomes and, end to end, the bytes of its [`Change::Write`]s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What and where.
    pub head: Head,
    /// The written bytes, `head.payload_length()` of them.
    pub payload: Bytes,
}
