//! New names: files, directories, links.

use rustix::io::Errno;

use super::{Caller, LINKS_MAX, Place, Plan, TARGET_BYTES_MAX, Tree};
use crate::op::{Attributes, Change, Kind, Time};
use crate::position::FileId;

const SET_GID: u16 = 0o2000;

/// A file that is about to exist.
#[derive(Clone, Debug)]
pub struct New {
    /// An id that no file ever had.
    pub id: FileId,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, the umask already taken off.
    pub mode: u16,
    /// Whose it will be.
    pub owner: Caller,
}

/// Makes `new` at `place`. In a setgid directory it gets the directory's group, and a directory
/// the bit too.
///
/// # Errors
/// `EEXIST`, `ENAMETOOLONG`, `ENOENT`, `ENOTDIR`, `ESTALE`, `EINVAL`.
pub fn make(tree: &Tree, place: &Place<'_>, new: New, now: Time) -> Result<Plan, Errno> {
    place.check()?;
    tree.check_directory(place.parent)?;
    if tree.child(place.parent, place.name).is_some() {
        return Err(Errno::EXIST);
    }
    let size = match &new.kind {
        Kind::Symlink(target) if target.is_empty() => return Err(Errno::NOENT),
        Kind::Symlink(target) if target.len() > TARGET_BYTES_MAX => {
            return Err(Errno::NAMETOOLONG);
        }
        Kind::Symlink(target) => target.len() as u64,
        _ => 0,
    };
    let directory = new.kind == Kind::Directory;
    let mut attributes = Attributes {
        mode: if matches!(new.kind, Kind::Symlink(_)) { 0o777 } else { new.mode & 0o7777 },
        uid: new.owner.uid,
        gid: new.owner.gid,
        nlink: if directory { 2 } else { 1 },
        size,
        atime: now,
        mtime: now,
        ctime: now,
        kind: new.kind,
    };
    let parent = tree.attributes(place.parent).ok_or(Errno::STALE)?;
    if parent.mode & SET_GID != 0 {
        attributes.gid = parent.gid;
        if directory {
            attributes.mode |= SET_GID;
        }
    }
    let changes = vec![
        Change::Node { id: new.id, attributes },
        entry(place, Some(new.id)),
        tree.touched(place.parent, i32::from(directory), now)?,
    ];
    Ok(Plan { changes })
}

/// Gives the file `id` one more name.
///
/// # Errors
/// `EEXIST`, `EPERM` for a directory, `EMLINK`, `ENOENT` for a file without a name, and those of
/// [`make`].
pub fn link(tree: &Tree, id: FileId, place: &Place<'_>, now: Time) -> Result<Plan, Errno> {
    place.check()?;
    tree.check_directory(place.parent)?;
    let mut attributes = tree.attributes(id).ok_or(Errno::STALE)?.clone();
    if tree.child(place.parent, place.name).is_some() {
        return Err(Errno::EXIST);
    }
    if attributes.kind == Kind::Directory {
        return Err(Errno::PERM);
    }
    match attributes.nlink {
        // Its last holder may close it at any time; a name would then name nothing.
        0 => return Err(Errno::NOENT),
        LINKS_MAX.. => return Err(Errno::MLINK),
        _ => attributes.nlink += 1,
    }
    attributes.ctime = now;
    let changes = vec![
        Change::Node { id, attributes },
        entry(place, Some(id)),
        tree.touched(place.parent, 0, now)?,
    ];
    Ok(Plan { changes })
}

/// The outcome that `place` names `child`.
pub(super) fn entry(place: &Place<'_>, child: Option<FileId>) -> Change {
    Change::Entry { parent: place.parent, name: place.name.to_vec(), child }
}
