//! Many faults of a kind as one row: how often, and how long writes stood still.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Report;
use crate::measure::median_and_max;
use crate::nemesis::Kind;

/// All faults of one kind that no other was near.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByKind {
    /// The kind.
    pub kind: Kind,
    /// How many were made in all.
    pub made: usize,
    /// Of each that was alone: the longest time without an acknowledged write.
    pub pauses: Vec<Duration>,
    /// How many of all were followed by a new epoch.
    pub failovers: usize,
}

impl ByKind {
    /// Middle and largest pause.
    #[must_use]
    pub fn median_and_max(&self) -> Option<(Duration, Duration)> {
        median_and_max(&self.pauses)
    }
}

/// One row for each kind, over one run or many.
#[must_use]
pub fn by_kind<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Vec<ByKind> {
    let mut rows: BTreeMap<Kind, ByKind> = BTreeMap::new();
    let row = |kind| ByKind { kind, made: 0, pauses: Vec::new(), failovers: 0 };
    for report in reports {
        for fault in &report.faults {
            if fault.skipped.is_some() {
                continue;
            }
            let row = rows.entry(fault.kind).or_insert_with(|| row(fault.kind));
            row.made += 1;
            if fault.alone {
                row.pauses.extend(fault.pause);
            }
        }
        for failover in &report.failovers {
            rows.entry(failover.kind).or_insert_with(|| row(failover.kind)).failovers += 1;
        }
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.iter_mut().for_each(|row| row.pauses.sort());
    rows
}
