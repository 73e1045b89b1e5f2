//! The file: its tables, and one function for each thing that is done to it, each one transaction.
//!
//! There is no table of the revision: it is the newest row of `changes`, so the two cannot
//! disagree. Keys are stored whole (`/mainstay/<service>/…`), since services share the file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior,
    params,
};

use super::lease::{self, Clock};
use crate::coordinator::{
    Compare, Contents, CoordinatorError, Entry, Event, Grant, LeaseId, Outcome, Result, Revision,
    Write,
};

/// How many revisions a watch can look back. Older ones are dropped as newer ones come.
const REVISIONS_KEPT: i64 = 4096;

/// The layout of the tables below, in the file's `user_version`.
const LAYOUT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE entries (
        key      TEXT PRIMARY KEY NOT NULL,
        value    BLOB NOT NULL,
        created  INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        lease    INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;

    -- AUTOINCREMENT: an id is never given twice, not even after its lease was deleted.
    CREATE TABLE leases (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        ttl_ms     INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL, -- CLOCK_BOOTTIME
        boot       TEXT NOT NULL     -- of which boot
    );

    -- What watches read. No value: the key was deleted.
    CREATE TABLE changes (
        revision INTEGER NOT NULL,
        key      TEXT NOT NULL,
        value    BLOB,
        created  INTEGER NOT NULL,
        lease    INTEGER,
        PRIMARY KEY (revision, key)
    ) WITHOUT ROWID;
";

/// One connection to the file.
pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
    patience: Duration,
    /// Device and inode of the file that is open.
    identity: (u64, u64),
    clock: Clock,
}

/// What a watch found.
pub(super) enum Changes {
    /// All events after the revision that it knew, and the revision that it knows now.
    Since(Vec<Event>, Revision),
    /// They are no longer kept.
    Forgotten,
}

impl Database {
    /// Opens the file, or creates it. Waits for other processes' locks for `patience`.
    pub(super) fn open(path: &Path, patience: Duration) -> Result<Database> {
        let mut database = Database::with_flags(path, patience, OpenFlags::default())?;
        database.lay_out()?;
        Ok(database)
    }

    /// Another connection to the same file.
    pub(super) fn open_again(&self) -> Result<Database> {
        self.check_identity()?;
        let flags = OpenFlags::default().difference(OpenFlags::SQLITE_OPEN_CREATE);
        let again = Database::with_flags(&self.path, self.patience, flags)?;
        self.check_identity()?;
        Ok(again)
    }

    fn with_flags(path: &Path, patience: Duration, flags: OpenFlags) -> Result<Database> {
        let clock = Clock::of_this_boot()?;
        let deadline = Instant::now() + patience;
        // Going over to WAL needs the file for itself, and SQLite does not wait for that.
        let connection = loop {
            match connect(path, patience, flags) {
                Err(error) if busy(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                answer => break answer.map_err(|error| explain(path, &error))?,
            }
        };
        let identity = identity(path)?;
        Ok(Database { connection, path: path.to_owned(), patience, identity, clock })
    }

    fn lay_out(&mut self) -> Result<()> {
        let path = self.path.clone();
        self.write(|transaction, _| {
            match transaction.query_row("PRAGMA user_version", [], |row| row.get(0))? {
                LAYOUT => Ok(Ok(())),
                0 => {
                    transaction.execute_batch(TABLES)?;
                    transaction.pragma_update(None, "user_version", LAYOUT)?;
                    Ok(Ok(()))
                }
                other => Ok(Err(CoordinatorError::Invalid(format!(
                    "{} has layout {other}, and this version knows {LAYOUT} only: it was written \
                     by a newer version",
                    path.display()
                )))),
            }
        })
    }

    /// Everything below `root`.
    pub(super) fn read(&mut self, root: &str) -> Result<Contents> {
        self.expire()?;
        self.with(TransactionBehavior::Deferred, |transaction, _| {
            let revision = newest(transaction)?;
            let mut select = transaction.prepare_cached(
                "SELECT key, value, created, modified, lease FROM entries
                 WHERE key >= ?1 AND key < ?2 ORDER BY key",
            )?;
            let entries = select
                .query_map(params![root, end_of(root)], |row| entry(root, row))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Ok(Contents { revision: Revision(revision), entries }))
        })
    }

