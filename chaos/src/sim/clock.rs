//! A node's boot clock: it starts anywhere, gains or loses, and stops with a frozen machine.

use std::time::Duration;

/// How a node counts the world's time.
#[derive(Clone, Debug)]
pub struct Clock {
    since: Duration,
    shown: Duration,
    gain_ppm: i64,
}

impl Clock {
    /// Shows `shown` at the world's beginning and gains so much in a million.
    #[must_use]
    pub fn new(shown: Duration, gain_ppm: i64) -> Clock {
        Clock { since: Duration::ZERO, shown, gain_ppm }
    }

    /// What it shows at `now`.
    #[must_use]
    pub fn show(&self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.since);
        self.shown + scaled(passed, 1_000_000 + self.gain_ppm, 1_000_000)
    }

    /// When it will show `shown`; now, if it does already.
    #[must_use]
    pub fn when(&self, shown: Duration, now: Duration) -> Duration {
        let missing = shown.saturating_sub(self.show(now));
        // A microsecond more, so that rounding never wakes anybody just before the time.
        let wait = scaled(missing, 1_000_000, 1_000_000 + self.gain_ppm);
        let from = self.since.max(now);
        if missing.is_zero() { now } else { from + wait + Duration::from_micros(1) }
    }

    /// It stands still from `now` until `until`.
    pub fn stop(&mut self, now: Duration, until: Duration) {
        self.shown = self.show(now);
        self.since = until;
    }

    /// It goes again, if it stood still.
    pub fn go(&mut self, now: Duration) {
        self.since = self.since.min(now);
    }
}

fn scaled(time: Duration, by: i64, of: i64) -> Duration {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let (by, of) = (u128::from(by.unsigned_abs()), u128::from(of.unsigned_abs()));
    Duration::from_nanos(u64::try_from(u128::from(nanos) * by / of).unwrap_or(u64::MAX))
}
