//! A coordinator that is nothing but its contract: entries, leases and a revision, at a given time.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_election::coordinator::{
    Compare, Contents, CoordinatorError, Entry, Grant, LeaseId, Outcome, Result, Revision, Write,
};

#[derive(Default)]
pub struct Model {
    revision: Revision,
    entries: BTreeMap<String, Entry>,
    /// By id: the ttl and the world's time at which it runs out.
    leases: BTreeMap<i64, (Duration, Duration)>,
    next_lease: i64,
}

impl Model {
    /// Ends the leases that have run out by `now`.
    pub fn expire(&mut self, now: Duration) {
        let over: Vec<i64> =
            self.leases.iter().filter(|(_, (_, end))| *end <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.revoke(LeaseId(id));
        }
    }

    pub fn contents(&self) -> Contents {
        Contents { revision: self.revision, entries: self.entries.values().cloned().collect() }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn transact(&mut self, compares: &[Compare], writes: &[Write]) -> Result<Outcome> {
        let holds = |compare: &Compare| match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Value(key, value) => {
                self.entries.get(key).is_some_and(|entry| entry.value == *value)
            }
            Compare::Modified(key, at) => {
                self.entries.get(key).is_some_and(|entry| entry.modified == *at)
            }
        };
        if !compares.iter().all(holds) {
            return Ok(Outcome::Refused);
        }
        let unleased = |write: &Write| matches!(write, Write::Put(_, _, Some(lease)) if !self.leases.contains_key(&lease.0));
        if writes.iter().any(unleased) {
            return Err(CoordinatorError::LeaseGone);
        }
        self.revision.0 += 1;
        for write in writes {
            match write {
                Write::Put(key, value, lease) => self.put(key, value.clone(), *lease),
                Write::Delete(key) => drop(self.entries.remove(key)),
            }
        }
        Ok(Outcome::Done(self.revision))
    }

    fn put(&mut self, key: &str, value: Vec<u8>, lease: Option<LeaseId>) {
        let modified = self.revision;
        let created = self.entries.get(key).map_or(modified, |entry| entry.created);
        let key = key.to_owned();
        self.entries.insert(key.clone(), Entry { key, value, created, modified, lease });
    }

    pub fn grant(&mut self, now: Duration, ttl: Duration) -> Grant {
        self.next_lease += 1;
        self.leases.insert(self.next_lease, (ttl, now + ttl));
        Grant { id: LeaseId(self.next_lease), ttl }
    }

    pub fn keep_alive(&mut self, now: Duration, lease: LeaseId) -> Result<Duration> {
        let (ttl, end) = self.leases.get_mut(&lease.0).ok_or(CoordinatorError::LeaseGone)?;
        *end = now + *ttl;
        Ok(*ttl)
    }

    pub fn revoke(&mut self, lease: LeaseId) {
        self.leases.remove(&lease.0);
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.lease != Some(lease));
        if self.entries.len() != before {
            self.revision.0 += 1;
        }
    }
}
