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
    /// Of each that no other fault was near: the longest time without an acknowledged write.
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

/// Whether how long writes stood still at a fault is its own doing, and all of it.
fn is_measured(report: &Report, index: usize) -> bool {
    let fault = &report.faults[index];
    // Writes that have not come through since an earlier fault stand still for that one.
    let found_a_stand = report.faults[..index].iter().any(|earlier| {
        let next = earlier.next.map(|next| earlier.done + next);
        earlier.skipped.is_none() && next.is_none_or(|next| next > fault.at)
    });
    // Clients are given time to leave first; if another fault came before the epoch did, that was not
    // seen.
    let next = report.faults.get(index + 1).map_or(Duration::MAX, |next| next.at);
    let mut epochs = report.reigns.iter().map(|reign| reign.began);
    let was_carried_out = epochs.any(|began| began >= fault.at && began < next);
    let is_whole = fault.kind != Kind::Switchover || was_carried_out;
    !fault.overlaps && !found_a_stand && is_whole
}

/// One row for each kind, over one run or many.
#[must_use]
pub fn by_kind<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Vec<ByKind> {
    let mut rows: BTreeMap<Kind, ByKind> = BTreeMap::new();
    let row = |kind| ByKind { kind, made: 0, pauses: Vec::new(), failovers: 0 };
    for report in reports {
        for (index, fault) in report.faults.iter().enumerate() {
            if fault.skipped.is_some() {
                continue;
            }
            let row = rows.entry(fault.kind).or_insert_with(|| row(fault.kind));
            row.made += 1;
            if is_measured(report, index) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Reign;
    use crate::report::Fault;
    use crate::run;

    fn fault(kind: Kind, at: u64, next: u64) -> Fault {
        let at = Duration::from_secs(at);
        let mut fault = Fault::new(kind, "a".to_owned(), at, at, None, None);
        fault.pause = Some(Duration::from_secs(next));
        fault.next = fault.pause;
        fault
    }

    fn pauses(report: &Report, kind: Kind) -> usize {
        by_kind([report]).iter().find(|row| row.kind == kind).map_or(0, |row| row.pauses.len())
    }

    #[test]
    fn a_fault_that_finds_writes_at_a_stand_is_not_measured() {
        let mut report = Report::new(&run::Options::default());
        report.faults = vec![fault(Kind::KillAll, 10, 5), fault(Kind::KillFollower, 20, 1)];
        assert_eq!(pauses(&report, Kind::KillFollower), 1);
        report.faults[0].next = Some(Duration::from_secs(15));
        assert_eq!(pauses(&report, Kind::KillFollower), 0);
        assert_eq!(pauses(&report, Kind::KillAll), 1);
    }

    #[test]
    fn a_switchover_that_did_not_come_about_is_not_measured() {
        let mut report = Report::new(&run::Options::default());
        report.faults = vec![fault(Kind::Switchover, 10, 1), fault(Kind::KillNode, 20, 1)];
        assert_eq!(pauses(&report, Kind::Switchover), 0);
        let (node, began) = ("b".to_owned(), Duration::from_secs(15));
        report.reigns = vec![Reign { epoch: 2, node, began, ready: None, ended: None }];
        assert_eq!(pauses(&report, Kind::Switchover), 1);
    }
}
