//! The tree that each case begins with, and what is left of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

/// Of every kind that a name can be.
pub const PATHS: [&str; 27] = [
    "file",
    "hard",
    "empty",
    "full",
    "full/in",
    "link",
    "dangling",
    "loop",
    "loop/x",
    "dirlink",
    "dirlink/x",
    "fifo",
    "socket",
    "missing",
    "missing/x",
    "file/x",
    "file/",
    "empty/",
    "missing/",
    "private/in",
    "sticky/roots",
    "sticky/strangers",
    "readonly",
    "suid",
    "open",
    "full/in/..",
    LONG,
];

/// Those of which every pair is asked.
pub const PAIRED: [&str; 17] = [
    "file",
    "hard",
    "empty",
    "full",
    "full/in",
    "link",
    "dangling",
    "dirlink",
    "fifo",
    "missing",
    "missing/x",
    "file/",
    "empty/",
    "missing/",
    "private/in",
    "sticky/roots",
    "sticky/strangers",
];

/// One byte longer than a name may be.
const LONG: &str = concat!(
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
);

/// Makes the tree below `root`, in the place of whatever is there.
pub fn lay(root: &Path) {
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => fs::remove_dir_all(entry.path()).unwrap(),
            false => fs::remove_file(entry.path()).unwrap(),
        }
    }
    let at = |name: &str| root.join(name);
    let file = |name: &str, mode: u32, owner: u32| {
        fs::write(at(name), format!("content of {name}")).unwrap();
        chown(at(name), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let directory = |name: &str, mode: u32| {
        fs::create_dir(at(name)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let stranger = super::STRANGER;
    file("file", 0o644, 0);
    rustix::fs::setxattr(at("file"), "user.a", b"1", XattrFlags::empty()).unwrap();
    fs::hard_link(at("file"), at("hard")).unwrap();
    directory("empty", 0o777);
    directory("full", 0o755);
    file("full/in", 0o644, 0);
    symlink("file", at("link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink("empty", at("dirlink")).unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from(0o644), 0).unwrap();
    rustix::fs::mknodat(CWD, at("socket"), FileType::Socket, Mode::from(0o644), 0).unwrap();
    directory("private", 0o700);
    file("private/in", 0o644, 0);
    directory("sticky", 0o1777);
    file("sticky/roots", 0o666, 0);
    file("sticky/strangers", 0o644, stranger);
    file("readonly", 0o444, stranger);
    file("suid", 0o6777, stranger);
    file("open", 0o666, 0);
}

/// Everything of one name that must be equal.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    kind: char,
    mode: u32,
    owner: (u32, u32),
    nlink: u64,
    /// Of a directory it is the file system's business.
    size: u64,
    content: Vec<u8>,
    /// In no order that anybody promises.
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn xattr(path: &Path, name: &[u8]) -> Vec<u8> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}

pub fn seen(root: &Path) -> BTreeMap<String, Seen> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let of = fs::symlink_metadata(&path).unwrap();
        let kind = of.file_type();
        let (letter, content) = match () {
            () if kind.is_dir() => {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                ('d', Vec::new())
            }
            () if kind.is_file() => ('f', fs::read(&path).unwrap()),
            () if kind.is_symlink() => {
                ('l', fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
            }
            () if kind.is_fifo() => ('p', Vec::new()),
            () if kind.is_socket() => ('s', Vec::new()),
            () => ('?', Vec::new()),
        };
        let mut xattrs = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut xattrs[..]).unwrap();
        let names = xattrs[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let xattrs = names.map(|name| (name.to_vec(), xattr(&path, name))).collect();
        let seen = Seen {
            kind: letter,
            mode: of.mode(),
            owner: (of.uid(), of.gid()),
            nlink: of.nlink(),
            size: if of.is_dir() { 0 } else { of.len() },
            content,
            xattrs,
        };
        all.insert(name, seen);
    }
    all
}
