//! One run of a command in a PID namespace of its own.

use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio::sync::watch;

use super::init::INIT_COMMAND;
use super::{Fencer, Spec, SuperviseError};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(ExitStatus);

impl Exit {
    /// Whether it ended by itself, with 0.
    #[must_use]
    pub fn success(self) -> bool {
        self.0.success()
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.code(), self.0.signal()) {
            (Some(code @ 129..=192), _) => write!(f, "signal {}", code - 128),
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("an unknown status"),
        }
    }
}

/// A running command and everything that it ever starts. Dropping it kills all of that, without
/// waiting for the end.
#[derive(Debug)]
pub struct Service {
    init: OwnedFd,
    ended: watch::Receiver<Option<Exit>>,
    /// Open for as long as the service may run: its init ends with it.
    _life: ChildStdin,
}

impl Service {
    /// Starts the command and puts it under the fencer's eye.
    ///
    /// # Errors
    /// The program or its user is not there, a namespace cannot be made, or the fencer does not
    /// answer; nothing runs then.
    pub async fn start(spec: &Spec, fencer: &Fencer) -> Result<Service, SuperviseError> {
        spec.check()?;
        let text = serde_json::to_string(spec).expect("a list of strings has a JSON form");
        let program = fencer.program().to_owned();
        let mut child =
            tokio::task::spawn_blocking(move || spawn_apart(&program, &text))
                .await
                .map_err(|error| SuperviseError::io("start the service's init")(error.into()))??;
        let life = child.stdin.take().expect("standard input is a pipe");
        let pid = Pid::from_child(&child);
        // The child is not waited for yet, so its pid still means it.
        let init = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| SuperviseError::io("watch the service's init")(error.into()))?;
        let (sender, ended) = watch::channel(None);
        let guarded = fencer.guard(pid).await;
        std::thread::Builder::new()
            .name("service-wait".to_owned())
            .spawn(move || {
                // The wait for a namespace's init returns when nothing is left in it.
                let exit = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(1 << 8));
                sender.send_replace(Some(Exit(exit)));
            })
            .map_err(SuperviseError::io("start a thread"))?;
        let service = Service { init, ended, _life: life };
        guarded.map(|()| service)
    }

    /// Waits until nothing of it is left. Cancel-safe.
    pub async fn ended(&self) -> Exit {
        let mut ended = self.ended.clone();
        let found = ended.wait_for(Option::is_some).await.map(|exit| *exit);
        found.ok().flatten().unwrap_or(Exit(ExitStatus::from_raw(1 << 8)))
    }

    /// Sends a signal to the command (by way of its init).
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.init, signal);
    }

    /// Asks it to stop and, after `grace`, kills it; returns when nothing of it is left.
    pub async fn stop(&self, signal: Signal, grace: Duration) -> Exit {
        self.signal(signal);
        if let Ok(exit) = tokio::time::timeout(grace, self.ended()).await {
            return exit;
        }
        tracing::warn!(?grace, "the service did not stop in time and is killed");
        self.kill();
        self.ended().await
    }

    /// Kills all of it. Does not wait: a task of it that waits for the mount cannot end before
    /// the mount is aborted.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts this program as an init in a new PID namespace.
///
/// The namespace is that of the *next child of this thread*; the thread is one that does nothing
/// else afterwards, as no more threads can be started from it.
fn spawn_apart(program: &Path, spec: &str) -> Result<Child, SuperviseError> {
    let start = || {
        // SAFETY: NEWPID changes nothing that threads share.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }
            .map_err(|error| SuperviseError::NoNamespace(error.into()))?;
        Command::new(program)
            .args([INIT_COMMAND, spec])
            .stdin(Stdio::piped())
            // Signals for the daemon's group (Ctrl-C at a terminal) are the daemon's to handle.
            .process_group(0)
            .spawn()
            .map_err(SuperviseError::io("start the service's init"))
    };
    std::thread::scope(|scope| {
        scope.spawn(start).join().unwrap_or_else(|_| {
            let error = std::io::Error::other("the starting thread panicked");
            Err(SuperviseError::Io { what: "start the service's init", error })
        })
    })
}
