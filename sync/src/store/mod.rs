//! What a replica keeps besides its log: the objects and the index of them.
//!
//! `objects/` holds the bytes of regular files, one plain file each; `meta.db` holds everything
//! else (names, attributes, births, and up to which op all of it is so). Called by the volume's
//! applier and checkpointer, and offline by export, import and fsck.
//!
//! The hazard is that the two are not written together: objects run ahead of the index, which
//! moves only at a checkpoint. Records between the two are applied again after a kill; they are
//! absolute outcomes, so applying them again, in order, ends in the same state.

pub mod born;
pub mod delta;
pub mod descriptors;
pub mod image;
pub mod index;
pub mod live;
pub mod objects;
pub mod rows;
pub mod sound;
pub mod stage;
mod stage_put;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

/// Bytes of a file that have one birth.
pub const CHUNK_BYTES: u64 = 64 * 1024;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of ours could not be read or written.
    #[error("{action} {}: {cause}", path.display())]
    File {
        /// What was tried, as a verb (`write`).
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// `meta.db` did not do what it should.
    #[error("meta.db: {0}; run `mainstay fsck` if it does not go away")]
    Index(#[from] rusqlite::Error),
    /// What is stored contradicts itself.
    #[error("the stored volume is damaged: {0}; run `mainstay fsck`")]
    Damaged(String),
    /// An object that may not hold what was written to it.
    #[error("{0}; what was applied may be lost here, and a restart applies it again from the log")]
    Unsynced(String),
    /// A record or a row that no leader of ours writes.
    #[error("refused to store it: {0}")]
    Unsound(String),
}

impl StoreError {
    /// Whether the disk (or a quota on it) is full, which space given back cures.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            StoreError::File { cause, .. } => is_full(cause),
            StoreError::Index(rusqlite::Error::SqliteFailure(failure, _)) => {
                failure.code == rusqlite::ErrorCode::DiskFull
                    || failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
            }
            _ => false,
        }
    }

    /// For `map_err`: what was being done to which path.
    pub(crate) fn on(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |cause| StoreError::File { action, path, cause }
    }
}

/// Whether an error says that there is no room.
pub(crate) fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
