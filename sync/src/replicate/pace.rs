//! Holds bulk back to a rate, so that the live log's records find the link free.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How much may go at once after a pause.
const BURST: Duration = Duration::from_millis(250);

/// One rate for all copies of a leader.
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    /// When all that was taken so far would have gone at the rate.
    even: Mutex<Instant>,
}

impl Pace {
    pub fn new(bytes_per_second: Option<u64>) -> Pace {
        Pace { bytes_per_second, even: Mutex::new(Instant::now()) }
    }

    /// Resolves when `bytes` may go.
    pub async fn take(&self, bytes: u64) {
        if let Some(at) = self.bytes_per_second.map(|rate| self.due(bytes, rate, Instant::now())) {
            tokio::time::sleep_until(at).await;
        }
    }

    fn due(&self, bytes: u64, rate: u64, now: Instant) -> Instant {
        let mut even = self.even.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let due = (*even).max(earliest);
        *even = due + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_a_burst_and_after_a_pause() {
        let now = Instant::now() + Duration::from_secs(10);
        let pace = Pace { bytes_per_second: Some(1000), even: Mutex::new(now) };
        let waits: Vec<_> = (0..4).map(|_| pace.due(500, 1000, now) - now).collect();
        let ms: Vec<_> = waits.iter().map(Duration::as_millis).collect();
        assert_eq!(ms, [0, 500, 1000, 1500], "half a second each, for everybody together");
        let later = now + Duration::from_secs(60);
        assert!(pace.due(500, 1000, later) <= later, "a pause is not held against it");
        assert_eq!(pace.due(500, 1000, later), later + Duration::from_millis(250));
    }
}
