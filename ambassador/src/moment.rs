//! A moment on the clock that leases are counted on.
//!
//! Hazard: `std::time::Instant` stands still while a machine is suspended. A proxy that wakes up
//! would go on trusting a leader whose lease ran out in its sleep. `CLOCK_BOOTTIME` goes on.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// Time since boot, suspension included (`CLOCK_BOOTTIME`).
///
/// Comparable only with moments of the same machine and boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// Never trusted: every clock is past it.
    pub const BOOT: Moment = Moment(Duration::ZERO);

    /// Reads the clock.
    pub fn now() -> Moment {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Moment(Duration::new(
            u64::try_from(now.tv_sec).unwrap_or(0),
            u32::try_from(now.tv_nsec).unwrap_or(0),
        ))
    }

    /// The moment `since_boot` after boot, as another reader of `CLOCK_BOOTTIME` counted it.
    pub const fn from_boot(since_boot: Duration) -> Moment {
        Moment(since_boot)
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
