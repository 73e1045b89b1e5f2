//! A service's whole state in the coordinator, typed: what the machine decides by, what status
//! shows and what an ambassador routes by.
//!
//! The ruling keys (`epoch`, `leader`, `config`) must be readable, or there is no view: nobody may
//! decide by half of them. Any other key that cannot be read counts as absent and is listed in
//! [`View::unreadable`], so that one node's bad words do not stop the others.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::coordinator::{Compare, Contents, Entry, Event, Key, LeaseId, Revision};
use crate::values::{
    Ambassador, BadValue, Ballot, Config, EpochTaken, Leader, Reign, Replica, Request, decode, keys,
};

/// A value with what a transaction needs in order to compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// The value.
    pub value: T,
    /// The bytes that it was read from.
    pub raw: Vec<u8>,
    /// When the key was created.
    pub created: Revision,
    /// When it was last put.
    pub modified: Revision,
    /// The lease that it goes with.
    pub lease: Option<LeaseId>,
}

/// Everything below a service's root, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// As of when.
    pub revision: Revision,
    /// `epoch`; absent before the first leader.
    pub epoch: Option<Stored<EpochTaken>>,
    /// `leader`; absent while nobody leads.
    pub leader: Option<Stored<Leader>>,
    /// `config`; absent before the cluster is founded.
    pub config: Option<Stored<Config>>,
    /// `replicas/…`, by node.
    pub replicas: BTreeMap<String, Stored<Replica>>,
    /// `ballots/…`, by node.
    pub ballots: BTreeMap<String, Stored<Ballot>>,
    /// `requests/…`, by name.
    pub requests: BTreeMap<String, Stored<Request>>,
    /// `ambassadors/…`, by id.
    pub ambassadors: BTreeMap<String, Stored<Ambassador>>,
    /// `history/…`, by epoch, oldest first.
    pub history: BTreeMap<String, Stored<Reign>>,
    /// Keys whose values cannot be read; they count as absent.
    pub unreadable: BTreeMap<Key, BadValue>,
}

impl View {
    /// What a read returned, understood.
    ///
    /// # Errors
    /// [`BadValue`] if a ruling key cannot be read.
    pub fn parse(contents: &Contents) -> Result<View, BadValue> {
        let mut view = View { revision: contents.revision, ..View::default() };
        for entry in &contents.entries {
            view.put(entry)?;
        }
        Ok(view)
    }

    /// Brings the view up to date by one event of a watch that began at [`View::revision`].
    /// `Broken` changes nothing: the caller reads everything again.
    ///
    /// One transaction's events come one by one, so between two of them the view may show half
    /// of it. Whoever decides by more than one key at once lets the transaction it then makes
    /// compare them.
    ///
    /// # Errors
    /// [`BadValue`] if a ruling key cannot be read; the view is then to be thrown away.
    pub fn apply(&mut self, event: &Event) -> Result<(), BadValue> {
        match event {
            Event::Put(entry) => {
                self.revision = self.revision.max(entry.modified);
                self.put(entry)
            }
            Event::Deleted(key, revision) => {
                self.revision = self.revision.max(*revision);
                self.delete(key);
                Ok(())
            }
            Event::Broken(_) => Ok(()),
        }
    }

    /// The compare that holds while `epoch` is as it is here: part of every write of a leader.
    #[must_use]
    pub fn epoch_unchanged(&self) -> Compare {
        unchanged(keys::EPOCH, self.epoch.as_ref())
    }

    /// The compare that holds while `config` is as it is here.
    #[must_use]
    pub fn config_unchanged(&self) -> Compare {
        unchanged(keys::CONFIG, self.config.as_ref())
    }

    fn put(&mut self, entry: &Entry) -> Result<(), BadValue> {
        match entry.key.as_str() {
            keys::EPOCH => self.epoch = Some(stored(entry)?),
            keys::LEADER => self.leader = Some(stored(entry)?),
            keys::CONFIG => self.config = Some(stored(entry)?),
            key => {
                // Not the old value either: it is no longer what the key says.
                self.delete(key);
                if let Err(bad) = self.put_listed(entry) {
                    self.unreadable.insert(entry.key.clone(), bad);
                }
            }
        }
        Ok(())
    }

    fn put_listed(&mut self, entry: &Entry) -> Result<(), BadValue> {
        let Some((list, name)) = split(&entry.key) else {
            return Ok(()); // a newer version's key
        };
        let name = name.to_owned();
        match list {
            keys::REPLICAS => drop(self.replicas.insert(name, stored(entry)?)),
            keys::BALLOTS => drop(self.ballots.insert(name, stored(entry)?)),
            keys::REQUESTS => drop(self.requests.insert(name, stored(entry)?)),
            keys::AMBASSADORS => drop(self.ambassadors.insert(name, stored(entry)?)),
            keys::HISTORY => drop(self.history.insert(name, stored(entry)?)),
            _ => {}
        }
        Ok(())
    }

    fn delete(&mut self, key: &str) {
        self.unreadable.remove(key);
        match (key, split(key)) {
            (keys::EPOCH, _) => self.epoch = None,
            (keys::LEADER, _) => self.leader = None,
            (keys::CONFIG, _) => self.config = None,
            (_, Some((keys::REPLICAS, node))) => drop(self.replicas.remove(node)),
            (_, Some((keys::BALLOTS, node))) => drop(self.ballots.remove(node)),
            (_, Some((keys::REQUESTS, name))) => drop(self.requests.remove(name)),
            (_, Some((keys::AMBASSADORS, id))) => drop(self.ambassadors.remove(id)),
            (_, Some((keys::HISTORY, epoch))) => drop(self.history.remove(epoch)),
            _ => {}
        }
    }
}

/// `replicas/a` as (`replicas/`, `a`).
fn split(key: &str) -> Option<(&str, &str)> {
    key.find('/').map(|slash| key.split_at(slash + 1))
}

fn unchanged<T>(key: &str, stored: Option<&Stored<T>>) -> Compare {
    match stored {
        Some(stored) => Compare::Modified(key.to_owned(), stored.modified),
        None => Compare::Absent(key.to_owned()),
    }
}

fn stored<T: DeserializeOwned>(entry: &Entry) -> Result<Stored<T>, BadValue> {
    Ok(Stored {
        value: decode(&entry.key, &entry.value)?,
        raw: entry.value.clone(),
        created: entry.created,
        modified: entry.modified,
        lease: entry.lease,
    })
}

#[cfg(test)]
mod tests;
