//! Names that move.

use rustix::io::Errno;

use super::make::entry;
use super::{Place, Plan, Tree};
use crate::op::{Attributes, Change, Kind, Time};
use crate::position::FileId;

/// Which of `renameat2(2)`'s flags was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whatever `to` named is replaced.
    Replace,
    /// `RENAME_NOREPLACE`: `to` must not exist.
    Keep,
    /// `RENAME_EXCHANGE`: both exist and change places.
    Exchange,
}

/// Moves what `from` names to `to`. `open` says of a file whether somebody has it open, for the
/// one that `to` named before.
///
/// # Errors
/// `ENOENT`, `EEXIST`, `EISDIR`, `ENOTDIR`, `ENOTEMPTY`, `EINVAL` for a directory into itself,
/// `ENAMETOOLONG`, `ESTALE`.
pub fn rename(
    tree: &Tree,
    from: &Place<'_>,
    to: &Place<'_>,
    mode: Mode,
    open: impl Fn(FileId) -> bool,
    now: Time,
) -> Result<Plan, Errno> {
    from.check()?;
    to.check()?;
    tree.check_directory(from.parent)?;
    tree.check_directory(to.parent)?;
    let moved = tree.child(from.parent, from.name).ok_or(Errno::NOENT)?;
    let target = tree.child(to.parent, to.name);
    match (mode, target) {
        (Mode::Keep, Some(_)) => return Err(Errno::EXIST),
        (Mode::Exchange, None) => return Err(Errno::NOENT),
        _ => {}
    }
    // Two names of one file: POSIX has rename do nothing, and keep both.
    if target == Some(moved) {
        return Ok(Plan::default());
    }
    check_loop(tree, moved, to.parent)?;
    match (mode, target) {
        (Mode::Exchange, Some(target)) => exchange(tree, from, to, (moved, target), now),
        _ => replace(tree, from, to, (moved, target), open, now),
    }
}

fn exchange(
    tree: &Tree,
    from: &Place<'_>,
    to: &Place<'_>,
    (moved, target): (FileId, FileId),
    now: Time,
) -> Result<Plan, Errno> {
    check_loop(tree, target, from.parent)?;
    let (first, second) = (attributes(tree, moved)?, attributes(tree, target)?);
    let gained = i32::from(is_directory(first)) - i32::from(is_directory(second));
    let mut changes = vec![
        entry(from, Some(target)),
        entry(to, Some(moved)),
        renamed(moved, first, now),
        renamed(target, second, now),
    ];
    changes.extend(parents(tree, from, to, (-gained, gained), now)?);
    Ok(Plan { changes })
}

fn replace(
    tree: &Tree,
    from: &Place<'_>,
    to: &Place<'_>,
    (moved, target): (FileId, Option<FileId>),
    open: impl Fn(FileId) -> bool,
    now: Time,
) -> Result<Plan, Errno> {
    let row = attributes(tree, moved)?;
    let directory = is_directory(row);
    let mut changes = vec![entry(from, None), entry(to, Some(moved)), renamed(moved, row, now)];
    let mut gained = i32::from(directory);
    if let Some(target) = target {
        match (directory, is_directory(attributes(tree, target)?)) {
            (true, false) => return Err(Errno::NOTDIR),
            (false, true) => return Err(Errno::ISDIR),
            (true, true) if !tree.is_childless(target) => return Err(Errno::NOTEMPTY),
            (true, true) => gained -= 1,
            (false, false) => {}
        }
        changes.push(tree.unnamed(target, open(target), now)?);
    }
    changes.extend(parents(tree, from, to, (-i32::from(directory), gained), now)?);
    Ok(Plan { changes })
}

/// The rows of the one or two directories, whose subdirectories change by `subdirs`.
fn parents(
    tree: &Tree,
    from: &Place<'_>,
    to: &Place<'_>,
    subdirs: (i32, i32),
    now: Time,
) -> Result<Vec<Change>, Errno> {
    if from.parent == to.parent {
        return Ok(vec![tree.touched(from.parent, subdirs.0 + subdirs.1, now)?]);
    }
    Ok(vec![tree.touched(from.parent, subdirs.0, now)?, tree.touched(to.parent, subdirs.1, now)?])
}

/// A directory may not come to lie within itself: nothing would reach it any more.
fn check_loop(tree: &Tree, moved: FileId, parent: FileId) -> Result<(), Errno> {
    let within = is_directory(attributes(tree, moved)?) && tree.is_within(parent, moved);
    if within { Err(Errno::INVAL) } else { Ok(()) }
}

fn renamed(id: FileId, row: &Attributes, now: Time) -> Change {
    Change::Node { id, attributes: Attributes { ctime: now, ..row.clone() } }
}

fn attributes(tree: &Tree, id: FileId) -> Result<&Attributes, Errno> {
    tree.attributes(id).ok_or(Errno::STALE)
}

fn is_directory(row: &Attributes) -> bool {
    row.kind == Kind::Directory
}
