//! Names and files that go.

use rustix::io::Errno;

use super::make::entry;
use super::{Place, Plan, Tree};
use crate::op::{Change, Kind, Time};
use crate::position::FileId;

/// Removes the name `place` of something that is no directory. `open` says whether somebody has
/// the file open: then it stays, without a name, until [`release`].
///
/// # Errors
/// `ENOENT`, `EISDIR`, `ENAMETOOLONG`, `ESTALE`.
pub fn unlink(
    tree: &Tree,
    place: &Place<'_>,
    open: impl Fn(FileId) -> bool,
    now: Time,
) -> Result<Plan, Errno> {
    let (id, kind) = named(tree, place)?;
    if kind == Kind::Directory {
        return Err(Errno::ISDIR);
    }
    let changes = vec![
        entry(place, None),
        tree.unnamed(id, open(id), now)?,
        tree.touched(place.parent, 0, now)?,
    ];
    Ok(Plan { changes })
}

/// Removes the empty directory `place`.
///
/// # Errors
/// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `ENAMETOOLONG`, `ESTALE`.
pub fn rmdir(
    tree: &Tree,
    place: &Place<'_>,
    open: impl Fn(FileId) -> bool,
    now: Time,
) -> Result<Plan, Errno> {
    let (id, kind) = named(tree, place)?;
    if kind != Kind::Directory {
        return Err(Errno::NOTDIR);
    }
    if !tree.is_childless(id) {
        return Err(Errno::NOTEMPTY);
    }
    let changes = vec![
        entry(place, None),
        tree.unnamed(id, open(id), now)?,
        tree.touched(place.parent, -1, now)?,
    ];
    Ok(Plan { changes })
}

/// The last holder of `id` closed it: without a name it is gone now.
#[must_use]
pub fn release(tree: &Tree, id: FileId) -> Plan {
    match tree.attributes(id) {
        Some(attributes) if attributes.nlink == 0 => Plan { changes: vec![Change::Gone { id }] },
        _ => Plan::default(),
    }
}

fn named(tree: &Tree, place: &Place<'_>) -> Result<(FileId, Kind), Errno> {
    place.check()?;
    tree.check_directory(place.parent)?;
    let id = tree.child(place.parent, place.name).ok_or(Errno::NOENT)?;
    let kind = tree.attributes(id).ok_or(Errno::STALE)?.kind.clone();
    Ok((id, kind))
}
