//! The system calls, and what of their outcome a program can see.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec,
    Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// What a program sees: something of the answer, or the error's code.
pub type Outcome = Result<String, i32>;

/// A call on one name, or on two.
pub struct Case<T: 'static> {
    pub name: &'static str,
    pub call: T,
}

type One = fn(&Path) -> Outcome;
type Two = fn((&Path, &Path)) -> Outcome;

fn done(outcome: Result<(), Errno>) -> Outcome {
    outcome.map(|()| String::new()).map_err(Errno::raw_os_error)
}

fn said<T: std::fmt::Debug>(outcome: Result<T, Errno>) -> Outcome {
    outcome.map(|of| format!("{of:?}")).map_err(Errno::raw_os_error)
}

fn stat_of(of: &rustix::fs::Stat) -> String {
    let directory = FileType::from_raw_mode(of.st_mode) == FileType::Directory;
    let size = if directory { 0 } else { of.st_size };
    format!("{:o} {} {} {} {size}", of.st_mode, of.st_nlink, of.st_uid, of.st_gid)
}

/// Opens and says what became of it, so that no descriptor keeps the mount busy. A fifo without a
/// peer would block.
fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::from(0o640))
}

fn opened(path: &Path, flags: OFlags) -> Outcome {
    let file = open(path, flags).map_err(Errno::raw_os_error)?;
    rustix::fs::fstat(&file).map(|of| stat_of(&of)).map_err(Errno::raw_os_error)
}

/// Opens for writing and does something there.
fn with(path: &Path, flags: OFlags, work: impl FnOnce(&OwnedFd) -> Result<(), Errno>) -> Outcome {
    done(open(path, flags).and_then(|file| work(&file)))
}

fn times(seconds: i64, nanos: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    Timestamps { last_access: time, last_modification: time }
}

fn stamped(path: &Path, stamps: &Timestamps) -> Outcome {
    rustix::fs::utimensat(CWD, path, stamps, AtFlags::empty()).map_err(Errno::raw_os_error)?;
    let of = rustix::fs::statat(CWD, path, AtFlags::empty()).map_err(Errno::raw_os_error)?;
    let fixed = of.st_mtime < 1_000_000_000;
    Ok(if fixed { format!("{} {}", of.st_mtime, of.st_mtime_nsec) } else { "now".to_owned() })
}

fn names(path: &Path) -> Outcome {
    let file = open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(Errno::raw_os_error)?;
    let mut names: Vec<String> = rustix::fs::Dir::read_from(&file)
        .map_err(Errno::raw_os_error)?
        .map(|entry| entry.map(|of| format!("{:?} {:?}", of.file_name(), of.file_type())))
        .collect::<Result<_, _>>()
        .map_err(Errno::raw_os_error)?;
    names.sort();
    Ok(names.join(" "))
}

fn make(path: &Path, kind: FileType, device: u64) -> Outcome {
    done(rustix::fs::mknodat(CWD, path, kind, Mode::from(0o600), device))
}

fn owned(path: &Path, uid: Option<u32>, gid: Option<u32>, flags: AtFlags) -> Outcome {
    done(rustix::fs::chownat(CWD, path, uid.map(Uid::from_raw), gid.map(Gid::from_raw), flags))
}

fn moded(path: &Path, mode: u32) -> Outcome {
    done(rustix::fs::chmodat(CWD, path, Mode::from(mode), AtFlags::empty()))
}

fn bytes(path: &Path) -> Outcome {
    let file = open(path, OFlags::RDONLY).map_err(Errno::raw_os_error)?;
    let mut into = [0; 64];
    let length = rustix::io::read(&file, &mut into[..]).map_err(Errno::raw_os_error)?;
    Ok(String::from_utf8_lossy(&into[..length]).into_owned())
}

macro_rules! cases {
    ($($name:literal => $call:expr),* $(,)?) => { &[$(Case { name: $name, call: $call }),*] };
}

