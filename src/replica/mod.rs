//! One replica, from its configuration to its end: the volume, the election, and the two roles.

pub mod convert;

mod bound;
mod clock;
mod eligible;
mod follow;
mod initialise;
mod lead;
mod node;
mod preflight;
mod publish;
mod quorum;
mod rules;
mod run;
mod service;
pub mod situation;
mod stop;
mod switchover;
mod verify;
mod vows;

pub use run::run;

use mainstay_election::coordinator::CoordinatorError;
use mainstay_sync::capture::MountError;
use mainstay_sync::journal::Refused;
use mainstay_sync::transport::{SecretError, TransportError};
use mainstay_sync::volume::VolumeError;

use crate::supervise::SuperviseError;

/// Why a replica cannot run, or cannot lead.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The machine or the configuration is not as it must be.
    #[error("{what}")]
    Preflight {
        /// What is wrong.
        what: String,
        /// What would be right.
        fix: String,
    },
    /// The cluster's secret is unusable.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The volume cannot be opened or led.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The peer port cannot be taken, or a certificate not be made.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The coordinator's address is unusable.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    /// The volume cannot be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The service's processes cannot be handled.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
    /// The log takes nothing any more.
    #[error("the log takes nothing: {0}")]
    Refused(#[from] Refused),
    /// The ambassador beside the replica cannot start.
    #[error(transparent)]
    Proxy(#[from] crate::proxy::ProxyError),
    /// `init` failed.
    #[error("the init command failed with {0}; see its output above")]
    Init(String),
    /// The leadership ended before this was done.
    #[error("the leadership ended meanwhile")]
    Demoted,
    /// Something of the operating system.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried, as a verb with its object.
        what: &'static str,
        /// What came of it.
        error: std::io::Error,
    },
}

impl ReplicaError {
    /// What would help, beyond what the message says.
    #[must_use]
    pub fn fix(&self) -> Option<&str> {
        match self {
            ReplicaError::Preflight { fix, .. } => Some(fix),
            _ => None,
        }
    }
}
