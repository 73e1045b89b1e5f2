//! Writes a namespace as plain files.
//!
//! Called by export, and by quarantine. The target's directories are all of our own making, and
//! every name was checked to be one path component, so no path leads out of the target.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::image::Image;
use crate::op::{Attributes, Kind, Time};
use crate::position::FileId;
use crate::store::objects::ObjectFiles;

/// Why plain files could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {cause}{}", path.display(), hint(cause))]
pub struct TreeError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub cause: io::Error,
}

fn hint(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there, or choose another target"
        }
        io::ErrorKind::PermissionDenied => "; owners can only be kept by root",
        _ => "",
    }
}

impl TreeError {
    /// For `map_err`: what was being done to which path.
    pub(crate) fn on(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TreeError {
        let path = path.to_owned();
        move |cause| TreeError { action, path, cause }
    }
}

/// Where the bytes of regular files come from.
pub(crate) enum Content<'a> {
    /// Objects, copied (sharing blocks where the file system can).
    Copied(&'a ObjectFiles),
    /// Objects, which get a second name: nothing may write to them any more.
    Linked(&'a ObjectFiles),
    /// Plain files elsewhere, copied.
    Files(&'a HashMap<FileId, PathBuf>),
}

/// Writes `image` into `target`, an empty directory, which becomes the root directory. Durable
/// when it returns; after an error the target is empty again.
pub(crate) fn write(image: &Image, content: &Content<'_>, target: &Path) -> Result<(), TreeError> {
    write_telling(image, content, target, &mut |_, _| ())
}

/// As [`write`], and tells after each file how many bytes are written, and of how many.
pub(crate) fn write_telling(
    image: &Image,
    content: &Content<'_>,
    target: &Path,
    told: Told<'_>,
) -> Result<(), TreeError> {
    let total = bytes_of(image);
    let mut done = 0;
    let mut each = |bytes| {
        done += bytes;
        told(done, total);
    };
    let written = Tree::new(image, content, target).write(&mut each);
    if written.is_err()
        && let Err(error) = clear(target)
    {
        tracing::warn!("{} is left half written: {error}", target.display());
    }
    written
}

/// Told how many bytes of files are done, and of how many.
pub type Told<'a> = &'a mut dyn FnMut(u64, u64);

/// What its files have together.
pub(crate) fn bytes_of(image: &Image) -> u64 {
    let files = image.nodes.iter().filter(|(_, of)| of.kind == Kind::File);
    files.map(|(_, of)| of.size).sum()
}

/// The extended attributes of each file, by full name.
type Xattrs<'a> = HashMap<FileId, Vec<(&'a [u8], &'a [u8])>>;

struct Tree<'a> {
    content: &'a Content<'a>,
    target: &'a Path,
    nodes: HashMap<FileId, &'a Attributes>,
    children: HashMap<FileId, Vec<(&'a [u8], FileId)>>,
    xattrs: Xattrs<'a>,
    /// The first name of each file, to which its other names are links.
    placed: HashMap<FileId, PathBuf>,
}

impl<'a> Tree<'a> {
    fn new(image: &'a Image, content: &'a Content<'a>, target: &'a Path) -> Tree<'a> {
        let mut children: HashMap<FileId, Vec<(&[u8], FileId)>> = HashMap::new();
        for (parent, name, child) in &image.entries {
            children.entry(*parent).or_default().push((name, *child));
        }
        let mut xattrs: Xattrs<'a> = HashMap::new();
        for (id, name, value) in &image.xattrs {
            xattrs.entry(*id).or_default().push((name, value));
        }
        let nodes = image.nodes.iter().map(|(id, of)| (*id, of)).collect();
        Tree { content, target, nodes, children, xattrs, placed: HashMap::new() }
    }

    fn write(mut self, each: &mut dyn FnMut(u64)) -> Result<(), TreeError> {
        // Directories get their own attributes last, children before parents: until then we must
        // be able to write into them, and writing moves their times.
        let mut directories = vec![(FileId::ROOT, self.target.to_owned())];
        let mut seen = HashSet::from([FileId::ROOT]);
        let mut next = 0;
        while let Some((parent, path)) = directories.get(next).cloned() {
            for (name, child) in self.children.remove(&parent).unwrap_or_default() {
                let place = path.join(OsStr::from_bytes(name));
                if self.is_directory(child) {
                    if !seen.insert(child) {
                        let twice = io::Error::other("the directory has two names");
                        return Err(TreeError::on("create", &place)(twice));
                    }
                    fs::create_dir(&place).map_err(TreeError::on("create", &place))?;
                    directories.push((child, place));
                } else {
                    self.place(child, &place)?;
                    each(self.nodes.get(&child).map_or(0, |of| of.size));
                }
            }
            next += 1;
        }
        for (id, path) in directories.iter().rev() {
            self.set_attributes(*id, path)?;
        }
        let root = File::open(self.target).map_err(TreeError::on("open", self.target))?;
        let synced = rustix::fs::syncfs(&root).map_err(io::Error::from);
        synced.map_err(TreeError::on("sync", self.target))
    }

    fn is_directory(&self, id: FileId) -> bool {
        self.nodes.get(&id).is_some_and(|of| of.kind == Kind::Directory)
    }

    fn place(&mut self, id: FileId, place: &Path) -> Result<(), TreeError> {
        if let Some(first) = self.placed.get(&id) {
            return fs::hard_link(first, place).map_err(TreeError::on("link", place));
        }
        let Some(of) = self.nodes.get(&id) else {
            return Err(TreeError::on("create", place)(io::ErrorKind::NotFound.into()));
        };
        let mode = Mode::from_raw_mode(0o600);
        let made =
            match &of.kind {
                Kind::File => self.content.place(id, of.size, place),
                Kind::Symlink(to) => symlink(OsStr::from_bytes(to), place),
                Kind::Fifo => rustix::fs::mknodat(CWD, place, FileType::Fifo, mode, 0)
                    .map_err(io::Error::from),
                Kind::Socket => rustix::fs::mknodat(CWD, place, FileType::Socket, mode, 0)
                    .map_err(io::Error::from),
                Kind::Directory => Err(io::ErrorKind::IsADirectory.into()),
            };
        made.map_err(TreeError::on("write", place))?;
        self.set_attributes(id, place)?;
        self.placed.insert(id, place.to_owned());
        Ok(())
    }

    /// The order matters: a change of owner clears setuid and capabilities, a read-only mode
    /// forbids attributes to all but root, and everything moves times.
    fn set_attributes(&self, id: FileId, path: &Path) -> Result<(), TreeError> {
        let Some(of) = self.nodes.get(&id) else { return Ok(()) };
        let ours = fs::symlink_metadata(path).map_err(TreeError::on("stat", path))?;
        if (std::os::unix::fs::MetadataExt::uid(&ours), std::os::unix::fs::MetadataExt::gid(&ours))
            != (of.uid, of.gid)
        {
            lchown(path, Some(of.uid), Some(of.gid)).map_err(TreeError::on("chown", path))?;
        }
        for (name, value) in self.xattrs.get(&id).into_iter().flatten() {
            rustix::fs::lsetxattr(path, *name, value, XattrFlags::empty())
                .map_err(|errno| TreeError::on("set an attribute of", path)(errno.into()))?;
        }
        if !matches!(of.kind, Kind::Symlink(_)) {
            let mode = Permissions::from_mode(u32::from(of.mode));
            fs::set_permissions(path, mode).map_err(TreeError::on("chmod", path))?;
        }
        let times =
            Timestamps { last_access: timespec(of.atime), last_modification: timespec(of.mtime) };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| TreeError::on("set times of", path)(errno.into()))
    }
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) as _ }
}

