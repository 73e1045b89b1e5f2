//! How long nobody's writes came through, fault by fault, and whether that is too long.

use std::time::Duration;

use super::Finding;

/// How long writes stood still by one fault that no other was near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The fault, for people.
    pub fault: String,
    /// When it began.
    pub at: Duration,
    /// The longest time without an acknowledged write.
    pub pause: Duration,
    /// How long that may be.
    pub bound: Duration,
}

/// Judges each pause against its bound.
#[must_use]
pub fn check(pauses: &[Pause]) -> Finding {
    let long = pauses.iter().filter(|one| one.pause > one.bound).map(|one| {
        let seconds = |time: Duration| time.as_secs_f64();
        format!(
            "{} at {:.1} s: no write was acknowledged for {:.2} s, more than {:.2} s",
            one.fault,
            seconds(one.at),
            seconds(one.pause),
            seconds(one.bound)
        )
    });
    Finding {
        check: "writes stand still no longer than each fault may make them".to_owned(),
        looked_at: format!("{} faults that no other was near", pauses.len()),
        violations: long.collect(),
    }
}

/// The longest time without an acknowledgement in a window; `acknowledged` are the times of
/// acknowledgements, rising. A gap is counted from the window's start, and to its end beyond it.
#[must_use]
pub fn longest_gap(acknowledged: &[Duration], from: Duration, to: Duration) -> Duration {
    let first = acknowledged.partition_point(|at| *at < from);
    let mut longest = Duration::ZERO;
    let mut last = from;
    for at in &acknowledged[first..] {
        longest = longest.max(*at - last);
        last = *at;
        if *at > to {
            return longest;
        }
    }
    longest.max(to.saturating_sub(last))
}

/// From `over` to the next acknowledgement.
#[must_use]
pub fn next_after(acknowledged: &[Duration], over: Duration) -> Option<Duration> {
    let next = acknowledged.partition_point(|at| *at <= over);
    acknowledged.get(next).map(|at| *at - over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_beyond_its_bound_is_found() {
        let pause = |pause| Pause {
            fault: "a".to_owned(),
            at: Duration::ZERO,
            pause: Duration::from_secs(pause),
            bound: Duration::from_secs(5),
        };
        assert!(check(&[pause(1), pause(5)]).is_clean());
        assert_eq!(check(&[pause(1), pause(6)]).violations.len(), 1);
    }

    #[test]
    fn the_gap_that_a_fault_tears_is_measured_to_its_end() {
        let seconds = |all: &[u64]| all.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
        let acknowledged = seconds(&[1, 2, 3, 9, 10, 30]);
        let gap = |from, to| {
            longest_gap(&acknowledged, Duration::from_secs(from), Duration::from_secs(to)).as_secs()
        };
        assert_eq!(gap(3, 4), 6);
        assert_eq!(gap(1, 2), 1);
        assert_eq!(gap(9, 10), 20, "what begins in the window counts");
        assert_eq!(gap(31, 35), 4, "nothing came after");
        assert_eq!(next_after(&acknowledged, Duration::from_secs(3)), Some(Duration::from_secs(6)));
        assert_eq!(next_after(&acknowledged, Duration::from_secs(30)), None);
    }
}