    /// All compares hold and all writes happen, or none.
    pub(super) fn transact(
        &mut self,
        root: &str,
        compares: &[Compare],
        writes: &[Write],
    ) -> Result<Outcome> {
        self.expire()?;
        self.write(|transaction, now| {
            for compare in compares {
                if !holds(transaction, root, compare)? {
                    return Ok(Ok(Outcome::Refused));
                }
            }
            let revision = newest(transaction)? + 1;
            for write in writes {
                match write {
                    Write::Delete(key) => delete(transaction, &format!("{root}{key}"), revision)?,
                    Write::Put(key, value, lease) => {
                        if let Some(lease) = lease
                            && !lease::lives(transaction, *lease, now)?
                        {
                            return Ok(Err(CoordinatorError::LeaseGone));
                        }
                        put(transaction, &format!("{root}{key}"), value, *lease, revision)?;
                    }
                }
            }
            forget(transaction)?;
            // Deletes of what was not there made no revision.
            Ok(Ok(Outcome::Done(Revision(newest(transaction)?))))
        })
    }

    /// A new lease.
    pub(super) fn grant(&mut self, ttl: Duration) -> Result<Grant> {
        self.write(|transaction, now| Ok(Ok(lease::grant(transaction, ttl, now)?)))
    }

    /// Extends a lease.
    pub(super) fn keep_alive(&mut self, lease: LeaseId) -> Result<Duration> {
        self.write(|transaction, now| {
            Ok(lease::extend(transaction, lease, now)?.ok_or(CoordinatorError::LeaseGone))
        })
    }

    /// Ends a lease.
    pub(super) fn revoke(&mut self, lease: LeaseId) -> Result<()> {
        self.write(|transaction, _| {
            end_lease(transaction, lease)?;
            forget(transaction)?;
            Ok(Ok(()))
        })
    }

    /// Deletes what went with leases that are over: whoever looks first does it. Says when the
    /// next one ends, if any.
    pub(super) fn expire(&mut self) -> Result<Option<Duration>> {
        let due = self.with(TransactionBehavior::Deferred, |transaction, now| {
            Ok(Ok(lease::next_end(transaction, now)?))
        })?;
        if due != Some(Duration::ZERO) {
            return Ok(due);
        }
        self.write(|transaction, now| {
            for lease in lease::over(transaction, now)? {
                end_lease(transaction, lease)?;
            }
            forget(transaction)?;
            Ok(Ok(lease::next_end(transaction, now)?))
        })
    }

    /// A number that changes when another connection has changed the file; cheap to ask for.
    pub(super) fn version(&mut self) -> Result<i64> {
        self.check_identity()?;
        self.connection
            .query_row("PRAGMA data_version", [], |row| row.get(0))
            .map_err(|error| explain(&self.path, &error))
    }