impl Content<'_> {
    fn place(&self, id: FileId, size: u64, place: &Path) -> io::Result<()> {
        match self {
            Content::Copied(objects) => copy(&objects.path(id), size, place),
            Content::Linked(objects) => match fs::hard_link(objects.path(id), place) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound && size == 0 => {
                    copy(&objects.path(id), size, place)
                }
                linked => linked,
            },
            Content::Files(paths) => match paths.get(&id) {
                Some(path) => copy(path, size, place),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        }
    }
}

/// A new file at `to` with the bytes and holes of `from`, which may be missing if it is empty.
fn copy(from: &Path, size: u64, to: &Path) -> io::Result<()> {
    let copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let source = match File::open(from) {
        Ok(source) => source,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && size == 0 => return Ok(()),
        Err(cause) => return Err(cause),
    };
    if rustix::fs::ioctl_ficlone(&copy, &source).is_err() {
        copy_data(&source, &copy, size)?;
    }
    copy.set_len(size)
}

fn copy_data(source: &File, copy: &File, size: u64) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let from = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(from) => from,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let hole = rustix::fs::seek(source, SeekFrom::Hole(from))?;
        copy_range(source, copy, from, hole.min(size))?;
        at = hole.max(at + 1);
    }
    Ok(())
}

fn copy_range(source: &File, copy: &File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    let mut buffer = Vec::new();
    while at < to {
        let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(1 << 30);
        let (mut read_at, mut write_at) = (at, at);
        match rustix::fs::copy_file_range(
            source,
            Some(&mut read_at),
            copy,
            Some(&mut write_at),
            wanted,
        ) {
            Ok(0) => break,
            Ok(copied) => at += copied as u64,
            Err(Errno::INTR) => {}
            // Not between these two: through memory, then.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                buffer.resize(1 << 20, 0);
                let read = source.read_at(&mut buffer[..wanted.min(1 << 20)], at)?;
                if read == 0 {
                    break;
                }
                copy.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Removes everything in a directory, and not the directory.
fn clear(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if fs::symlink_metadata(&path)?.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
