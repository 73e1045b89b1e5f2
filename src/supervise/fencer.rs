//! The fencer: a small process that ends the daemon and the service when the daemon does not say
//! in time that it still may lead.
//!
//! It holds no descriptor of `/dev/fuse` and touches no file, so nothing that hangs can hang it.
//! It kills the daemon *first*: that closes `/dev/fuse`, which frees service tasks that wait for
//! the mount and could not die otherwise. Its deadline is the lease's, on CLOCK_BOOTTIME, which
//! goes on while the machine sleeps. If it is configured, the machine's watchdog stands behind it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::SuperviseError;
use super::init::FENCER_COMMAND;
use super::watchdog::{Armed, Watchdog};

/// Now, on the clock of all deadlines.
#[must_use]
pub fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("the boot clock is not before the boot");
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// What is said to the fencer: a kind and a number, 16 bytes, little-endian. It answers each with
/// one byte.
const DEADLINE: u64 = 1;
const GUARD: u64 = 2;
const FOREVER: u64 = u64::MAX;

/// How long the daemon waits for the fencer's answer before it counts as hung.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The daemon's end.
#[derive(Debug)]
pub struct Fencer {
    program: PathBuf,
    watchdog: Option<Watchdog>,
    child: Child,
    stream: tokio::sync::Mutex<tokio::net::UnixStream>,
}

impl Fencer {
    /// Starts it, with no deadline. Call this before `/dev/fuse` is opened. `program` is this
    /// program (`/proc/self/exe` but for tests), whose hidden commands the fencer and every
    /// service's init are. With a `watchdog`, the machine is reset if the service cannot be killed.
    ///
    /// # Errors
    /// This program cannot be run again.
    pub fn start(program: &Path, watchdog: Option<Watchdog>) -> Result<Fencer, SuperviseError> {
        let (ours, theirs) = UnixStream::pair().map_err(SuperviseError::Fencer)?;
        ours.set_nonblocking(true).map_err(SuperviseError::Fencer)?;
        let child = Command::new(program)
            .args([FENCER_COMMAND, &std::process::id().to_string()])
            .args(watchdog.iter().flat_map(Watchdog::arguments))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .process_group(0)
            .spawn()
            .map_err(SuperviseError::Fencer)?;
        let stream = tokio::net::UnixStream::from_std(ours).map_err(SuperviseError::Fencer)?;
        let stream = tokio::sync::Mutex::new(stream);
        Ok(Fencer { program: program.to_owned(), watchdog, child, stream })
    }

    /// Another like it, in place of one that died.
    ///
    /// # Errors
    /// See [`Fencer::start`].
    pub fn again(&self) -> Result<Fencer, SuperviseError> {
        Fencer::start(&self.program, self.watchdog.clone())
    }

    /// From now on the daemon and the service are killed at `deadline` (on the boot clock) unless
    /// it is moved before; `None`: they may run for ever.
    ///
    /// # Errors
    /// It does not answer: it is dead or stopped, and nobody guards.
    pub async fn deadline(&self, deadline: Option<Duration>) -> Result<(), SuperviseError> {
        let nanos = |at: Duration| u64::try_from(at.as_nanos()).unwrap_or(FOREVER);
        self.tell(DEADLINE, deadline.map_or(FOREVER, nanos)).await
    }

