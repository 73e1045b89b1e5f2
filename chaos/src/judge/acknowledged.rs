//! What clients were told is done must be there, and nothing else.
//!
//! Sync: all of it, always. Async: a failover may take the newest, but what is left of each
//! server's work must be a prefix of it, and a server that is followed by no other loses nothing.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{Finding, Promise};
use crate::workload::{Outcome, ServerId, Write};

/// Judges writes of unique values against what a reader found at the end.
#[must_use]
pub fn check(writes: &[Write], present: &[(u32, u64)], promise: Promise) -> Finding {
    let mut there = HashSet::new();
    let mut violations = Vec::new();
    let known: HashSet<_> = writes.iter().map(key).collect();
    for value in present {
        if !there.insert(*value) {
            violations.push(format!("{value:?} is there twice"));
        } else if !known.contains(value) {
            violations.push(format!("{value:?} is there, but nobody wrote it"));
        }
    }
    let refused = writes.iter().filter(|write| write.outcome == Outcome::Failed);
    let refused = refused.filter(|write| there.contains(&key(write)));
    violations.extend(refused.map(|write| format!("{:?} was refused and is there", key(write))));
    let acknowledged: Vec<_> =
        writes.iter().filter(|write| write.outcome == Outcome::Acknowledged).collect();
    let lost: Vec<_> =
        acknowledged.iter().copied().filter(|write| !there.contains(&key(write))).collect();
    match promise {
        Promise::Sync => violations.extend(lost.iter().map(|write| {
            let at = write.ended.as_secs_f64();
            format!("{:?}, acknowledged at {at:.3} s, is lost", key(write))
        })),
        Promise::Async => violations.extend(holes(&lost, writes, &there)),
    }
    Finding {
        check: match promise {
            Promise::Sync => "every acknowledged write is there, and nothing else",
            Promise::Async => "each server's acknowledged writes are there up to some moment",
        }
        .to_owned(),
        looked_at: format!(
            "{} acknowledged of {} writes; {} there, {} lost",
            acknowledged.len(),
            writes.len(),
            present.len(),
            lost.len()
        ),
        violations,
    }
}

/// Lost writes of a server that has later ones there.
fn holes(lost: &[&Write], writes: &[Write], there: &HashSet<(u32, u64)>) -> Vec<String> {
    // Of each server, the write there that was sent last.
    let mut newest: HashMap<ServerId, (Duration, (u32, u64))> = HashMap::new();
    for write in writes.iter().filter(|write| there.contains(&key(write))) {
        let Some(server) = write.server else { continue };
        let newest = newest.entry(server).or_insert((write.invoked, key(write)));
        *newest = (*newest).max((write.invoked, key(write)));
    }
    let last = writes.iter().filter(|write| write.outcome == Outcome::Acknowledged);
    let last = last.max_by_key(|write| write.ended).and_then(|write| write.server);
    let holes = lost.iter().filter_map(|write| {
        let server = write.server?;
        let lost = key(write);
        if Some(server) == last {
            return Some(format!("{lost:?} is lost, and no failover came after it"));
        }
        let (invoked, later) = newest.get(&server)?;
        (*invoked > write.ended)
            .then(|| format!("{lost:?} is lost, but {later:?} of the same server is there"))
    });
    holes.collect()
}

fn key(write: &Write) -> (u32, u64) {
    (write.client, write.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Way;

    fn write(number: u64, server: u32) -> Write {
        Write {
            client: 1,
            number,
            invoked: Duration::from_secs(10 * number),
            ended: Duration::from_secs(10 * number + 1),
            outcome: Outcome::Acknowledged,
            server: Some(ServerId(server)),
            way: Way::Ambassador,
        }
    }

    fn is_clean(writes: &[Write], present: &[u64], promise: Promise) -> bool {
        let present: Vec<_> = present.iter().map(|number| (1, *number)).collect();
        check(writes, &present, promise).is_clean()
    }

    #[test]
    fn sync_loses_nothing() {
        let writes = [write(1, 0), write(2, 0), write(3, 1)];
        assert!(is_clean(&writes, &[1, 2, 3], Promise::Sync));
        assert!(!is_clean(&writes, &[1, 3], Promise::Sync));
    }

    #[test]
    fn async_loses_a_servers_newest_only() {
        let writes = [write(1, 0), write(2, 0), write(3, 1)];
        assert!(is_clean(&writes, &[1, 3], Promise::Async));
        assert!(!is_clean(&writes, &[2, 3], Promise::Async));
        assert!(!is_clean(&writes, &[1, 2], Promise::Async), "no failover came after 3");
    }

    #[test]
    fn what_nobody_wrote_or_was_refused_or_is_there_twice_is_found() {
        let mut writes = [write(1, 0)];
        assert!(!is_clean(&writes, &[1, 2], Promise::Async));
        assert!(!is_clean(&writes, &[1, 1], Promise::Async));
        writes[0].outcome = Outcome::Failed;
        assert!(!is_clean(&writes, &[1], Promise::Async));
        writes[0].outcome = Outcome::Unknown;
        assert!(is_clean(&writes, &[1], Promise::Sync));
        assert!(is_clean(&writes, &[], Promise::Sync));
    }
}