    /// What happened below `root` after `after`.
    pub(super) fn changes(&mut self, root: &str, after: Revision) -> Result<Changes> {
        self.with(TransactionBehavior::Deferred, |transaction, _| {
            let newest = newest(transaction)?;
            let oldest: Option<i64> =
                transaction.query_row("SELECT min(revision) FROM changes", [], |row| row.get(0))?;
            // Every revision has a row, so a gap is one that was dropped. A revision from the
            // future was another file's.
            let gap = oldest.is_some_and(|oldest| oldest > after.0 + 1) && newest > after.0;
            if gap || newest < after.0 {
                return Ok(Ok(Changes::Forgotten));
            }
            let mut select = transaction.prepare_cached(
                "SELECT key, value, created, revision, lease FROM changes
                 WHERE revision > ?1 AND key >= ?2 AND key < ?3 ORDER BY revision, key",
            )?;
            let events = select
                .query_map(params![after.0, root, end_of(root)], |row| event(root, row))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Ok(Changes::Since(events, Revision(newest))))
        })
    }

    fn write<T>(
        &mut self,
        call: impl FnOnce(&Transaction<'_>, &lease::Now) -> rusqlite::Result<Result<T>>,
    ) -> Result<T> {
        self.with(TransactionBehavior::Immediate, call)
    }

    /// One transaction: kept if `call` succeeds, else undone. The time is read once the locks are
    /// ours: before that, a wait for them would make it a time of the past.
    fn with<T>(
        &mut self,
        behavior: TransactionBehavior,
        call: impl FnOnce(&Transaction<'_>, &lease::Now) -> rusqlite::Result<Result<T>>,
    ) -> Result<T> {
        self.check_identity()?;
        let explain = |error| explain(&self.path, &error);
        let transaction = self.connection.transaction_with_behavior(behavior).map_err(explain)?;
        let answer = call(&transaction, &self.clock.now()).map_err(explain)??;
        transaction.commit().map_err(explain)?;
        Ok(answer)
    }

    /// A file that was removed or replaced under us lives on as long as we hold it open. Going on
    /// with it while others open the new one would make two coordinators, hence two leaders.
    fn check_identity(&self) -> Result<()> {
        if identity(&self.path)? == self.identity {
            return Ok(());
        }
        Err(CoordinatorError::Unreachable(format!(
            "{} was replaced by another file: restart to use that one",
            self.path.display()
        )))
    }
}

fn connect(path: &Path, patience: Duration, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(patience)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn identity(path: &Path) -> Result<(u64, u64)> {
    fs::metadata(path)
        .map(|file| (file.dev(), file.ino()))
        .map_err(|error| CoordinatorError::Unreachable(format!("{}: {error}", path.display())))
}

/// The first text that is past everything that begins with `root`, which ends with `/`.
fn end_of(root: &str) -> String {
    format!("{}0", root.trim_end_matches('/'))
}

fn newest(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    transaction.query_row("SELECT ifnull(max(revision), 0) FROM changes", [], |row| row.get(0))
}

fn holds(transaction: &Transaction<'_>, root: &str, compare: &Compare) -> rusqlite::Result<bool> {
    let (Compare::Absent(key) | Compare::Value(key, _) | Compare::Modified(key, _)) = compare;
    let found: Option<(Vec<u8>, i64)> = transaction
        .prepare_cached("SELECT value, modified FROM entries WHERE key = ?1")?
        .query_row([format!("{root}{key}")], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match (compare, found) {
        (Compare::Absent(_), found) => found.is_none(),
        (_, None) => false,
        (Compare::Value(_, wanted), Some((value, _))) => *wanted == value,
        (Compare::Modified(_, wanted), Some((_, modified))) => wanted.0 == modified,
    })
}

fn put(
    transaction: &Transaction<'_>,
    key: &str,
    value: &[u8],
    lease: Option<LeaseId>,
    revision: i64,
) -> rusqlite::Result<()> {
    let lease = lease.map(|lease| lease.0);
    let created: i64 = transaction
        .prepare_cached(
            "INSERT INTO entries VALUES (?1, ?2, ?3, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET value = ?2, modified = ?3, lease = ?4
             RETURNING created",
        )?
        .query_row(params![key, value, revision, lease], |row| row.get(0))?;
    transaction
        .prepare_cached("INSERT INTO changes VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![revision, key, value, created, lease])?;
    Ok(())
}

fn delete(transaction: &Transaction<'_>, key: &str, revision: i64) -> rusqlite::Result<()> {
    let deleted =
        transaction.prepare_cached("DELETE FROM entries WHERE key = ?1")?.execute([key])?;
    if deleted > 0 {
        transaction
            .prepare_cached("INSERT INTO changes VALUES (?1, ?2, NULL, 0, NULL)")?
            .execute(params![revision, key])?;
    }
    Ok(())
}

fn end_lease(transaction: &Transaction<'_>, lease: LeaseId) -> rusqlite::Result<()> {
    let revision = newest(transaction)? + 1;
    let keys: Vec<String> = transaction
        .prepare_cached("SELECT key FROM entries WHERE lease = ?1")?
        .query_map([lease.0], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for key in keys {
        delete(transaction, &key, revision)?;
    }
    lease::remove(transaction, lease)
}

fn forget(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let last = newest(transaction)? - REVISIONS_KEPT;
    transaction.prepare_cached("DELETE FROM changes WHERE revision <= ?1")?.execute([last])?;
    Ok(())
}

fn entry(root: &str, row: &Row<'_>) -> rusqlite::Result<Entry> {
    let key: String = row.get(0)?;
    Ok(Entry {
        key: key[root.len()..].to_owned(),
        value: row.get(1)?,
        created: Revision(row.get(2)?),
        modified: Revision(row.get(3)?),
        lease: row.get::<_, Option<i64>>(4)?.map(LeaseId),
    })
}

fn event(root: &str, row: &Row<'_>) -> rusqlite::Result<Event> {
    if row.get::<_, Option<Vec<u8>>>(1)?.is_some() {
        return Ok(Event::Put(entry(root, row)?));
    }
    let key: String = row.get(0)?;
    Ok(Event::Deleted(key[root.len()..].to_owned(), Revision(row.get(3)?)))
}

fn busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn explain(path: &Path, error: &rusqlite::Error) -> CoordinatorError {
    let text = format!("{}: {error}", path.display());
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => CoordinatorError::Denied(text),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            CoordinatorError::Invalid(text)
        }
        _ => CoordinatorError::Unreachable(text),
    }
}
