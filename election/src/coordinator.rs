//! The small, strongly consistent store through which replicas agree who leads.
//!
//! Two backends keep this contract, etcd and SQLite, and one conformance suite holds both to it.

use std::time::Duration;

use async_trait::async_trait;

/// A key or a prefix, as UTF-8 text below the service's root (`/mainstay/<service>/`).
pub type Key = String;

/// A store-wide counter: each transaction that changes something has a higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// A lease's id, unique in the store for as long as anything remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

/// One key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, without the service's root.
    pub key: Key,
    /// Its value.
    pub value: Vec<u8>,
    /// When it was created.
    pub created: Revision,
    /// When it was last put.
    pub modified: Revision,
    /// The lease that it goes with, if any.
    pub lease: Option<LeaseId>,
}

/// What must hold for a transaction's writes to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(Key),
    /// The key exists with exactly this value.
    Value(Key, Vec<u8>),
    /// The key exists and was last put at this revision.
    Modified(Key, Revision),
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key; with a lease it goes when the lease does.
    Put(Key, Vec<u8>, Option<LeaseId>),
    /// Removes a key; one that is not there is no error.
    Delete(Key),
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every compare held and every write is done, at this revision.
    Done(Revision),
    /// A compare did not hold; nothing was written.
    Refused,
}

/// Everything below the root, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The revision of this read.
    pub revision: Revision,
    /// By key.
    pub entries: Vec<Entry>,
}

/// A granted lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its id.
    pub id: LeaseId,
    /// What the store granted, which may be more than was asked for.
    pub ttl: Duration,
}

/// What a watch says. A watch never skips: after `Broken` read everything again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was put.
    Put(Entry),
    /// A key is gone, by a delete or with its lease.
    Deleted(Key, Revision),
    /// The watch ended (connection, compaction, lost leader): what came between is unknown.
    Broken(String),
}

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CoordinatorError {
    /// No answer, or none that can be trusted: the write may or may not have happened.
    #[error("the coordinator cannot be reached: {0}")]
    Unreachable(String),
    /// The lease is gone; whatever went with it is gone or going.
    #[error("the lease is gone")]
    LeaseGone,
    /// The credentials or the permissions do not do.
    #[error("the coordinator refuses us: {0}")]
    Denied(String),
    /// Something is wrong with what we asked or were configured with.
    #[error("{0}")]
    Invalid(String),
}

/// Shorthand for this trait's results.
pub type Result<T> = std::result::Result<T, CoordinatorError>;

/// A running watch; dropping it ends it.
#[async_trait]
pub trait Watch: Send {
    /// The next event, in order of revisions. After [`Event::Broken`] always `Broken`.
    ///
    /// Cancel-safe: a dropped call loses nothing.
    async fn next(&mut self) -> Event;
}

/// Who leads is agreed upon through one of these.
///
/// Every call ends within about a quarter of the lease's ttl, with an error if it must.
#[async_trait]
pub trait Coordinator: Send + Sync {
    /// Everything below the root, in one linearizable read.
    async fn read(&self) -> Result<Contents>;

    /// All compares hold and all writes happen, or none.
    async fn transact(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<Outcome>;

    /// A new lease of at least `ttl`.
    async fn grant(&self, ttl: Duration) -> Result<Grant>;

    /// Extends a lease by its ttl, counted by the store from some moment within this call.
    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration>;

    /// Ends a lease and deletes its keys now. One that is gone already is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<()>;

    /// Watches everything below the root, beginning after `after`.
    async fn watch(&self, after: Revision) -> Result<Box<dyn Watch>>;
}
