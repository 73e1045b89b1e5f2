//! What a failover in async durability took: no more than its bound, and nothing in silence.
//!
//! A server that lost acknowledged writes lost its newest (that they are the newest is for
//! [`super::acknowledged`]); so the time from the answer to the oldest lost one to the request of its
//! last is at most how far back the loss reaches, however late the last was answered. The epoch that
//! took over must be in the history, which may not claim that nothing was lost, and the replica that
//! had it must have set it aside.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use super::Finding;
use crate::observe::Reign;
use crate::workload::{Outcome, ServerId, Write};

/// What is known of failovers besides the clients' records.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// By epoch: how many ops of the one before its history says were lost, if it knows.
    pub history: BTreeMap<u64, Option<u64>>,
    /// Epochs of which some replica has set content aside.
    pub set_aside: BTreeSet<u64>,
    /// Nodes whose disks were taken away, and what they had set aside with them.
    pub disks_were_lost: BTreeSet<String>,
}

/// Judges what is not there of what each server acknowledged; `bound` is how far back a loss may
/// reach.
#[must_use]
pub fn check(
    writes: &[Write],
    present: &[(u32, u64)],
    reigns: &[Reign],
    told: &Told,
    bound: Duration,
) -> Finding {
    let there: HashSet<_> = present.iter().copied().collect();
    let mut by_server: BTreeMap<ServerId, Vec<&Write>> = BTreeMap::new();
    for write in writes.iter().filter(|write| write.outcome == Outcome::Acknowledged) {
        if let Some(server) = write.server {
            by_server.entry(server).or_default().push(write);
        }
    }
    let mut violations = Vec::new();
    let (mut losses, mut lost_writes) = (0, 0);
    for (server, acknowledged) in &by_server {
        let is_lost = |write: &&&Write| !there.contains(&(write.client, write.number));
        let lost: Vec<_> = acknowledged.iter().filter(is_lost).collect();
        let Some(oldest) = lost.iter().map(|write| write.ended).min() else { continue };
        let newest = acknowledged.iter().map(|write| write.invoked).max().unwrap_or(oldest);
        let first = acknowledged.iter().map(|write| write.ended).min().unwrap_or(oldest);
        losses += 1;
        lost_writes += lost.len();
        let what = format!("{} writes of server {}", lost.len(), server.0);
        let reach = newest.saturating_sub(oldest);
        if reach > bound {
            let reach = reach.as_secs_f64();
            violations.push(format!("{what} are lost, back to {reach:.2} s before its last one"));
        }
        let Some(own) = reigns.iter().rfind(|reign| reign.began <= first) else { continue };
        let next = told.history.range(own.epoch + 1..).next();
        match next {
            Some((epoch, Some(0))) => violations.push(format!(
                "{what} are lost, but the history of epoch {epoch} says that nothing was"
            )),
            Some(_) => {}
            None => violations.push(format!("{what} are lost, and no history tells of an heir")),
        }
        if !told.disks_were_lost.contains(&own.node) && !told.set_aside.contains(&own.epoch) {
            let epoch = own.epoch;
            violations.push(format!("{what} are lost, and nothing of epoch {epoch} is set aside"));
        }
    }
    Finding {
        check: format!("a failover loses at most {bound:?}, and says so"),
        looked_at: format!("{losses} losses of {lost_writes} writes, {} servers", by_server.len()),
        violations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Way;

    fn write(number: u64, server: u32) -> Write {
        Write {
            client: 1,
            number,
            invoked: Duration::from_secs(number),
            ended: Duration::from_secs(number),
            outcome: Outcome::Acknowledged,
            server: Some(ServerId(server)),
            way: Way::Ambassador,
        }
    }

    fn reign(epoch: u64, began: u64) -> Reign {
        let (node, began) = ("a".to_owned(), Duration::from_secs(began));
        Reign { epoch, node, began, ready: None, ended: None }
    }

    fn count(present: &[u64], told: &Told) -> usize {
        let writes = [write(1, 0), write(5, 0), write(6, 0), write(20, 1)];
        let present: Vec<_> = present.iter().map(|number| (1, *number)).collect();
        let reigns = [reign(1, 0), reign(2, 15)];
        check(&writes, &present, &reigns, told, Duration::from_secs(3)).violations.len()
    }

    #[test]
    fn a_loss_is_bounded_and_told() {
        let mut told = Told::default();
        told.history.insert(2, Some(3));
        told.set_aside.insert(1);
        assert_eq!(count(&[1, 5, 6, 20], &Told::default()), 0, "nothing is lost");
        assert_eq!(count(&[1, 20], &told), 0);
        assert_eq!(count(&[20], &told), 1, "it reaches too far back");
        told.history.insert(2, None);
        assert_eq!(count(&[1, 20], &told), 0, "it is not known how much");
        told.history.insert(2, Some(0));
        assert_eq!(count(&[1, 20], &told), 1, "in silence");
        told.set_aside.clear();
        assert_eq!(count(&[1, 20], &told), 2, "dropped");
        told.disks_were_lost.insert("b".to_owned());
        assert_eq!(count(&[1, 20], &told), 2, "another node's disk excuses nothing");
        told.disks_were_lost.insert("a".to_owned());
        assert_eq!(count(&[1, 20], &told), 1);
    }
}
