//! A directory tree as values, to hold one against another.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Everything below one directory, the directory itself included (as the empty path).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree(BTreeMap<PathBuf, Node>);

#[derive(Clone, PartialEq, Eq)]
struct Node {
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u64,
    size: u64,
    mtime: (i64, i64),
    xattrs: BTreeMap<OsString, Vec<u8>>,
    content: Content,
}

#[derive(Clone, PartialEq, Eq)]
enum Content {
    File(Vec<u8>),
    Symlink(PathBuf),
    Directory,
    Other,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, sum) = match &self.content {
            Content::File(bytes) => ("file", checksum(bytes)),
            Content::Symlink(target) => ("symlink", checksum(target.as_os_str().as_bytes())),
            Content::Directory => ("directory", 0),
            Content::Other => ("other", 0),
        };
        write!(
            f,
            "{kind} mode {:o} owner {}:{} links {} size {} mtime {:?} xattrs {:?} content {sum:x}",
            self.mode, self.uid, self.gid, self.nlink, self.size, self.mtime, self.xattrs
        )
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The extended attributes that users may set.
fn xattrs(path: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..])?;
    names.truncate(length);
    let mut found = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let name = OsStr::from_bytes(name);
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(length);
        found.insert(name.to_owned(), value);
    }
    Ok(found)
}

impl Tree {
    /// Reads everything below `root`.
    ///
    /// # Errors
    /// What the file system said.
    pub fn read(root: &Path) -> io::Result<Tree> {
        let mut nodes = BTreeMap::new();
        let mut open = vec![PathBuf::new()];
        while let Some(path) = open.pop() {
            let full = root.join(&path);
            let metadata = fs::symlink_metadata(&full)?;
            let kind = metadata.file_type();
            let content = if kind.is_dir() {
                for entry in fs::read_dir(&full)? {
                    open.push(path.join(entry?.file_name()));
                }
                Content::Directory
            } else if kind.is_symlink() {
                Content::Symlink(fs::read_link(&full)?)
            } else if kind.is_fifo() || kind.is_socket() {
                Content::Other
            } else {
                Content::File(fs::read(&full)?)
            };
            let is_directory = content == Content::Directory;
            nodes.insert(
                path,
                Node {
                    mode: metadata.mode(),
                    uid: metadata.uid(),
                    gid: metadata.gid(),
                    // How a file system counts a directory's links and bytes is its own affair.
                    nlink: if is_directory { 0 } else { metadata.nlink() },
                    size: if is_directory { 0 } else { metadata.size() },
                    mtime: (metadata.mtime(), metadata.mtime_nsec()),
                    xattrs: xattrs(&full)?,
                    content,
                },
            );
        }
        Ok(Tree(nodes))
    }

    /// The same tree without times, to hold it against one that was made at another moment.
    #[must_use]
    pub fn without_times(mut self) -> Tree {
        for node in self.0.values_mut() {
            node.mtime = (0, 0);
        }
        self
    }

    /// The first path at which two trees differ, with what each holds there.
    #[must_use]
    pub fn difference(&self, other: &Tree) -> Option<String> {
        let paths = self.0.keys().chain(other.0.keys());
        let path = paths.filter(|path| self.0.get(*path) != other.0.get(*path)).min()?;
        let (here, there) = (self.0.get(path), other.0.get(path));
        Some(format!("{}: {here:?} against {there:?}", path.display()))
    }

    /// How many files there are, the root counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing, not even a root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether some file of this name is there.
    #[must_use]
    pub fn has(&self, name: &OsStr) -> bool {
        self.0.keys().any(|path| path.file_name() == Some(name))
    }
}
