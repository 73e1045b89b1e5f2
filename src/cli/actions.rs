//! What the command line asks the rest of the program to do.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::complaint::Complaint;
use crate::config::{AmbassadorConfig, RunConfig};
use crate::proxy::Reload;

/// The commands that need more than configuration and coordinator.
pub trait Actions {
    /// `run`: one replica, until it is told to end. `reload` reads the configuration again.
    ///
    /// # Errors
    /// It could not start, or had to end.
    fn run(&self, config: RunConfig, reload: Reload) -> Result<ExitCode, Complaint>;

    /// `ambassador`: the proxy alone, until it is told to end. With `take_over` it takes the place
    /// of the one that started it.
    ///
    /// # Errors
    /// It could not start, or had to end.
    fn ambassador(
        &self,
        config: AmbassadorConfig,
        reload: Reload,
        take_over: bool,
    ) -> Result<ExitCode, Complaint>;

    /// `secret new`: a new cluster secret, as text.
    ///
    /// # Errors
    /// There is no randomness to be had.
    fn new_secret(&self) -> Result<String, Complaint>;

    /// What is done to a replica's directory while no replica runs in it. Returns what to print.
    ///
    /// # Errors
    /// The directory is in use, or what was asked cannot be done.
    fn offline(&self, state_dir: &Path, task: Offline) -> Result<String, Complaint>;
}

/// What is done to a replica's directory while no replica runs in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offline {
    /// Take plain files in.
    Import {
        /// Where they are.
        from: PathBuf,
    },
    /// Write plain files out.
    Export {
        /// Where to; must be empty or missing.
        to: PathBuf,
    },
    /// Check it.
    Fsck {
        /// Mend what is safe to mend; else nothing is changed.
        repair: bool,
    },
    /// See to what lost.
    Quarantine(QuarantineTask),
}

/// What is done to what lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuarantineTask {
    /// Say what there is.
    List,
    /// Say more of one.
    Show {
        /// Its name.
        name: String,
    },
    /// Write one's files out.
    Export {
        /// Its name.
        name: String,
        /// Where to; must be empty or missing.
        to: PathBuf,
    },
    /// Remove one for good.
    Drop {
        /// Its name.
        name: String,
    },
}
