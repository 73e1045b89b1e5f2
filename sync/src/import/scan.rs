//! Reads a tree of plain files as a namespace.
//!
//! Called by import, and to copy a tree out of quarantine. Symlinks are never followed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::export::tree::TreeError;
use crate::image::Image;
use crate::op::{Attributes, Kind, Time};
use crate::position::{Epoch, FileId};

/// The epoch whose ids imported files have: as if a first leader had created them.
pub(crate) const IMPORT_EPOCH: Epoch = Epoch(1);

/// A tree as it was found.
pub(crate) struct Scanned {
    /// All of it, with ids of [`IMPORT_EPOCH`].
    pub image: Image,
    /// One name of each file.
    pub paths: HashMap<FileId, PathBuf>,
    /// What each looked like, to find out whether it changed meanwhile.
    pub stamps: HashMap<FileId, Stamp>,
}

/// What changes when a file does. `ctime` cannot be set back by anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            mtime: (found.mtime(), found.mtime_nsec()),
            ctime: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// Reads `root` and everything below it.
pub(crate) fn scan(root: &Path) -> Result<Scanned, TreeError> {
    let mut scanned =
        Scanned { image: Image::default(), paths: HashMap::new(), stamps: HashMap::new() };
    let found = fs::symlink_metadata(root).map_err(TreeError::on("read", root))?;
    if !found.is_dir() {
        return Err(TreeError::on("read", root)(io::ErrorKind::NotADirectory.into()));
    }
    scanned.add(FileId::ROOT, root, &found)?;
    let mut ids: HashMap<(u64, u64), FileId> = HashMap::new();
    let mut left = vec![(FileId::ROOT, root.to_owned())];
    while let Some((parent, directory)) = left.pop() {
        for (name, path) in names_in(&directory)? {
            let found = fs::symlink_metadata(&path).map_err(TreeError::on("read", &path))?;
            let key = (found.dev(), found.ino());
            let known = ids.get(&key).copied().filter(|_| !found.is_dir());
            let id = match known {
                Some(id) => id,
                None => {
                    let id = FileId::new(IMPORT_EPOCH, ids.len() as u64 + 1);
                    ids.insert(key, id);
                    scanned.add(id, &path, &found)?;
                    id
                }
            };
            scanned.image.entries.push((parent, name, id));
            if found.is_dir() {
                left.push((id, path));
            }
        }
    }
    scanned.count_links();
    Ok(scanned)
}

/// Sorted, so that one tree is always read in one order.
fn names_in(directory: &Path) -> Result<Vec<(Vec<u8>, PathBuf)>, TreeError> {
    let failed = |cause| TreeError::on("read", directory)(cause);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        names.push((entry.file_name().into_vec(), entry.path()));
    }
    names.sort();
    Ok(names)
}

impl Scanned {
    fn add(&mut self, id: FileId, path: &Path, found: &Metadata) -> Result<(), TreeError> {
        let attributes = attributes(path, found)?;
        let is_symlink = matches!(attributes.kind, Kind::Symlink(_));
        self.image.nodes.push((id, attributes));
        self.paths.insert(id, path.to_owned());
        self.stamps.insert(id, Stamp::of(found));
        for (name, value) in xattrs(path, is_symlink)? {
            self.image.xattrs.push((id, name, value));
        }
        Ok(())
    }

    /// Names outside of the tree do not count, nor what a file system says of directories.
    fn count_links(&mut self) {
        let mut links: HashMap<FileId, u32> = HashMap::new();
        let directories: std::collections::HashSet<FileId> = self
            .image
            .nodes
            .iter()
            .filter(|(_, of)| of.kind == Kind::Directory)
            .map(|(id, _)| *id)
            .collect();
        for (parent, _, child) in &self.image.entries {
            if directories.contains(child) {
                *links.entry(*parent).or_default() += 1;
            } else {
                *links.entry(*child).or_default() += 1;
            }
        }
        for (id, of) in &mut self.image.nodes {
            let own = if directories.contains(id) { 2 } else { 0 };
            of.nlink = own + links.get(id).copied().unwrap_or(0);
        }
    }

    /// The first file that is not as it was found, or is new, if any.
    pub(crate) fn changed(&self, root: &Path) -> Result<Option<PathBuf>, TreeError> {
        for (id, path) in &self.paths {
            let found = match fs::symlink_metadata(path) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                    return Ok(Some(path.clone()));
                }
                found => found.map_err(TreeError::on("read", path))?,
            };
            if self.stamps.get(id) != Some(&Stamp::of(&found)) {
                return Ok(Some(path.clone()));
            }
        }
        // A new name moves its directory's times, which were looked at above.
        debug_assert!(self.paths.contains_key(&FileId::ROOT), "{} was scanned", root.display());
        Ok(None)
    }
}

fn attributes(path: &Path, found: &Metadata) -> Result<Attributes, TreeError> {
    let of = found.file_type();
    let kind = if of.is_file() {
        Kind::File
    } else if of.is_dir() {
        Kind::Directory
    } else if of.is_symlink() {
        let to = fs::read_link(path).map_err(TreeError::on("read", path))?;
        Kind::Symlink(to.into_os_string().into_vec())
    } else if of.is_fifo() {
        Kind::Fifo
    } else if of.is_socket() {
        Kind::Socket
    } else {
        let device = io::Error::new(io::ErrorKind::Unsupported, "a volume holds no devices");
        return Err(TreeError::on("take in", path)(device));
    };
    let size = match kind {
        Kind::File | Kind::Symlink(_) => found.size(),
        _ => 0,
    };
    let time = |seconds: i64, nanos: i64| Time { seconds, nanos: nanos as u32 };
    Ok(Attributes {
        kind,
        mode: (found.mode() & 0o7777) as u16,
        uid: found.uid(),
        gid: found.gid(),
        nlink: 1,
        size,
        atime: time(found.atime(), found.atime_nsec()),
        mtime: time(found.mtime(), found.mtime_nsec()),
        ctime: time(found.ctime(), found.ctime_nsec()),
    })
}

/// A name and its value.
type Xattr = (Vec<u8>, Vec<u8>);

fn xattrs(path: &Path, is_symlink: bool) -> Result<Vec<Xattr>, TreeError> {
    let failed = |errno: Errno| TreeError::on("read attributes of", path)(errno.into());
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(failed(errno)),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // A security module's label is this machine's business, and user attributes of a symlink
        // do not exist.
        if name == b"security.selinux" || is_symlink {
            continue;
        }
        let mut value = vec![0_u8; 64 * 1024];
        let name_given = OsStr::from_bytes(name);
        let length = rustix::fs::lgetxattr(path, name_given, &mut value[..]).map_err(failed)?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    Ok(found)
}
