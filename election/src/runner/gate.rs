//! May the leader's mount answer? One atomic deadline, read before every reply.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::machine::Moment;

/// Now, on the boot clock.
#[must_use]
pub fn boot_now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("the boot clock starts at zero");
    let nanos = u32::try_from(time.tv_nsec).expect("a timespec's nanoseconds are below 10^9");
    Moment::new(Duration::new(seconds, nanos))
}

/// Open until a deadline that the lease's acknowledgements push ahead.
///
/// Nobody has to run for it to shut: a process that was paused past the deadline finds it shut
/// when it reads the clock again. What no gate can do is to stop a reply between its check and
/// its delivery, hence the margin that the deadline leaves before the lease itself ends.
#[derive(Debug, Default)]
pub struct LeaseGate {
    deadline_ns: AtomicU64,
}

impl LeaseGate {
    /// Whether the leader may answer now.
    #[must_use]
    pub fn open(&self) -> bool {
        nanoseconds(boot_now()) < self.deadline_ns.load(Ordering::Acquire)
    }

    /// Until when it is open, if nothing more is heard; [`Moment::NEVER`] if it is shut for good.
    #[must_use]
    pub fn deadline(&self) -> Moment {
        Moment::new(Duration::from_nanos(self.deadline_ns.load(Ordering::Acquire)))
    }

    /// Sets the deadline, [`Moment::NEVER`] to shut it now.
    pub(crate) fn set(&self, deadline: Moment) {
        self.deadline_ns.store(nanoseconds(deadline), Ordering::Release);
    }
}

fn nanoseconds(moment: Moment) -> u64 {
    u64::try_from(moment.since_boot().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_shut_unless_its_deadline_is_ahead() {
        let gate = LeaseGate::default();
        assert!(!gate.open(), "before anything was heard");
        gate.set(boot_now() + Duration::from_secs(3600));
        assert!(gate.open());
        gate.set(boot_now());
        assert!(!gate.open(), "at the deadline it is past");
        gate.set(Moment::NEVER);
        assert!(!gate.open());
        assert_eq!(gate.deadline(), Moment::NEVER);
    }
}
