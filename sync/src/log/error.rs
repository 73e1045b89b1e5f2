//! What the log answers when it cannot do what was asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::position::{Epoch, Position, Seq};
use crate::wire::WireError;

/// Why the log did not do it. Cheap to clone: a failed log tells every waiter the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The log is not what it was when it was durable. This replica gives no ballot and no
    /// acknowledgement until it was repaired from another one.
    #[error(
        "{} is damaged at byte {offset}: {what} (record {seq} is lost, yet everything up to \
         {durable} was durable); let this replica be rebuilt from the leader",
        file.display()
    )]
    Damaged {
        /// Which segment, or the log's directory.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// The first record that cannot be read.
        seq: Seq,
        /// The last record known to have been durable.
        durable: Seq,
        /// What is wrong there.
        what: &'static str,
    },
    /// A segment was written by another version.
    #[error("{} has log format {found}, this version reads {known}: run the version that wrote it",
        file.display())]
    Format {
        /// Which segment.
        file: PathBuf,
        /// What it says.
        found: u32,
        /// What this version knows.
        known: u32,
    },
    /// Reading, opening or renaming failed. After a failed *write* or *sync* see
    /// [`LogError::Failed`].
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: Arc<io::Error>,
    },
    /// A write or a sync failed: what is on disk is unknown, so nothing is acknowledged again
    /// until the process has ended and the log was recovered.
    #[error("the log failed and stays failed until a restart: {action} {}: {source}",
        path.display())]
    Failed {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which segment.
        path: PathBuf,
        /// What the system answered.
        source: Arc<io::Error>,
    },
    /// The disk has no room for a further segment. The record was not taken; the log goes on when
    /// there is room again.
    #[error("no space is left for a further log segment: free some on the state's file system")]
    NoSpace,
    /// A record does not follow the last one.
    #[error("record {offered} does not follow {head}")]
    OutOfOrder {
        /// The record offered.
        offered: Position,
        /// The log's last one.
        head: Position,
    },
    /// A record from the leader of an epoch that this replica has promised away.
    #[error("epoch {offered} is over: nothing up to epoch {sealed} is taken any more")]
    Sealed {
        /// The epoch of who handed it over.
        offered: Epoch,
        /// The newest epoch that is over.
        sealed: Epoch,
    },
    /// The record is above a limit of the wire or larger than a segment.
    #[error("a record of {bytes} bytes is too large: the limit is {limit}")]
    TooLarge {
        /// Encoded bytes.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Bytes offered as a record are none.
    #[error("these bytes are no record: {0}")]
    Wire(#[from] WireError),
    /// What was asked for has been released, and its space used again.
    #[error("the log begins at record {oldest}: copy the volume instead")]
    Released {
        /// The oldest record still held.
        oldest: Seq,
    },
    /// A seq past the last record was named.
    #[error("record {seq} is past the log's last one, {head}")]
    Beyond {
        /// What was named.
        seq: Seq,
        /// The log's last one.
        head: Seq,
    },
    /// A reader or pin stands past the record to truncate after.
    #[error("a reader has read up to {read}: end it before truncating after {after}")]
    InUse {
        /// How far it has read.
        read: Seq,
        /// Where to truncate.
        after: Seq,
    },
    /// The log was closed.
    #[error("the log was closed")]
    Closed,
}

impl LogError {
    pub(super) fn io(action: &'static str, path: PathBuf, source: io::Error) -> LogError {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return LogError::NoSpace;
        }
        LogError::Io { action, path, source: Arc::new(source) }
    }
}
