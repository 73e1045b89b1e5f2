//! The wall clock, which only people and lag reports read, and the boot clock.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::message::Stamp;
use crate::op::Time;

/// Now; before 1970 it is 1970.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos() }
}

/// Now, on the boot clock: it goes on while the machine sleeps, and nobody sets it.
pub(super) fn stamp() -> Stamp {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
    Stamp(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Milliseconds from `from` to `to`, negative if `to` is earlier.
pub(super) fn ms_between(from: Time, to: Time) -> i64 {
    let seconds = to.seconds.saturating_sub(from.seconds);
    let nanos = i64::from(to.nanos) - i64::from(from.nanos);
    seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_count_both_ways() {
        let (a, b) = (Time { seconds: 5, nanos: 900_000_000 }, Time { seconds: 7, nanos: 0 });
        assert_eq!((ms_between(a, b), ms_between(b, a)), (1100, -1100));
        assert!(ms_between(Time::default(), now()) > 0);
        let far = Time { seconds: i64::MIN, nanos: 0 };
        assert_eq!(ms_between(far, b), i64::MAX, "a hostile clock must not overflow");
    }
}
