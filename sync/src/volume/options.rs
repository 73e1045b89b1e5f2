//! What a volume may be told.

use std::time::Duration;

use crate::log::LogOptions;

/// Bounds and intervals of one volume. The default is for a service on a small server.
#[derive(Clone, Debug)]
pub struct VolumeOptions {
    /// The log's.
    pub log: LogOptions,
    /// Objects kept open at most.
    pub descriptors_max: usize,
    /// Bytes in the log that are not in the objects yet, at most; past it writers wait.
    pub unapplied_bytes_max: u64,
    /// Bytes of log that no checkpoint covers, at most; past it writers wait for one.
    pub log_bytes_max: u64,
    /// A checkpoint is due when this many bytes of log wait for it,
    pub checkpoint_bytes: u64,
    /// or this many changes,
    pub checkpoint_changes: usize,
    /// or after this long if anything changed.
    pub checkpoint_interval: Duration,
    /// Bytes kept in `quarantine/` at most; the oldest goes first.
    pub quarantine_bytes_max: u64,
    /// Whose the root directory of a new volume is.
    pub root: RootOwner,
    /// As [`Volume::apply_committed_only`](super::Volume::apply_committed_only), from the start.
    pub committed_only: bool,
}

/// Owner and mode of a new volume's root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootOwner {
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Default for VolumeOptions {
    fn default() -> Self {
        VolumeOptions {
            log: LogOptions::default(),
            descriptors_max: 512,
            unapplied_bytes_max: 64 << 20,
            log_bytes_max: 1 << 30,
            checkpoint_bytes: 256 << 20,
            checkpoint_changes: 100_000,
            checkpoint_interval: Duration::from_secs(30),
            quarantine_bytes_max: 64 << 30,
            root: RootOwner {
                mode: 0o700,
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
            },
            committed_only: false,
        }
    }
}
