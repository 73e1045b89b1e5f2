//! From a seed to a plan: which faults, when, for how long. Pure, so that a seed is a plan for ever.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::Kind;

/// One fault to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it begins, since the plan's start.
    pub at: Duration,
    /// How long it lasts before it is undone.
    pub lasts: Duration,
    /// What it is.
    pub kind: Kind,
    /// Decides where the kind leaves a choice.
    pub choice: u64,
}

impl Planned {
    /// When it is undone.
    #[must_use]
    pub fn until(&self) -> Duration {
        self.at + self.lasts
    }
}

/// The first fault comes after so long.
const LEAD_IN: Duration = Duration::from_secs(3);

/// Plans faults of `kinds` until `duration`, with `calm` between one's end and the next one's
/// begin; one in three begins while another lasts instead, unless either is to be alone.
#[must_use]
pub fn plan(seed: u64, duration: Duration, kinds: &[Kind], calm: Duration) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut planned: Vec<Planned> = Vec::new();
    let mut bag = Vec::new();
    let mut at = LEAD_IN;
    while !kinds.is_empty() {
        // Each kind comes once before any comes again.
        if bag.is_empty() {
            bag = kinds.to_vec();
            bag.shuffle(&mut random);
        }
        let kind = bag.pop().expect("it was just filled");
        let (least, most) = kind.lasts();
        let lasts = random.random_range(least..=most);
        let choice = random.random();
        let busy = planned.iter().map(Planned::until).max().unwrap_or_default();
        let is_after_lone = planned.last().is_some_and(|last| last.kind.is_alone());
        if kind.is_alone() || is_after_lone {
            at = at.max(busy + calm);
        }
        if at + lasts > duration {
            return planned;
        }
        planned.push(Planned { at, lasts, kind, choice });
        at += if random.random_ratio(1, 3) && !kind.is_alone() {
            lasts.mul_f64(random.random_range(0.2..0.8))
        } else {
            lasts + calm.mul_f64(random.random_range(0.8..1.2))
        };
    }
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<Kind> {
        Kind::all().collect()
    }

    #[test]
    fn a_seed_is_a_plan() {
        let make = |seed| plan(seed, Duration::from_secs(600), &kinds(), Duration::from_secs(5));
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }

    #[test]
    fn faults_overlap_but_for_those_that_must_not() {
        let mut overlaps = 0;
        for seed in 0..50 {
            let planned = plan(seed, Duration::from_secs(600), &kinds(), Duration::from_secs(5));
            assert!(planned.iter().all(|fault| fault.until() <= Duration::from_secs(600)));
            for (index, fault) in planned.iter().enumerate() {
                for other in &planned[..index] {
                    let overlap = fault.at < other.until() && other.at < fault.until();
                    assert!(!overlap || !(fault.kind.is_alone() || other.kind.is_alone()));
                    overlaps += u32::from(overlap);
                }
            }
        }
        assert!(overlaps > 100, "{overlaps}");
    }
}
