//! Leases in the file: rows with an end on CLOCK_BOOTTIME, of one boot.

use std::fs;
use std::time::Duration;

use rusqlite::{OptionalExtension, Transaction, params};
use rustix::time::{ClockId, clock_gettime};

use crate::coordinator::{CoordinatorError, Grant, LeaseId, Result};

/// The kernel's name for the time from one boot to the next.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// This boot's clock.
pub(super) struct Clock {
    boot: String,
}

/// A moment, and the boot that it belongs to.
pub(super) struct Now<'a> {
    boot: &'a str,
    ms: i64,
}

impl Clock {
    pub(super) fn of_this_boot() -> Result<Clock> {
        let boot = fs::read_to_string(BOOT_ID).map_err(|error| {
            CoordinatorError::Invalid(format!(
                "cannot tell one boot from the next: {BOOT_ID}: {error}"
            ))
        })?;
        Ok(Clock { boot: boot.trim().to_owned() })
    }

    pub(super) fn now(&self) -> Now<'_> {
        let time = clock_gettime(ClockId::Boottime);
        Now { boot: &self.boot, ms: time.tv_sec * 1000 + time.tv_nsec / 1_000_000 }
    }
}

pub(super) fn grant(
    transaction: &Transaction<'_>,
    ttl: Duration,
    now: &Now<'_>,
) -> rusqlite::Result<Grant> {
    // Rounded up: a lease may be longer than was asked for, never shorter.
    let ms = i64::try_from(ttl.as_micros().div_ceil(1000)).unwrap_or(i64::MAX / 4).max(1);
    transaction
        .prepare_cached("INSERT INTO leases (ttl_ms, expires_ms, boot) VALUES (?1, ?2, ?3)")?
        // The clock was read up to a millisecond ago by rounding, hence one more.
        .execute(params![ms, now.ms.saturating_add(ms + 1), now.boot])?;
    Ok(Grant { id: LeaseId(transaction.last_insert_rowid()), ttl: milliseconds(ms) })
}

/// Whether the lease is not over.
pub(super) fn lives(
    transaction: &Transaction<'_>,
    lease: LeaseId,
    now: &Now<'_>,
) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached("SELECT 1 FROM leases WHERE id = ?1 AND boot = ?2 AND expires_ms > ?3")?
        .exists(params![lease.0, now.boot, now.ms])
}

/// Extends the lease from `now` by its ttl, which is returned; `None` if it is over.
pub(super) fn extend(
    transaction: &Transaction<'_>,
    lease: LeaseId,
    now: &Now<'_>,
) -> rusqlite::Result<Option<Duration>> {
    let ms: Option<i64> = transaction
        .prepare_cached(
            "UPDATE leases SET expires_ms = ?3 + ttl_ms + 1
             WHERE id = ?1 AND boot = ?2 AND expires_ms > ?3 RETURNING ttl_ms",
        )?
        .query_row(params![lease.0, now.boot, now.ms], |row| row.get(0))
        .optional()?;
    Ok(ms.map(milliseconds))
}

pub(super) fn remove(transaction: &Transaction<'_>, lease: LeaseId) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM leases WHERE id = ?1")?.execute([lease.0])?;
    Ok(())
}

/// The leases that are over and not removed yet.
pub(super) fn over(transaction: &Transaction<'_>, now: &Now<'_>) -> rusqlite::Result<Vec<LeaseId>> {
    transaction
        .prepare_cached("SELECT id FROM leases WHERE boot <> ?1 OR expires_ms <= ?2 ORDER BY id")?
        .query_map(params![now.boot, now.ms], |row| row.get(0).map(LeaseId))?
        .collect()
}

/// How long until some lease is over: zero if one is, `None` if there is no lease.
pub(super) fn next_end(
    transaction: &Transaction<'_>,
    now: &Now<'_>,
) -> rusqlite::Result<Option<Duration>> {
    let end: Option<i64> = transaction
        .prepare_cached("SELECT min(iif(boot = ?1, expires_ms, 0)) FROM leases")?
        .query_row([now.boot], |row| row.get(0))?;
    Ok(end.map(|end| milliseconds(end.saturating_sub(now.ms))))
}

/// Negative ones are over: zero.
fn milliseconds(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
