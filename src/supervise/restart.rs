//! How often a service that ends is started again in place, before leadership is given up.

use std::collections::VecDeque;
use std::time::Duration;

/// What to do about a service that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Start it again, after this long.
    After(Duration),
    /// It ended too often: let another replica lead.
    GiveUp,
}

/// The bound: `max` restarts `within` a sliding window.
#[derive(Clone, Debug)]
pub struct Restarts {
    max: usize,
    within: Duration,
    ends: VecDeque<Duration>,
}

impl Restarts {
    /// No ends so far.
    #[must_use]
    pub fn new(max: usize, within: Duration) -> Restarts {
        Restarts { max, within, ends: VecDeque::new() }
    }

    /// The service ended `now` (on any clock that only goes forward).
    ///
    /// The first restart is immediate, since most ends are single ones; each further one within
    /// the window waits twice as long, from 100 ms.
    pub fn ended(&mut self, now: Duration) -> Restart {
        while self.ends.front().is_some_and(|end| now.saturating_sub(*end) > self.within) {
            self.ends.pop_front();
        }
        if self.ends.len() >= self.max {
            return Restart::GiveUp;
        }
        let wait = match u32::try_from(self.ends.len()).unwrap_or(u32::MAX) {
            0 => Duration::ZERO,
            earlier => Duration::from_millis(100) * 2_u32.saturating_pow(earlier.min(6) - 1),
        };
        self.ends.push_back(now);
        Restart::After(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides_and_waits_grow() {
        let at = Duration::from_secs;
        let mut restarts = Restarts::new(2, at(60));
        assert_eq!(restarts.ended(at(0)), Restart::After(Duration::ZERO));
        assert_eq!(restarts.ended(at(1)), Restart::After(Duration::from_millis(100)));
        assert_eq!(restarts.ended(at(2)), Restart::GiveUp);
        assert_eq!(restarts.ended(at(61)), Restart::After(Duration::from_millis(100)));
        assert_eq!(restarts.ended(at(500)), Restart::After(Duration::ZERO));
        assert_eq!(Restarts::new(0, at(60)).ended(at(0)), Restart::GiveUp);
    }
}
