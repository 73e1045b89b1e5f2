//! Processor time of process trees, by what the processes are.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::live::process::tree;

/// Processor time by part: `postgres`, `standbys`, `leader`, `followers`, `ambassador`.
pub type Spent = BTreeMap<&'static str, Duration>;

/// A tree to watch: its root, and what its processes count as. Those of the database count as
/// `postgres` unless `all_as_one`.
#[derive(Clone, Copy, Debug)]
pub struct Root {
    /// The root's pid.
    pub pid: i32,
    /// What it counts as.
    pub part: &'static str,
    /// Whether the database's processes below it do too.
    pub all_as_one: bool,
}

/// What the trees have spent up to now, those too that ended in them.
#[must_use]
pub fn spent(roots: &[Root]) -> Spent {
    let mut sum = Spent::new();
    for root in roots {
        for pid in tree(root.pid) {
            let Some((program, time)) = of(pid) else { continue };
            let part =
                if program == "postgres" && !root.all_as_one { "postgres" } else { root.part };
            *sum.entry(part).or_default() += time;
        }
    }
    sum
}

/// What was spent from `before` on.
#[must_use]
pub fn since(before: &Spent, after: &Spent) -> Spent {
    let spent = |(part, time): (&&'static str, &Duration)| {
        (*part, time.saturating_sub(before.get(*part).copied().unwrap_or_default()))
    };
    after.iter().map(spent).collect()
}

/// A process' name, and its time with that of its children that it has waited for: `proc(5)`,
/// fields 14 to 17 of `stat`.
fn of(pid: i32) -> Option<(String, Duration)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, fields) = stat.rsplit_once(')')?;
    let program = head.split_once('(')?.1.to_owned();
    let ticks: u64 = fields.split_whitespace().skip(11).take(4).flat_map(str::parse::<u64>).sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Some((program, Duration::from_millis(ticks * 1000 / per_second)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_a_child_that_ended_counts() {
        let pid = i32::try_from(std::process::id()).expect("a pid");
        let roots = [Root { pid, part: "leader", all_as_one: false }];
        let before = spent(&roots);
        let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let status = std::process::Command::new("sh").args(["-c", burn]).status().expect("sh");
        assert!(status.success());
        let after = since(&before, &spent(&roots));
        assert!(after["leader"] >= Duration::from_millis(20), "{after:?}");
    }
}
