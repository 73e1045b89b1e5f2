//! Extended attributes.

use rustix::io::Errno;

use super::{NAME_BYTES_MAX, Plan, Tree};
use crate::op::{Attributes, Change, Time};
use crate::position::FileId;

/// Longest value, in bytes, and longest list of names: the kernel's own bounds.
pub const VALUE_BYTES_MAX: usize = 65_536;

/// Which of `setxattr(2)`'s flags was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Set it, whether or not it exists.
    Set,
    /// `XATTR_CREATE`: it must not exist.
    Create,
    /// `XATTR_REPLACE`: it must exist.
    Replace,
}

/// Whether such a name can be kept here at all. ACLs cannot: the kernel would have to ask for
/// them at each access, and would not find them enforced.
///
/// # Errors
/// `EOPNOTSUPP`, `ERANGE` for a name that is too long or empty, `EINVAL` for a bare namespace.
pub fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Errno::RANGE);
    }
    let spaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    match spaces.iter().find_map(|space| name.strip_prefix(*space)) {
        None => Err(Errno::OPNOTSUPP),
        Some(b"") => Err(Errno::INVAL),
        Some(_) => Ok(()),
    }
}

/// Sets `id`'s attribute `name`.
///
/// # Errors
/// `EEXIST`, `ENODATA`, `E2BIG`, `ENOSPC` for too many names, `ESTALE`, those of [`check_name`].
pub fn set(
    tree: &Tree,
    id: FileId,
    (name, value): (&[u8], &[u8]),
    mode: Mode,
    now: Time,
) -> Result<Plan, Errno> {
    let row = tree.attributes(id).ok_or(Errno::STALE)?;
    check_name(name)?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(Errno::TOOBIG);
    }
    match (mode, tree.xattr(id, name).is_some()) {
        (Mode::Create, true) => return Err(Errno::EXIST),
        (Mode::Replace, false) => return Err(Errno::NODATA),
        (_, true) => {}
        // A list that listxattr(2) could not give would hide every one of them.
        (_, false) if names_length(tree, id) + name.len() + 1 > VALUE_BYTES_MAX => {
            return Err(Errno::NOSPC);
        }
        (_, false) => {}
    }
    Ok(outcome(id, row, name, Some(value), now))
}

/// Removes `id`'s attribute `name`.
///
/// # Errors
/// `ENODATA`, `ESTALE`, those of [`check_name`].
pub fn remove(tree: &Tree, id: FileId, name: &[u8], now: Time) -> Result<Plan, Errno> {
    let row = tree.attributes(id).ok_or(Errno::STALE)?;
    check_name(name)?;
    if tree.xattr(id, name).is_none() {
        return Err(Errno::NODATA);
    }
    Ok(outcome(id, row, name, None, now))
}

fn names_length(tree: &Tree, id: FileId) -> usize {
    tree.xattr_names(id).map(|name| name.len() + 1).sum()
}

fn outcome(id: FileId, row: &Attributes, name: &[u8], value: Option<&[u8]>, now: Time) -> Plan {
    let attributes = Attributes { ctime: now, ..row.clone() };
    let xattr = Change::Xattr { id, name: name.to_vec(), value: value.map(<[u8]>::to_vec) };
    Plan { changes: vec![xattr, Change::Node { id, attributes }] }
}
