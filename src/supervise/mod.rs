//! The service's processes: started, watched, stopped, and above all ended for certain.
//!
//! ```text
//! daemon ── fencer            kills the daemon, then the init, when a deadline passes
//!        └─ service's init    PID 1 of a PID namespace: when it ends, the kernel ends all of it
//!             └─ command ...
//! ```
//!
//! Process groups would not do: Postgres' backends leave theirs. A parent-death signal would not
//! do either: it is tied to the *thread* that forked, and cleared by a change of user. So the
//! service lives in a PID namespace whose init ends with the daemon (its standard input is a pipe
//! that only the daemon holds open) and is killed by the fencer besides.
//!
//! The hazard is a service that outlives its lease. A task that waits for the mount cannot die
//! before the mount's connection is aborted, so whoever kills aborts the mount before waiting.

pub mod account;
pub mod fencer;
mod init;
mod probe;
mod restart;
mod service;
mod spec;
pub mod watchdog;

pub use fencer::Fencer;
pub use init::{FENCER_COMMAND, INIT_COMMAND, as_first_process, run_fencer, run_init};
pub use probe::Probe;
pub use restart::{Restart, Restarts};
pub use service::{Exit, Service};
pub use spec::Spec;
pub use watchdog::Watchdog;

/// The signal of this name, with or without `SIG`.
#[must_use]
pub fn signal_named(name: &str) -> Option<rustix::process::Signal> {
    use rustix::process::Signal;
    Some(match name.strip_prefix("SIG").unwrap_or(name) {
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "HUP" => Signal::HUP,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "KILL" => Signal::KILL,
        _ => return None,
    })
}

/// Why the service's processes could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The command is not there.
    #[error("the program {program:?} was not found{at}")]
    NoProgram {
        /// As configured.
        program: String,
        /// Where it was looked for.
        at: String,
    },
    /// The user is not there.
    #[error("there is no user {0:?} on this machine")]
    NoUser(String),
    /// A namespace could not be made.
    #[error(
        "a PID namespace could not be made: {0}; run as root, or in a container with \
         --cap-add SYS_ADMIN"
    )]
    NoNamespace(std::io::Error),
    /// The fencer does not answer.
    #[error("the fencer process does not answer: {0}")]
    Fencer(std::io::Error),
    /// Another system call failed.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        error: std::io::Error,
    },
}

impl SuperviseError {
    fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> SuperviseError {
        move |error| SuperviseError::Io { what, error }
    }
}