pub static ONE: &[Case<One>] = cases![
    "stat" => |at| rustix::fs::statat(CWD, at, AtFlags::empty())
        .map(|of| stat_of(&of)).map_err(Errno::raw_os_error),
    "lstat" => |at| rustix::fs::statat(CWD, at, AtFlags::SYMLINK_NOFOLLOW)
        .map(|of| stat_of(&of)).map_err(Errno::raw_os_error),
    "access r" => |at| done(rustix::fs::accessat(CWD, at, Access::READ_OK, AtFlags::EACCESS)),
    "access w" => |at| done(rustix::fs::accessat(CWD, at, Access::WRITE_OK, AtFlags::EACCESS)),
    "access x" => |at| done(rustix::fs::accessat(CWD, at, Access::EXEC_OK, AtFlags::EACCESS)),
    "readlink" => |at| said(rustix::fs::readlinkat(CWD, at, Vec::new())),
    "open O_RDONLY" => |at| opened(at, OFlags::RDONLY),
    "open O_WRONLY" => |at| opened(at, OFlags::WRONLY),
    "open O_RDWR" => |at| opened(at, OFlags::RDWR),
    "open O_CREAT" => |at| opened(at, OFlags::WRONLY | OFlags::CREATE),
    "open O_CREAT O_EXCL" => |at| opened(at, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL),
    "open O_CREAT O_NOFOLLOW" =>
        |at| opened(at, OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW),
    "open O_TRUNC" => |at| opened(at, OFlags::WRONLY | OFlags::TRUNC),
    "open O_RDONLY O_TRUNC" => |at| opened(at, OFlags::RDONLY | OFlags::TRUNC),
    "open O_APPEND" => |at| opened(at, OFlags::WRONLY | OFlags::APPEND),
    "open O_DIRECTORY" => |at| opened(at, OFlags::RDONLY | OFlags::DIRECTORY),
    "open O_NOFOLLOW" => |at| opened(at, OFlags::RDONLY | OFlags::NOFOLLOW),
    "open O_PATH" => |at| opened(at, OFlags::PATH),
    "open O_PATH O_NOFOLLOW" => |at| opened(at, OFlags::PATH | OFlags::NOFOLLOW),
    "open O_SYNC" => |at| opened(at, OFlags::WRONLY | OFlags::SYNC),
    "open O_NOATIME" => |at| opened(at, OFlags::RDONLY | OFlags::NOATIME),
    "open O_TMPFILE" => |at| opened(at, OFlags::WRONLY | OFlags::TMPFILE),
    "read" => bytes,
    "write" => |at| with(at, OFlags::WRONLY, |file| {
        rustix::io::write(file, b"W").map(drop)
    }),
    "append" => |at| with(at, OFlags::WRONLY | OFlags::APPEND, |file| {
        rustix::io::write(file, b"appended").map(drop)
    }),
    "ftruncate" => |at| with(at, OFlags::WRONLY, |file| rustix::fs::ftruncate(file, 3)),
    "ftruncate to more" => |at| with(at, OFlags::RDWR, |file| rustix::fs::ftruncate(file, 9_000)),
    "ftruncate to too much" =>
        |at| with(at, OFlags::RDWR, |file| rustix::fs::ftruncate(file, 1 << 63)),
    "ftruncate what is read" => |at| with(at, OFlags::RDONLY, |file| rustix::fs::ftruncate(file, 3)),
    "fallocate" => |at| with(at, OFlags::WRONLY, |file| {
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, 5_000)
    }),
    "fallocate nothing" => |at| with(at, OFlags::WRONLY, |file| {
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, 0)
    }),
    "fallocate a hole" => |at| with(at, OFlags::WRONLY, |file| {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(file, hole, 2, 4)
    }),
    "fsync" => |at| with(at, OFlags::RDONLY, |file| rustix::fs::fsync(file)),
    "fdatasync" => |at| with(at, OFlags::RDONLY, |file| rustix::fs::fdatasync(file)),
    "unlink" => |at| done(rustix::fs::unlinkat(CWD, at, AtFlags::empty())),
    "rmdir" => |at| done(rustix::fs::unlinkat(CWD, at, AtFlags::REMOVEDIR)),
    "mkdir" => |at| done(rustix::fs::mkdirat(CWD, at, Mode::from(0o1755))),
    "mknod file" => |at| make(at, FileType::RegularFile, 0),
    "mknod fifo" => |at| make(at, FileType::Fifo, 0),
    "mknod socket" => |at| make(at, FileType::Socket, 0),
    "mknod device" => |at| make(at, FileType::CharacterDevice, 0x103),
    "mknod directory" => |at| make(at, FileType::Directory, 0),
    "symlink" => |at| done(rustix::fs::symlinkat("some/where", CWD, at)),
    "symlink to nothing" => |at| done(rustix::fs::symlinkat("", CWD, at)),
    "chmod" => |at| moded(at, 0o600),
    "chmod of all bits" => |at| moded(at, 0o7777),
    "chown" => |at| owned(at, Some(1), Some(2), AtFlags::empty()),
    "chown of the group" => |at| owned(at, None, Some(2), AtFlags::empty()),
    "chown to oneself" => |at| owned(at, Some(65_534), Some(65_534), AtFlags::empty()),
    "chown of nothing" => |at| owned(at, None, None, AtFlags::empty()),
    "lchown" => |at| owned(at, Some(1), Some(2), AtFlags::SYMLINK_NOFOLLOW),
    "utimens" => |at| stamped(at, &times(123, 456)),
    "utimens now" => |at| stamped(at, &times(0, rustix::fs::UTIME_NOW)),
    "utimens omitted" => |at| stamped(at, &times(0, rustix::fs::UTIME_OMIT)),
    "utimens of no time" => |at| stamped(at, &times(0, 1_000_000_000)),
    "setxattr" => |at| done(rustix::fs::setxattr(at, "user.a", b"two", XattrFlags::empty())),
    "setxattr CREATE" => |at| done(rustix::fs::setxattr(at, "user.a", b"2", XattrFlags::CREATE)),
    "setxattr REPLACE" => |at| done(rustix::fs::setxattr(at, "user.a", b"2", XattrFlags::REPLACE)),
    "lsetxattr" => |at| done(rustix::fs::lsetxattr(at, "user.a", b"2", XattrFlags::empty())),
    "setxattr trusted" =>
        |at| done(rustix::fs::setxattr(at, "trusted.a", b"2", XattrFlags::empty())),
    "setxattr of no class" => |at| done(rustix::fs::setxattr(at, "a", b"2", XattrFlags::empty())),
    "setxattr of no name" => |at| done(rustix::fs::setxattr(at, "user.", b"2", XattrFlags::empty())),
    "getxattr" => |at| said(rustix::fs::getxattr(at, "user.a", &mut [0; 9][..])),
    "getxattr into nothing" => |at| said(rustix::fs::getxattr(at, "user.a", &mut [0; 0][..])),
    "lgetxattr" => |at| said(rustix::fs::lgetxattr(at, "user.a", &mut [0; 9][..])),
    "listxattr" => |at| said(rustix::fs::listxattr(at, &mut [0; 99][..])),
    "removexattr" => |at| done(rustix::fs::removexattr(at, "user.a")),
    "statfs" => |at| rustix::fs::statvfs(at)
        .map(|of| of.f_namemax.to_string()).map_err(Errno::raw_os_error),
    "readdir" => names,
    "link of a descriptor" => |at| {
        let file = open(at, OFlags::PATH | OFlags::NOFOLLOW).map_err(Errno::raw_os_error)?;
        let flags = AtFlags::EMPTY_PATH;
        done(rustix::fs::linkat(file.as_fd(), "", CWD, at.with_file_name("linked"), flags))
    },
];

fn renamed((from, to): (&Path, &Path), flags: RenameFlags) -> Outcome {
    done(rustix::fs::renameat_with(CWD, from, CWD, to, flags))
}

fn copied((from, to): (&Path, &Path)) -> Outcome {
    let source = open(from, OFlags::RDONLY).map_err(Errno::raw_os_error)?;
    let sink = open(to, OFlags::WRONLY).map_err(Errno::raw_os_error)?;
    let (mut start, mut target) = (2, 11);
    let ends = (Some(&mut start), Some(&mut target));
    said(rustix::fs::copy_file_range(&source, ends.0, &sink, ends.1, 7))
}

pub static TWO: &[Case<Two>] = cases![
    "rename" => |names| renamed(names, RenameFlags::empty()),
    "rename NOREPLACE" => |names| renamed(names, RenameFlags::NOREPLACE),
    "rename EXCHANGE" => |names| renamed(names, RenameFlags::EXCHANGE),
    "link" => |(from, to)| done(rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty())),
    "link of what it leads to" =>
        |(from, to)| done(rustix::fs::linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW)),
    "copy_file_range" => copied,
];
