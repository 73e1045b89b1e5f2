//! The volume's tree as the mount sees it, and what each operation would do to it.
//!
//! Pure: no clock, no files, no FUSE. The capture holds one [`Tree`] under one lock; for each
//! request it asks a function of this module for a [`Plan`], records the plan's changes, and
//! applies the same changes here. A plan never alters the tree by itself, so a record that was
//! refused has changed nothing.
//!
//! The kernel has already checked permissions, sticky bits and the read-only flag
//! (`default_permissions`). Everything that it leaves to a file system is checked here again,
//! also where the kernel's own caches make it unlikely to arise.

pub mod attributes;
pub mod data;
pub mod make;
pub mod remove;
pub mod rename;
#[cfg(test)]
mod tests;
mod tree;
pub mod xattr;

use rustix::io::Errno;

use crate::op::{Change, Kind, Time};
use crate::position::FileId;

pub use tree::{Listed, Tree, TreeError};

/// Longest name of a directory entry or an extended attribute, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest target of a symbolic link, in bytes (`PATH_MAX` less the closing zero).
pub const TARGET_BYTES_MAX: usize = 4095;

/// Most names of one file, as ext4 has it. Directories are not bounded by it.
pub const LINKS_MAX: u32 = 65_000;

/// Largest size of a file: what ext4 with 4 KiB blocks takes. The objects lie on such file
/// systems, and an op must never be accepted that a follower's disk cannot represent.
pub const FILE_BYTES_MAX: u64 = (1 << 44) - 4096;

/// What an operation comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Outcomes in order. Empty: nothing changes, and nothing is to be recorded.
    pub changes: Vec<Change>,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The directory.
    pub parent: FileId,
    /// One path component.
    pub name: &'a [u8],
}

impl Place<'_> {
    /// `Ok` where `name` can be one component of a path.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, `EINVAL`.
    pub fn check(&self) -> Result<(), Errno> {
        if self.name.len() > NAME_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let odd = self.name.is_empty() || self.name == b"." || self.name == b"..";
        if odd || self.name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(Errno::INVAL);
        }
        Ok(())
    }
}

/// Who asks, as far as it matters beyond the kernel's own checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective (file system) user.
    pub uid: u32,
    /// Effective (file system) group.
    pub gid: u32,
}

impl Caller {
    /// Whether the caller keeps setuid and setgid bits on what it writes. The kernel asks for
    /// `CAP_FSETID`, which a request does not carry; being root stands for it.
    #[must_use]
    pub fn keeps_set_id(&self) -> bool {
        self.uid == 0
    }
}

impl Tree {
    /// The directory `parent` may take or lose entries: it is one and has not been removed.
    fn check_directory(&self, parent: FileId) -> Result<(), Errno> {
        let attributes = self.attributes(parent).ok_or(Errno::STALE)?;
        if attributes.kind != Kind::Directory {
            return Err(Errno::NOTDIR);
        }
        // Removed but still open: nothing can be created in it any more.
        if attributes.nlink == 0 { Err(Errno::NOENT) } else { Ok(()) }
    }

    /// `parent`'s row after its entries changed at `now` and its subdirectories by `subdirs`.
    fn touched(&self, parent: FileId, subdirs: i32, now: Time) -> Result<Change, Errno> {
        let mut attributes = self.attributes(parent).ok_or(Errno::STALE)?.clone();
        attributes.mtime = now;
        attributes.ctime = now;
        attributes.nlink = attributes.nlink.checked_add_signed(subdirs).ok_or(Errno::MLINK)?;
        Ok(Change::Node { id: parent, attributes })
    }

    /// What becomes of `id` when it loses a name at `now`: a name less, or nothing at all, or,
    /// while somebody has it open, a file without a name.
    fn unnamed(&self, id: FileId, open: bool, now: Time) -> Result<Change, Errno> {
        let mut attributes = self.attributes(id).ok_or(Errno::STALE)?.clone();
        attributes.nlink = match attributes.kind {
            Kind::Directory => 0,
            _ => attributes.nlink.saturating_sub(1),
        };
        if attributes.nlink == 0 && !open {
            return Ok(Change::Gone { id });
        }
        attributes.ctime = now;
        Ok(Change::Node { id, attributes })
    }
}
