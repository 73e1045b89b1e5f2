//! The machine's watchdog, as the fencer's own fencer: if neither of them can kill the service in
//! time, the machine is reset.
//!
//! Linux' interface (`Documentation/watchdog/watchdog-api.rst`): to open the device arms it, any
//! write puts the reset off for its timeout, and a close after the letter `V` disarms it. It is
//! armed for as long as there is a deadline. It is put off until the lease is about to be given to
//! somebody else, not only until the deadline: the fencer gets the time between to end the service
//! without a reset.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::ioctl::{Updater, ioctl, opcode};

/// `WDIOC_SETTIMEOUT`, seconds.
const SET_TIMEOUT: rustix::ioctl::Opcode = opcode::read_write::<i32>(b'W', 6);

/// A shorter timeout would reset machines that are only busy.
pub const TIMEOUT_MIN: Duration = Duration::from_secs(2);

/// Which device, and how long after the deadline the lease lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// The device, `/dev/watchdog` as a rule.
    pub path: PathBuf,
    /// From a leader's deadline to the moment at which another may lead.
    pub margin: Duration,
}

impl Watchdog {
    /// The fencer's arguments for it.
    pub(super) fn arguments(&self) -> [String; 2] {
        [self.path.display().to_string(), self.margin.as_millis().to_string()]
    }

    /// From the fencer's arguments.
    pub(super) fn parse(path: Option<&str>, margin_ms: Option<&str>) -> Option<Watchdog> {
        let margin = Duration::from_millis(margin_ms?.parse().ok()?);
        Some(Watchdog { path: Path::new(path?).to_owned(), margin })
    }

    /// What the device counts in: whole seconds.
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.margin.as_secs()).max(TIMEOUT_MIN)
    }

    /// Until when the reset may be put off, with a deadline: after the last time it comes before
    /// the lease ends.
    pub(super) fn until(&self, deadline: Duration) -> Duration {
        (deadline + self.margin).saturating_sub(self.timeout())
    }

    pub(super) fn arm(&self) -> io::Result<Armed> {
        let device = File::options().write(true).open(&self.path)?;
        let mut seconds = i32::try_from(self.timeout().as_secs()).unwrap_or(i32::MAX);
        // SAFETY: the kernel reads and writes one `int`, which is what the opcode says.
        let set = unsafe { ioctl(&device, Updater::<SET_TIMEOUT, i32>::new(&mut seconds)) };
        match set {
            Ok(()) => {}
            // A driver with a timeout of its own.
            Err(Errno::NOTTY | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let mut armed = Armed(device);
        armed.put_off()?;
        Ok(armed)
    }
}

/// The armed device. Dropping it without [`Armed::disarm`] lets the machine be reset.
pub(super) struct Armed(File);

impl Armed {
    pub(super) fn put_off(&mut self) -> io::Result<()> {
        self.0.write_all(&[0])
    }

    pub(super) fn disarm(mut self) -> io::Result<()> {
        self.0.write_all(b"V")
    }
}
