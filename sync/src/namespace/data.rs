//! Bytes: writes, and what `fallocate(2)` does.

use rustix::io::Errno;

use super::attributes::{check_size, stripped};
use super::{Plan, Tree};
use crate::op::{Attributes, Change, Kind, Time};
use crate::position::FileId;

/// A range of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

impl Range {
    fn end(&self) -> Result<u64, Errno> {
        let end = self.offset.checked_add(self.length).ok_or(Errno::FBIG)?;
        check_size(end)?;
        Ok(end)
    }
}

/// The ways of `fallocate(2)` that there are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Reserve the range, and grow the file to its end unless `keep_size`.
    Reserve {
        /// `FALLOC_FL_KEEP_SIZE`.
        keep_size: bool,
    },
    /// The range reads as zeros and takes no space (`FALLOC_FL_PUNCH_HOLE`).
    Punch,
    /// The range reads as zeros (`FALLOC_FL_ZERO_RANGE`).
    Zero {
        /// `FALLOC_FL_KEEP_SIZE`.
        keep_size: bool,
    },
}

/// Writes `range` (its bytes are the record's payload). `strip` says to void setuid and setgid:
/// the kernel knows whether the writer may keep them.
///
/// # Errors
/// `ESTALE`, `EISDIR`, `EINVAL` for what is no file, `EFBIG`.
pub fn write(tree: &Tree, id: FileId, range: Range, strip: bool, now: Time) -> Result<Plan, Errno> {
    let mut row = file(tree, id)?;
    let length = u32::try_from(range.length).map_err(|_| Errno::INVAL)?;
    let end = range.end()?;
    if length == 0 {
        return Ok(Plan::default());
    }
    let mut changes = vec![Change::Write { id, offset: range.offset, length }];
    changes.extend(stripped(tree, id, &mut row, !strip));
    row.size = row.size.max(end);
    changes.push(changed(id, row, now));
    Ok(Plan { changes })
}

/// Does what `how` says with `range`.
///
/// # Errors
/// `ESTALE`, `EINVAL` for an empty range, `ENODEV` for what is no file, `EFBIG`.
pub fn allocate(
    tree: &Tree,
    id: FileId,
    range: Range,
    how: Allocate,
    strip: bool,
    now: Time,
) -> Result<Plan, Errno> {
    let mut row = file(tree, id).map_err(|errno| match errno {
        Errno::STALE => errno,
        _ => Errno::NODEV,
    })?;
    if range.length == 0 {
        return Err(Errno::INVAL);
    }
    let Range { offset, length } = range;
    let (end, keep_size) = match how {
        // What lies past the end is a hole already, so the range is cut to the file: it may reach
        // to where no object can.
        Allocate::Punch => (0, true),
        Allocate::Reserve { keep_size } | Allocate::Zero { keep_size } => (range.end()?, keep_size),
    };
    let mut changes = match how {
        Allocate::Reserve { .. } => vec![Change::Reserve { id, offset, length }],
        Allocate::Zero { .. } => vec![Change::Zero { id, offset, length }],
        Allocate::Punch => match row.size.saturating_sub(offset).min(length) {
            0 => Vec::new(),
            length => vec![Change::Zero { id, offset, length }],
        },
    };
    changes.extend(stripped(tree, id, &mut row, !strip));
    if !keep_size {
        row.size = row.size.max(end);
    }
    changes.push(changed(id, row, now));
    Ok(Plan { changes })
}

fn file(tree: &Tree, id: FileId) -> Result<Attributes, Errno> {
    let row = tree.attributes(id).ok_or(Errno::STALE)?;
    match row.kind {
        Kind::File => Ok(row.clone()),
        Kind::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::INVAL),
    }
}

fn changed(id: FileId, mut row: Attributes, now: Time) -> Change {
    row.mtime = now;
    row.ctime = now;
    Change::Node { id, attributes: row }
}
