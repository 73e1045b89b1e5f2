//! A coordinator that keeps its contract (`election/src/coordinator.rs`), and its bad days.
//!
//! One linearizable store: entries, leases, a revision. What lags, breaks or is lost on the way to
//! and from it is the network's part (`calls`); what it forgets itself is here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_election::coordinator::{
    Compare, Contents, CoordinatorError, Entry, Event, Grant, LeaseId, Outcome, Result, Revision,
    Write,
};
use mainstay_election::view::View;

/// So often a backup is taken.
const BACKUP_EVERY: Duration = Duration::from_millis(500);

/// A lease: what was granted and when it runs out.
#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    end: Duration,
}

/// What a backup holds.
#[derive(Clone, Debug, Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    leases: BTreeMap<i64, Lease>,
    revision: Revision,
}

/// The store.
#[derive(Debug, Default)]
pub struct Coordinator {
    state: State,
    next_lease: i64,
    /// Everything, as a reader understands it; shared until it changes.
    view: Arc<View>,
    backups: Vec<(Duration, State)>,
    /// Answers nobody until then.
    pub down_until: Duration,
    /// How often it was set back.
    pub restored: u32,
    /// When it was last set back.
    pub restored_at: Duration,
}

impl Coordinator {
    /// Everything, as one read shows it.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Counts changes.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.revision
    }

    /// When the next lease runs out.
    #[must_use]
    pub fn next_end(&self) -> Option<Duration> {
        self.state.leases.values().map(|lease| lease.end).min()
    }

    /// Ends the leases that have run out by `now`. While it is down it counts on, but nobody is
    /// told; afterwards it gives them all their time again, as a new leader of etcd does.
    pub fn expire(&mut self, now: Duration) {
        if now < self.down_until {
            return;
        }
        let over: Vec<i64> = self
            .state
            .leases
            .iter()
            .filter(|(_, lease)| lease.end <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.revoke(LeaseId(id));
        }
    }

    /// All compares hold and all writes happen, or none.
    ///
    /// # Errors
    /// A lease that is to be put with is gone.
    pub fn transact(&mut self, compares: &[Compare], writes: &[Write]) -> Result<Outcome> {
        let entries = &self.state.entries;
        let holds = |compare: &Compare| match compare {
            Compare::Absent(key) => !entries.contains_key(key),
            Compare::Value(key, value) => {
                entries.get(key).is_some_and(|entry| entry.value == *value)
            }
            Compare::Modified(key, at) => entries.get(key).is_some_and(|it| it.modified == *at),
        };
        if !compares.iter().all(holds) {
            return Ok(Outcome::Refused);
        }
        let unleased = |write: &Write| matches!(write, Write::Put(_, _, Some(lease)) if !self.state.leases.contains_key(&lease.0));
        if writes.iter().any(unleased) {
            return Err(CoordinatorError::LeaseGone);
        }
        self.state.revision.0 += 1;
        for write in writes {
            match write {
                Write::Put(key, value, lease) => self.put(key, value.clone(), *lease),
                Write::Delete(key) => self.delete(key),
            }
        }
        Ok(Outcome::Done(self.state.revision))
    }

    fn put(&mut self, key: &str, value: Vec<u8>, lease: Option<LeaseId>) {
        let modified = self.state.revision;
        let created = self.state.entries.get(key).map_or(modified, |entry| entry.created);
        let entry = Entry { key: key.to_owned(), value, created, modified, lease };
        self.tell(&Event::Put(entry.clone()));
        self.state.entries.insert(key.to_owned(), entry);
    }

    fn delete(&mut self, key: &str) {
        if self.state.entries.remove(key).is_some() {
            self.tell(&Event::Deleted(key.to_owned(), self.state.revision));
        }
    }

    fn tell(&mut self, event: &Event) {
        let view = Arc::make_mut(&mut self.view);
        assert!(view.apply(event).is_ok(), "what a machine writes can be read: {event:?}");
        view.revision = self.state.revision;
    }

    /// A new lease.
    pub fn grant(&mut self, now: Duration, ttl: Duration) -> Grant {
        self.next_lease += 1;
        self.state.leases.insert(self.next_lease, Lease { ttl, end: now + ttl });
        Grant { id: LeaseId(self.next_lease), ttl }
    }

    /// More of a lease.
    ///
    /// # Errors
    /// It is gone.
    pub fn keep_alive(&mut self, now: Duration, lease: LeaseId) -> Result<Duration> {
        let held = self.state.leases.get_mut(&lease.0).ok_or(CoordinatorError::LeaseGone)?;
        held.end = now + held.ttl;
        Ok(held.ttl)
    }

    fn revoke(&mut self, lease: LeaseId) {
        self.state.leases.remove(&lease.0);
        let leased = self.state.entries.values().filter(|entry| entry.lease == Some(lease));
        let keys: Vec<String> = leased.map(|entry| entry.key.clone()).collect();
        if !keys.is_empty() {
            self.state.revision.0 += 1;
            keys.iter().for_each(|key| self.delete(key));
        }
    }

    /// All leases have their whole time again.
    pub fn extend_leases(&mut self, now: Duration) {
        for lease in self.state.leases.values_mut() {
            lease.end = lease.end.max(now + lease.ttl);
        }
    }

    /// Keeps how it is now, now and then.
    pub fn back_up(&mut self, now: Duration) {
        if self.backups.last().is_none_or(|(at, _)| *at + BACKUP_EVERY <= now) {
            self.backups.push((now, self.state.clone()));
        }
    }

    /// All of it is lost, and another one begins in its place.
    pub fn forget(&mut self, now: Duration) {
        self.state = State::default();
        self.view = Arc::default();
        self.backups.clear();
        self.restored += 1;
        self.restored_at = now;
    }

    /// Sets it back to how it was at `then`. Revisions begin below those that were told of, as a
    /// restored etcd's do.
    pub fn restore(&mut self, now: Duration, then: Duration) {
        let Some((_, old)) = self.backups.iter().rev().find(|(at, _)| *at <= then) else { return };
        self.state = old.clone();
        self.restored += 1;
        self.restored_at = now;
        self.extend_leases(now);
        let entries = self.state.entries.values().cloned().collect();
        let contents = Contents { revision: self.state.revision, entries };
        let view = View::parse(&contents);
        self.view = Arc::new(view.unwrap_or_else(|bad| panic!("a backup can be read: {bad}")));
        self.backups.retain(|(at, _)| *at <= then);
    }
}
