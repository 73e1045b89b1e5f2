//! What a record or a row must be before it may touch our files.
//!
//! Pure. A follower's input comes over the network from a peer that holds the cluster's secret,
//! which is no reason to let it name files outside the objects or offsets past what a file has.

use super::rows::Row;
use crate::op::{Attributes, Change, Kind, Record};

/// The largest size and offset that `off_t` has.
const OFFSET_MAX: u64 = i64::MAX as u64;

/// Says what is wrong with a record, if anything.
///
/// # Errors
/// What no leader writes.
pub fn record(record: &Record) -> Result<(), String> {
    let called_for = record.head.payload_length();
    if called_for != record.payload.len() as u64 {
        let held = record.payload.len();
        return Err(format!("its changes call for {called_for} bytes and it brings {held}"));
    }
    for (at, of) in record.head.changes.iter().enumerate() {
        if matches!(of, Change::EpochStart { .. }) && at != 0 {
            return Err("an epoch starts in the middle of it".into());
        }
        change(of)?;
    }
    Ok(())
}

/// Says what is wrong with a row, if anything.
///
/// # Errors
/// What no leader's index holds.
pub fn row(row: &Row) -> Result<(), String> {
    match row {
        Row::Node { attributes: of, .. } => attributes(of),
        Row::Entry { name, .. } => entry_name(name),
        Row::Xattr { name, .. } => xattr_name(name),
        Row::Chunk { index, .. } => range(index.saturating_mul(super::CHUNK_BYTES), 0),
        Row::Gone { .. } => Ok(()),
    }
}

fn change(change: &Change) -> Result<(), String> {
    match change {
        Change::Node { attributes: of, .. } => attributes(of),
        Change::Entry { name, .. } => entry_name(name),
        Change::Xattr { name, .. } => xattr_name(name),
        Change::Write { offset, length, .. } => range(*offset, u64::from(*length)),
        // A hole may be asked for to the end of everything; the object bounds it.
        Change::Zero { offset, .. } => range(*offset, 0),
        Change::Reserve { offset, length, .. } => range(*offset, *length),
        Change::Gone { .. } | Change::EpochStart { .. } => Ok(()),
    }
}

fn attributes(of: &Attributes) -> Result<(), String> {
    if of.size > OFFSET_MAX {
        return Err(format!("a size of {} bytes", of.size));
    }
    if of.mode > 0o7777 {
        return Err(format!("a mode of {:o}", of.mode));
    }
    if [of.atime, of.mtime, of.ctime].iter().any(|time| time.nanos >= 1_000_000_000) {
        return Err("a time with more than a second of nanoseconds".into());
    }
    match &of.kind {
        Kind::Symlink(target) if target.is_empty() || target.contains(&0) => {
            Err("a symlink to nothing that a path can name".into())
        }
        _ => Ok(()),
    }
}

fn entry_name(name: &[u8]) -> Result<(), String> {
    let component = !name.is_empty()
        && name.len() <= 255
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0);
    let shown = String::from_utf8_lossy(name);
    if component { Ok(()) } else { Err(format!("{shown:?} is no file name")) }
}

fn xattr_name(name: &[u8]) -> Result<(), String> {
    let sound = !name.is_empty() && name.len() <= 255 && !name.contains(&0);
    let shown = String::from_utf8_lossy(name);
    if sound { Ok(()) } else { Err(format!("{shown:?} is no attribute name")) }
}

fn range(offset: u64, length: u64) -> Result<(), String> {
    match offset.checked_add(length) {
        Some(end) if end <= OFFSET_MAX => Ok(()),
        _ => Err(format!("{length} bytes at {offset}, past where files end")),
    }
}
