//! chmod, chown, truncate, utimens: one request can ask for all of them.

use rustix::io::Errno;

use super::{Caller, FILE_BYTES_MAX, Plan, Tree};
use crate::op::{Attributes, Change, Kind, Time};
use crate::position::FileId;

/// Held by programs that may do more than who runs them; any write voids it, as it voids setuid.
const CAPABILITY: &[u8] = b"security.capability";

/// What is asked for; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of content.
    pub mtime: Option<Time>,
}

/// Sets what is `wanted` of `id`.
///
/// # Errors
/// `ESTALE`, `EFBIG`, and `EISDIR` or `EINVAL` for the size of something that is no file.
pub fn set(
    tree: &Tree,
    id: FileId,
    wanted: &Wanted,
    caller: Caller,
    now: Time,
) -> Result<Plan, Errno> {
    let mut row = tree.attributes(id).ok_or(Errno::STALE)?.clone();
    let mut changes = Vec::new();
    if let Some(size) = wanted.size {
        match row.kind {
            Kind::File => {}
            Kind::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
        check_size(size)?;
        row.size = size;
        row.mtime = now;
        changes.extend(stripped(tree, id, &mut row, caller.keeps_set_id()));
    }
    if wanted.uid.is_some() || wanted.gid.is_some() {
        row.uid = wanted.uid.unwrap_or(row.uid);
        row.gid = wanted.gid.unwrap_or(row.gid);
        if row.kind != Kind::Directory {
            // A change of owner voids the bits whoever makes it, also root.
            changes.extend(stripped(tree, id, &mut row, false));
        }
    }
    if let Some(mode) = wanted.mode {
        row.mode = mode & 0o7777;
    }
    row.atime = wanted.atime.unwrap_or(row.atime);
    row.mtime = wanted.mtime.unwrap_or(row.mtime);
    row.ctime = now;
    changes.push(Change::Node { id, attributes: row });
    Ok(Plan { changes })
}

/// Clears what a change of content or owner voids: setuid, setgid of something its group may
/// execute (without that the bit means something else), and file capabilities.
pub(super) fn stripped(
    tree: &Tree,
    id: FileId,
    row: &mut Attributes,
    keeps_set_id: bool,
) -> Option<Change> {
    if !keeps_set_id {
        row.mode &= !0o4000;
        if row.mode & 0o010 != 0 {
            row.mode &= !0o2000;
        }
    }
    let had = tree.xattr(id, CAPABILITY).is_some();
    had.then(|| Change::Xattr { id, name: CAPABILITY.to_vec(), value: None })
}

/// `Ok` where a file may be that long.
pub(super) fn check_size(size: u64) -> Result<(), Errno> {
    if size > FILE_BYTES_MAX { Err(Errno::FBIG) } else { Ok(()) }
}
