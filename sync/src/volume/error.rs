//! Why a volume did not do what it was asked.

use std::io;
use std::path::PathBuf;

use crate::journal::Refused;
use crate::log::LogError;
use crate::position::{ClusterId, Epoch, Position, Seq};
use crate::quarantine::QuarantineError;
use crate::store::StoreError;
use crate::vow::VowError;

/// Why a volume did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Another process has the state directory open.
    #[error("{} is in use by process {pid}; stop it, or choose another state directory", path.display())]
    InUse {
        /// The state directory.
        path: PathBuf,
        /// As that process wrote it; `unknown` if it did not get that far.
        pid: String,
    },
    /// The directory holds something that is not a volume.
    #[error("{} holds {found:?}, which is not part of a volume; choose an empty directory", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// A file of the state directory could not be read or written.
    #[error("{action} {}: {cause}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The log said no.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vow said no.
    #[error(transparent)]
    Vow(#[from] VowError),
    /// The quarantine said no.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// SQLite said no.
    #[error("meta.db: {0}")]
    Index(#[from] rusqlite::Error),
    /// There is nothing in it yet.
    #[error("the volume is blank: it belongs to no cluster yet")]
    Blank,
    /// It is on its way from one position to another.
    #[error("the volume is being moved to the end of a delta; ask again when it is there")]
    Switching,
    /// Its content is an incomplete copy.
    #[error("the volume is an incomplete copy; copy it again from the leader")]
    Building,
    /// It belongs to another cluster.
    #[error(
        "the volume belongs to cluster {ours}, not {theirs}; give this one an empty state directory"
    )]
    OtherCluster {
        /// What the vow says.
        ours: ClusterId,
        /// What was asked for.
        theirs: ClusterId,
    },
    /// The content would be lost and is not known to be elsewhere.
    #[error("the volume at {ours} holds what the copy at {theirs} does not; set it aside first")]
    HasContent {
        /// Our head.
        ours: Position,
        /// Where the copy begins.
        theirs: Position,
    },
    /// Records to be thrown away were applied.
    #[error("op {applied} is applied already, past {ancestor}; set the content aside instead")]
    Applied {
        /// The last applied op.
        applied: Seq,
        /// The last one to be kept.
        ancestor: Position,
    },
    /// An epoch that may not be led or followed any more.
    #[error("epoch {epoch} is over here: {over} was promised or seen")]
    Over {
        /// What was asked for.
        epoch: Epoch,
        /// What is newer.
        over: Epoch,
    },
    /// A leader takes no records from others.
    #[error("this replica leads and takes no records")]
    Leads,
    /// A record or row that no leader writes.
    #[error("refused what no leader writes: {0}")]
    Unsound(String),
    /// The volume was closed before the objects held what its log does. Nothing is lost: the
    /// next open applies the rest.
    #[error("closed at op {applied} of {seq}{}; the next start applies the rest",
        waiting.as_ref().map(|what| format!(" ({what})")).unwrap_or_default())]
    Behind {
        /// The last applied op.
        applied: Seq,
        /// The last one in the log.
        seq: Seq,
        /// What the applier waited for.
        waiting: Option<String>,
    },
    /// It failed before.
    #[error("the volume failed earlier: {0}")]
    Failed(String),
    /// It was closed, or its content was replaced.
    #[error("the volume is closed, or its content was replaced meanwhile")]
    Closed,
    /// A leadership ended before it began.
    #[error("leading ended before it began: {0}")]
    Refused(#[from] Refused),
}

impl VolumeError {
    /// Whether the disk is full, which space given back cures.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            VolumeError::File { cause, .. } => crate::store::is_full(cause),
            VolumeError::Store(error) => error.is_full(),
            _ => false,
        }
    }

    /// For `map_err`: what was being done to which path.
    pub(crate) fn on(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> VolumeError {
        let path = path.into();
        move |cause| VolumeError::File { action, path, cause }
    }
}
