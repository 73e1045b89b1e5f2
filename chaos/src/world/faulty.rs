//! A layer below a node's disk that can fail and be slow: a FUSE file system of one file, on which
//! the disk's loop device stands. What the node's own file system asks of its disk passes here.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};

const ROOT: INodeNo = INodeNo(1);
const IMAGE: INodeNo = INodeNo(2);
const NAME: &str = "image";
const TTL: Duration = Duration::from_secs(3600);

/// What is wrong with a disk now.
#[derive(Debug, Default)]
pub struct Trouble {
    errors: AtomicBool,
    delay_ms: AtomicU64,
}

impl Trouble {
    /// Everything fails from now on, or nothing any more.
    pub fn fail(&self, errors: bool) {
        self.errors.store(errors, Ordering::Relaxed);
    }

    /// Every request takes so much longer from now on.
    pub fn slow_down(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.delay_ms.store(ms, Ordering::Relaxed);
    }

    /// What becomes of a request: it waits, and then may fail.
    fn meet(&self) -> std::io::Result<()> {
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            std::thread::sleep(Duration::from_millis(delay));
        }
        if self.errors.load(Ordering::Relaxed) {
            return Err(rustix::io::Errno::IO.into());
        }
        Ok(())
    }
}

/// A mounted layer; gone when dropped.
#[derive(Debug)]
pub struct Layer {
    point: PathBuf,
    trouble: Arc<Trouble>,
    _session: BackgroundSession,
}

impl Layer {
    /// Shows `file` below `point`, which is made.
    ///
    /// # Errors
    /// FUSE is not to be had.
    pub fn mount(file: &Path, point: &Path) -> Result<Layer> {
        std::fs::create_dir_all(point)?;
        let trouble = Arc::<Trouble>::default();
        let file = File::options().read(true).write(true).open(file)?;
        let disk = Disk { size: file.metadata()?.len(), file, trouble: Arc::clone(&trouble) };
        let session = fuser::spawn_mount(disk, point, &Config::default())
            .with_context(|| format!("mount a FUSE layer on {}", point.display()))?;
        Ok(Layer { point: point.to_owned(), trouble, _session: session })
    }

    /// The file as the layer shows it.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.point.join(NAME)
    }

    /// What can be made wrong.
    #[must_use]
    pub fn trouble(&self) -> &Trouble {
        &self.trouble
    }
}

#[derive(Debug)]
struct Disk {
    file: File,
    size: u64,
    trouble: Arc<Trouble>,
}

impl Disk {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let (kind, size) =
            if ino == ROOT { (FileType::Directory, 0) } else { (FileType::RegularFile, self.size) };
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

fn code(error: &std::io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == ROOT && name == NAME {
            reply.entry(&TTL, &self.attr(IMAGE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No page cache in between: it would hide what fails.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        match self.trouble.meet().and_then(|()| self.file.read_at(&mut bytes, offset)) {
            Ok(length) => reply.data(&bytes[..length]),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        match self.trouble.meet().and_then(|()| self.file.write_all_at(bytes, offset)) {
            Ok(()) => reply.written(length),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.trouble.meet().and_then(|()| self.file.sync_data()) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(code(&error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }
}
