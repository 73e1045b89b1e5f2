//! The coordinator that is one SQLite file, for the processes of one machine: a trial, a test, or
//! a service whose replicas live on several disks of one host.
//!
//! Relied upon: SQLite's locks between processes (so a local file system, not NFS), and its
//! `synchronous=FULL`, by which an epoch once taken is still taken after a power cut.
//!
//! Leases end by CLOCK_BOOTTIME, which all processes of a machine share and which nobody sets. A
//! reboot starts it anew, so a lease remembers its boot: whoever held one of an earlier boot is
//! dead, and the lease over. (Containers with time namespaces of their own do not share the clock;
//! they cannot share this file.)
//!
//! Hazard: a call that is given up goes on in its thread and may still happen, as with etcd.

mod database;
mod lease;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::coordinator::{
    Compare, Contents, Coordinator, CoordinatorError, Grant, LeaseId, Outcome, Result, Revision,
    Watch, Write,
};
use crate::request::check_writes;
use database::Database;
use watch::SqliteWatch;

/// The keys of one service in a file.
pub(crate) struct SqliteCoordinator {
    root: String,
    patience: Duration,
    database: Arc<Mutex<Database>>,
}

impl SqliteCoordinator {
    /// Opens the file, or creates it. No call takes longer than `patience`.
    pub(crate) async fn open(
        path: PathBuf,
        root: String,
        patience: Duration,
    ) -> Result<SqliteCoordinator> {
        let database = blocking(patience, move || Database::open(&path, patience)).await?;
        Ok(SqliteCoordinator { root, patience, database: Arc::new(Mutex::new(database)) })
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Database) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let database = Arc::clone(&self.database);
        let begun = Instant::now();
        let patience = self.patience;
        blocking(patience, move || {
            // Every call of the database is one transaction, which a panic rolls back.
            let mut database = database.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits for the answer any more, so better that it never happens.
            if begun.elapsed() >= patience {
                return Err(late(patience));
            }
            call(&mut database)
        })
        .await
    }
}

/// Runs `call` where it may block, and waits for it for `patience`.
async fn blocking<T: Send + 'static>(
    patience: Duration,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::time::timeout(patience, tokio::task::spawn_blocking(call)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(CoordinatorError::Unreachable(format!("its thread died: {error}"))),
        Err(_) => Err(late(patience)),
    }
}

fn late(patience: Duration) -> CoordinatorError {
    CoordinatorError::Unreachable(format!("no answer from its disk within {patience:?}"))
}

#[async_trait]
impl Coordinator for SqliteCoordinator {
    async fn read(&self) -> Result<Contents> {
        let root = self.root.clone();
        self.call(move |database| database.read(&root)).await
    }

    async fn transact(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<Outcome> {
        check_writes(&writes)?;
        let root = self.root.clone();
        self.call(move |database| database.transact(&root, &compares, &writes)).await
    }

    async fn grant(&self, ttl: Duration) -> Result<Grant> {
        self.call(move |database| database.grant(ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        self.call(move |database| database.keep_alive(lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.call(move |database| database.revoke(lease)).await
    }

    async fn watch(&self, after: Revision) -> Result<Box<dyn Watch>> {
        // A connection of its own: `data_version` tells of other connections' changes only.
        let database = self.call(|database| database.open_again()).await?;
        Ok(Box::new(SqliteWatch::begin(database, self.root.clone(), after)?))
    }
}
