//! Makes a failing plan short enough to read.

use super::checks::Violation;
use super::plan::Plan;
use super::run;

/// The smallest plan found that breaks the same rule: faults are left out, first many at once.
#[must_use]
pub fn shrink(plan: &Plan, violation: &Violation) -> Plan {
    let mut best = plan.clone();
    let mut size = best.faults.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shrunk = false;
        while at < best.faults.len() {
            let mut fewer = best.clone();
            fewer.faults.drain(at..(at + size).min(best.faults.len()));
            if breaks(&fewer, violation) {
                best = fewer;
                shrunk = true;
            } else {
                at += size;
            }
        }
        match (size, shrunk) {
            (1, false) => break,
            (1, true) => {}
            _ => size = size.div_ceil(2).min(size - 1).max(1),
        }
    }
    best
}

fn breaks(plan: &Plan, violation: &Violation) -> bool {
    run(plan, false).violation.is_some_and(|found| found.rule == violation.rule)
}