    /// Puts the namespace of `init`, a child that was not waited for yet, under its eye in place
    /// of the one before.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn guard(&self, init: Pid) -> Result<(), SuperviseError> {
        self.tell(GUARD, u64::from(init.as_raw_nonzero().get().unsigned_abs())).await
    }

    /// This program, as [`Fencer::start`] was told.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    async fn tell(&self, kind: u64, value: u64) -> Result<(), SuperviseError> {
        let mut message = [0; 16];
        message[..8].copy_from_slice(&kind.to_le_bytes());
        message[8..].copy_from_slice(&value.to_le_bytes());
        let mut stream = self.stream.lock().await;
        let talk = async {
            stream.write_all(&message).await?;
            stream.read_u8().await
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, talk).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(SuperviseError::Fencer(error)),
            Err(_) => Err(SuperviseError::Fencer(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl Drop for Fencer {
    fn drop(&mut self) {
        // The end of the stream would make it kill what it guards and end; the daemon has done
        // the former by now, and is in no need of a zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The fencer's own process: `daemon` is the pid of the process that started it; then the watchdog,
/// if there is one.
#[must_use]
pub fn run_fencer(daemon: &str, watchdog: &[String]) -> ExitCode {
    // What ends the daemon's group (a terminal's Ctrl-C, a stopping shell) must not end the one
    // who sees to it that the service ends with it.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let parent = rustix::process::getppid();
    let daemon = daemon.parse().ok().and_then(Pid::from_raw);
    // Had the daemon died already, the pid might be a stranger's.
    let (Some(daemon), true) = (daemon, daemon == parent) else {
        return ExitCode::FAILURE;
    };
    let argument = |n: usize| watchdog.get(n).map(String::as_str);
    let watchdog = Watchdog::parse(argument(0), argument(1));
    let daemon = pidfd_open(daemon, PidfdFlags::empty()).map_err(io::Error::from);
    match daemon.and_then(|daemon| watch(&daemon, watchdog.as_ref())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Serves until the daemon is gone or has to be; the service is dead when this returns.
fn watch(daemon: &OwnedFd, watchdog: Option<&Watchdog>) -> io::Result<()> {
    let stream = io::stdin();
    let mut deadline = FOREVER;
    let mut init: Option<OwnedFd> = None;
    let mut armed: Option<Armed> = None;
    loop {
        let now = u64::try_from(boot_time().as_nanos()).unwrap_or(FOREVER);
        if now >= deadline {
            let _ = pidfd_send_signal(daemon, Signal::KILL);
            break;
        }
        if let (Some(watchdog), Some(armed)) = (watchdog, armed.as_mut())
            && Duration::from_nanos(now) < watchdog.until(Duration::from_nanos(deadline))
        {
            armed.put_off()?;
        }
        if !readable(&stream, deadline - now)? {
            continue;
        }
        let mut message = [0; 16];
        match read_whole(&stream, &mut message) {
            Ok(()) => {}
            Err(_) => break, // the daemon is gone
        }
        let [kind, value] = [&message[..8], &message[8..]]
            .map(|half| u64::from_le_bytes(half.try_into().expect("half of 16 bytes is 8")));
        match kind {
            DEADLINE => {
                deadline = value;
                match (watchdog, armed.take()) {
                    // Whoever cannot arm it does not answer, and then nobody leads here.
                    (Some(watchdog), None) if value != FOREVER => armed = Some(watchdog.arm()?),
                    (_, Some(was)) if value == FOREVER => was.disarm()?,
                    (_, was) => armed = was,
                }
            }
            GUARD => {
                let pid = i32::try_from(value).ok().and_then(Pid::from_raw);
                init = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            }
            _ => {}
        }
        rustix::io::write(&stream, &[1])?;
    }
    if let Some(init) = init {
        let _ = pidfd_send_signal(&init, Signal::KILL);
        if armed.is_some() {
            // What does not die is what the watchdog is for: it is not disarmed before.
            await_end(&init)?;
        }
    }
    armed.map_or(Ok(()), Armed::disarm)
}

/// Waits until a process has ended, however long that takes.
fn await_end(process: &OwnedFd) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn readable(stream: &io::Stdin, nanos: u64) -> io::Result<bool> {
    // In steps, since poll's own clock stands still while the machine sleeps.
    let step = Duration::from_nanos(nanos).min(Duration::from_millis(250));
    let step =
        Timespec { tv_sec: step.as_secs().cast_signed(), tv_nsec: step.subsec_nanos().into() };
    let mut fds = [PollFd::new(stream, PollFlags::IN)];
    match poll(&mut fds, Some(&step)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Unbuffered, so that poll sees what was not read.
fn read_whole(stream: &io::Stdin, into: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        match rustix::io::read(stream, &mut into[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
