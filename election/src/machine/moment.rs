//! Time as the machine sees it: handed in with every event, never read.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A point on this machine's boot clock (`CLOCK_BOOTTIME`): it goes on while the machine is
/// suspended, as a lease does, and nobody can set it. Two machines' moments never compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// Before everything; a gate with this deadline is shut.
    pub const NEVER: Moment = Moment(Duration::ZERO);

    /// `since_boot` after the machine booted.
    #[must_use]
    pub fn new(since_boot: Duration) -> Moment {
        Moment(since_boot)
    }

    /// How long after the boot this is.
    #[must_use]
    pub fn since_boot(self) -> Duration {
        self.0
    }

    /// How much later this is than `earlier`; zero if it is not later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, after: Duration) -> Moment {
        Moment(self.0.saturating_add(after))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
