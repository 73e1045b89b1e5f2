//! Random operations, and how to run one in a directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::StdRng;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};

/// Times that operations set lie before this (2001); those of the clock after it.
pub const TIMES_END: i64 = 1_000_000_000;

/// How many files one side has open at once.
const OPEN_MAX: usize = 8;

/// Contents stay below this.
const BYTES_MAX: u64 = 300_000;

#[derive(Clone, Debug)]
pub enum Op {
    Create {
        path: String,
        mode: u32,
        exclusive: bool,
    },
    Mkdir {
        path: String,
        mode: u32,
    },
    Fifo {
        path: String,
    },
    Symlink {
        path: String,
        target: String,
    },
    Link {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    Rmdir {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        flags: RenameFlags,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    Chown {
        path: String,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    Times {
        path: String,
        seconds: i64,
        nanos: i64,
    },
    Truncate {
        path: String,
        size: u64,
    },
    Write {
        path: String,
        offset: u64,
        fill: u8,
        length: usize,
    },
    Append {
        path: String,
        fill: u8,
        length: usize,
    },
    Read {
        path: String,
        offset: u64,
        length: usize,
    },
    Allocate {
        path: String,
        flags: FallocateFlags,
        offset: u64,
        length: u64,
    },
    Copy {
        from: String,
        to: String,
        offset: u64,
        length: usize,
    },
    SetXattr {
        path: String,
        name: String,
        value: Vec<u8>,
        flags: XattrFlags,
    },
    RemoveXattr {
        path: String,
        name: String,
    },
    List {
        path: String,
    },
    Stat {
        path: String,
    },
    /// Opens a file and keeps it so.
    Hold {
        path: String,
    },
    /// Writes to, reads from or closes one that is kept open, whatever became of its names.
    HeldWrite {
        index: usize,
        offset: u64,
        fill: u8,
        length: usize,
    },
    HeldRead {
        index: usize,
        offset: u64,
        length: usize,
    },
    HeldTruncate {
        index: usize,
        size: u64,
    },
    HeldSync {
        index: usize,
    },
    LetGo {
        index: usize,
    },
}

/// What an operation told: bytes or numbers, or the errno.
pub type Outcome = Result<Vec<u8>, i32>;

/// Names that are mostly directories and names that are mostly not, each now and then the other:
/// without that most paths would lead nowhere.
fn path_to(random: &mut StdRng, directory: bool) -> String {
    let depth = [1, 1, 2, 2, 2, 3][random.random_range(0..6)];
    let directory_name = |random: &mut StdRng| ["d", "e"][random.random_range(0..2)];
    let file_name = |random: &mut StdRng| ["a", "b", "c", "é f"][random.random_range(0..4)];
    let mut names: Vec<_> = (1..depth).map(|_| directory_name(random)).collect();
    let expected = random.random_ratio(5, 6);
    let last = if directory == expected { directory_name(random) } else { file_name(random) };
    names.push(last);
    names.join("/")
}

fn path(random: &mut StdRng) -> String {
    path_to(random, false)
}

fn mode(random: &mut StdRng) -> u32 {
    let special = [0, 0, 0, 0o4000, 0o2000, 0o1000, 0o6000][random.random_range(0..7)];
    special | random.random_range(0..0o1000)
}

impl Op {
    pub fn random(random: &mut StdRng) -> Op {
        let at = path(random);
        let offset = random.random_range(0..BYTES_MAX / 2);
        let length = random.random_range(0..20_000);
        let fill = random.random();
        let index = random.random_range(0..OPEN_MAX);
        match random.random_range(0..100) {
            0..10 => Op::Create { path: at, mode: mode(random), exclusive: random.random() },
            10..18 => Op::Mkdir { path: path_to(random, true), mode: mode(random) },
            18..19 => Op::Fifo { path: at },
            19..22 => Op::Symlink { path: at, target: path(random) },
            22..26 => Op::Link { from: at, to: path(random) },
            26..29 => Op::Unlink { path: at },
            29..31 => Op::Create { path: at, mode: mode(random), exclusive: true },
            31..34 => Op::Rmdir { path: path_to(random, true) },
            34..41 => {
                let directory = random.random_ratio(1, 3);
                let (from, to) = (path_to(random, directory), path_to(random, directory));
                Op::Rename { from, to, flags: rename_flags(random) }
            }
            41..43 => Op::Chmod { path: at, mode: mode(random) },
            43..46 => {
                let mut owner = || random.random::<bool>().then(|| random.random_range(0..3));
                let (uid, gid) = (owner(), owner());
                Op::Chown { path: at, uid, gid: gid.or(uid.is_none().then_some(7)) }
            }
            46..49 => {
                let seconds = random.random_range(-TIMES_END..TIMES_END);
                Op::Times { path: at, seconds, nanos: random.random_range(0..1_000_000_000) }
            }
            49..53 => Op::Truncate { path: at, size: random.random_range(0..BYTES_MAX) },
            53..62 => Op::Write { path: at, offset, fill, length },
            62..65 => Op::Append { path: at, fill, length: length % 500 },
            65..70 => Op::Read { path: at, offset, length },
            70..74 => {
                let length = random.random_range(1..60_000);
                Op::Allocate { path: at, flags: allocate_flags(random), offset, length }
            }
            74..76 => Op::Copy { from: at, to: path(random), offset, length },
            76..79 => {
                let name = xattr_name(random);
                let value = (0..random.random_range(0..60)).map(|_| random.random()).collect();
                let all = [XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE];
                let flags = all[random.random_range(0..all.len())];
                Op::SetXattr { path: at, name, value, flags }
            }
            79..80 => Op::RemoveXattr { path: at, name: xattr_name(random) },
            80..83 => Op::List { path: path_to(random, true) },
            83..87 => Op::Stat { path: at },
            87..90 => Op::Hold { path: at },
            90..93 => Op::HeldWrite { index, offset, fill, length },
            93..95 => Op::HeldRead { index, offset, length },
            95..96 => Op::HeldTruncate { index, size: offset },
            96..98 => Op::HeldSync { index },
            _ => Op::LetGo { index },
        }
    }
}

fn rename_flags(random: &mut StdRng) -> RenameFlags {
    match random.random_range(0..6) {
        0 => RenameFlags::NOREPLACE,
        1 => RenameFlags::EXCHANGE,
        _ => RenameFlags::empty(),
    }
}

fn allocate_flags(random: &mut StdRng) -> FallocateFlags {
    let keep = FallocateFlags::KEEP_SIZE;
    let (punch, zero) = (FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE);
    let all = [FallocateFlags::empty(), keep, punch | keep, punch, zero, zero | keep];
    all[random.random_range(0..all.len())]
}

fn xattr_name(random: &mut StdRng) -> String {
    format!("user.{}", ["x", "y", "z"][random.random_range(0..3)])
}

/// One directory in which operations run.
pub struct Side {
    root: PathBuf,
    held: Vec<File>,
}

impl Side {
    pub fn new(root: &Path) -> Side {
        Side { root: root.to_owned(), held: Vec::new() }
    }

    pub fn run(&mut self, op: &Op) -> Outcome {
        self.attempt(op).map_err(|error| error.raw_os_error().unwrap_or(-1))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn open(&self, path: &str) -> io::Result<File> {
        // A fifo without a peer would block.
        let flags = libc::O_NONBLOCK;
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(self.at(path))
    }

    fn attempt(&mut self, op: &Op) -> io::Result<Vec<u8>> {
        let nothing = Ok(Vec::new());
        match op {
            Op::Create { path, mode, exclusive } => {
                let mut options = OpenOptions::new();
                options.write(true).mode(*mode).custom_flags(libc::O_NONBLOCK);
                options.create(true).create_new(*exclusive).open(self.at(path))?;
            }
            Op::Mkdir { path, mode } => rustix::fs::mkdir(self.at(path), Mode::from(*mode))?,
            Op::Fifo { path } => {
                let mode = Mode::from(0o640);
                rustix::fs::mknodat(CWD, self.at(path), FileType::Fifo, mode, 0)?;
            }
            Op::Symlink { path, target } => rustix::fs::symlink(target, self.at(path))?,
            Op::Link { from, to } => rustix::fs::link(self.at(from), self.at(to))?,
            Op::Unlink { path } => rustix::fs::unlink(self.at(path))?,
            Op::Rmdir { path } => rustix::fs::rmdir(self.at(path))?,
            Op::Rename { from, to, flags } => {
                rustix::fs::renameat_with(CWD, self.at(from), CWD, self.at(to), *flags)?;
            }
            Op::Chmod { path, mode } => {
                fs::set_permissions(self.at(path), fs::Permissions::from_mode(*mode))?;
            }
            Op::Chown { path, uid, gid } => {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                rustix::fs::chownat(CWD, self.at(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Op::Times { path, seconds, nanos } => {
                let time = Timespec { tv_sec: *seconds, tv_nsec: *nanos };
                let times = Timestamps { last_access: time, last_modification: time };
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::utimensat(CWD, self.at(path), &times, flags)?;
            }
            Op::Truncate { path, size } => {
                // ftruncate of a fifo and truncate of one differ; both are errors.
                self.open(path)?.set_len(*size)?;
            }
            Op::Write { path, offset, fill, length } => {
                self.open(path)?.write_all_at(&pattern(*fill, *length), *offset)?;
            }
            Op::Append { path, fill, length } => {
                let mut options = OpenOptions::new();
                options.append(true).custom_flags(libc::O_NONBLOCK);
                options.open(self.at(path))?.write_all(&pattern(*fill, *length))?;
            }
            Op::Read { path, offset, length } => {
                return read(&self.open(path)?, *offset, *length);
            }
            Op::Allocate { path, flags, offset, length } => {
                rustix::fs::fallocate(self.open(path)?, *flags, *offset, *length)?;
            }
            Op::Copy { from, to, offset, length } => return self.copy(from, to, *offset, *length),
            Op::SetXattr { path, name, value, flags } => {
                rustix::fs::lsetxattr(self.at(path), name.as_str(), value, *flags)?;
            }
            Op::RemoveXattr { path, name } => {
                rustix::fs::lremovexattr(self.at(path), name.as_str())?;
            }
            Op::List { path } => return list(&self.at(path)),
            Op::Stat { path } => {
                let seen = fs::symlink_metadata(self.at(path))?;
                let size = if seen.is_dir() { 0 } else { seen.len() };
                return Ok(format!("{:o} {} {size}", seen.mode(), seen.nlink()).into());
            }
            Op::Hold { path } => {
                let file = self.open(path)?;
                if self.held.len() < OPEN_MAX && file.metadata()?.is_file() {
                    self.held.push(file);
                }
            }
            Op::LetGo { index } => {
                if *index < self.held.len() {
                    self.held.remove(*index);
                }
            }
            Op::HeldWrite { .. }
            | Op::HeldRead { .. }
            | Op::HeldTruncate { .. }
            | Op::HeldSync { .. } => return self.attempt_held(op),
        }
        nothing
    }

    fn attempt_held(&self, op: &Op) -> io::Result<Vec<u8>> {
        let (Op::HeldWrite { index, .. }
        | Op::HeldRead { index, .. }
        | Op::HeldTruncate { index, .. }
        | Op::HeldSync { index }) = op
        else {
            return Ok(Vec::new());
        };
        let Some(file) = self.held.get(*index) else { return Ok(Vec::new()) };
        match op {
            Op::HeldWrite { offset, fill, length, .. } => {
                file.write_all_at(&pattern(*fill, *length), *offset)?;
            }
            Op::HeldRead { offset, length, .. } => return read(file, *offset, *length),
            Op::HeldTruncate { size, .. } => file.set_len(*size)?,
            _ => {}
        }
        let seen = file.metadata()?;
        Ok(format!("{} {} {:o}", seen.len(), seen.nlink(), seen.mode()).into())
    }

    fn copy(&self, from: &str, to: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let (from, to) = (self.open(from)?, self.open(to)?);
        let (mut start, mut target) = (offset / 2, offset);
        let mut left = length;
        let mut copied = 0;
        while left > 0 {
            let (source, sink) = (from.as_fd(), to.as_fd());
            let (start, target) = (Some(&mut start), Some(&mut target));
            match rustix::fs::copy_file_range(source, start, sink, target, left)? {
                0 => break,
                more => (left, copied) = (left - more, copied + more),
            }
        }
        Ok(copied.to_string().into())
    }
}

/// Bytes that tell where they belong.
fn pattern(fill: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| fill.wrapping_add((at % 251) as u8)).collect()
}

/// Reads as if nothing were cached: else it would be the kernel that remembers, not the mount.
fn read(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut bytes = vec![0; length];
    let got = file.read_at(&mut bytes, offset)?;
    bytes.truncate(got);
    Ok(bytes)
}

fn list(path: &Path) -> io::Result<Vec<u8>> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok(format!("{:?} {:?}", entry.file_name(), entry.file_type()?))
    };
    let mut names = fs::read_dir(path)?.map(entry).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names.join("\n").into())
}
