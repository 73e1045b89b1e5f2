//! Throughput and latency, second by second.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::judge::routes::Answer;
use crate::workload::Outcome;

/// One second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Which, from the start.
    pub second: u64,
    /// Writes and transactions acknowledged in it.
    pub acknowledged: u64,
    /// Those that were refused.
    pub failed: u64,
    /// Those of unknown outcome.
    pub unknown: u64,
    /// The middle latency of what was acknowledged, in milliseconds.
    pub median_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

impl Point {
    /// Counts answers by the second of their end.
    #[must_use]
    pub fn of(answers: &[Answer]) -> Vec<Point> {
        let last = answers.iter().map(|answer| answer.ended.as_secs()).max().unwrap_or(0);
        let mut by_second: BTreeMap<u64, (Point, Vec<Duration>)> = BTreeMap::new();
        for second in 0..=last {
            by_second.insert(second, (Point { second, ..Point::default() }, Vec::new()));
        }
        for answer in answers {
            let (point, times) = by_second.entry(answer.ended.as_secs()).or_default();
            match answer.outcome {
                Outcome::Acknowledged => {
                    point.acknowledged += 1;
                    times.push(answer.ended - answer.invoked);
                }
                Outcome::Failed => point.failed += 1,
                Outcome::Unknown => point.unknown += 1,
            }
        }
        let points = by_second.into_values().map(|(mut point, mut times)| {
            times.sort();
            let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
            point.median_ms = ms(times.get(times.len() / 2));
            point.max_ms = ms(times.last());
            point
        });
        points.collect()
    }
}
