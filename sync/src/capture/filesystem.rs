//! fuser's requests, translated: nothing is decided here.
//!
//! The mount is write-through: the kernel answers a `write(2)` when this answered. Its page and
//! name caches are kept long, because nobody else writes. `fsync` after an `O_SYNC` write comes
//! from the kernel as a request of its own, so a write never waits here for the commit: it would
//! wait twice, and hold the inode's lock meanwhile.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno as Code, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents,
    PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::io::Errno;

use super::changing::{self, Name};
use super::reading::{fill, fill_plus};
use super::serve::Capture;
use super::stat::{asked_time, no_file, now};
use crate::namespace::attributes::Wanted;
use crate::namespace::data::{Allocate, Range};
use crate::namespace::{Caller, rename, xattr};
use crate::op::Kind;
use crate::position::FileId;

/// For how long the kernel may keep names and attributes. Nobody changes them behind its back.
pub(super) const TTL: Duration = Duration::from_secs(24 * 3600);

/// Largest write in one request, in bytes: what the kernel sends at most (256 pages).
const WRITE_BYTES_MAX: u32 = 1 << 20;

/// Requests that the kernel sends without a task waiting for each (readahead, write-back of
/// mapped pages, `O_DIRECT` in parts). The default of 16 would let those that wait for
/// back-pressure hold up reads.
const BACKGROUND_MAX: u16 = 512;

/// The kernel's side of a [`Capture`].
pub(super) struct Kernel(pub(super) Arc<Capture>);

fn file(ino: INodeNo) -> FileId {
    FileId(ino.0)
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

fn name(parent: INodeNo, name: &OsStr) -> Name {
    Name { parent: file(parent), name: name.as_bytes().to_vec() }
}

fn mode_bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).expect("twelve bits fit into sixteen")
}

/// `size` 0 asks how long the answer is.
fn give_sized(reply: ReplyXattr, value: &[u8], size: u32) {
    match u32::try_from(value.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(value),
        _ => reply.error(Code::ERANGE),
    }
}

impl Filesystem for Kernel {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
        ];
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "this kernel's FUSE goes without");
            }
        }
        let bounds = [
            config.set_max_write(WRITE_BYTES_MAX).map(|_| ()),
            config.set_max_background(BACKGROUND_MAX).map(|_| ()).map_err(u32::from),
        ];
        if let Some(nearest) = bounds.into_iter().find_map(Result::err) {
            tracing::warn!(nearest, "FUSE takes smaller bounds than asked for");
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.lookup(file(parent), name.as_bytes());
        let attr = found.map(|found| found.map_or_else(no_file, |status| self.0.attr(&status)));
        self.0.tell(reply, attr, |reply, attr| reply.entry(&TTL, &attr, Generation(0)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let status = self.0.live().status(file(ino));
        let attr = status.map(|status| self.0.attr(&status));
        self.0.tell(reply, attr, |reply, attr| reply.attr(&TTL, &attr));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let at = now();
        let wanted = Wanted {
            mode: mode.map(mode_bits),
            uid,
            gid,
            size,
            atime: atime.map(|asked| asked_time(asked, at)),
            mtime: mtime.map(|asked| asked_time(asked, at)),
        };
        changing::set_attributes(&self.0, file(ino), wanted, caller(request), reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self.0.readlink(file(ino));
        self.0.tell(reply, target, |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        entry: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let kind = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => Kind::File,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            // A device would mean another thing on another machine.
            _ => return self.0.refuse(reply, Errno::PERM),
        };
        let (place, owner) = (name(parent, entry), caller(request));
        changing::make(&self.0, place, kind, mode_bits(mode), owner, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        entry: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let (place, owner) = (name(parent, entry), caller(request));
        changing::make(&self.0, place, Kind::Directory, mode_bits(mode), owner, reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        entry: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let kind = Kind::Symlink(target.as_os_str().as_bytes().to_vec());
        changing::make(&self.0, name(parent, entry), kind, 0o777, caller(request), reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, to: INodeNo, entry: &OsStr, reply: ReplyEntry) {
        changing::link(&self.0, file(ino), name(to, entry), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, entry: &OsStr, reply: ReplyEmpty) {
        changing::unlink(&self.0, name(parent, entry), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, entry: &OsStr, reply: ReplyEmpty) {
        changing::rmdir(&self.0, name(parent, entry), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        entry: &OsStr,
        to_parent: INodeNo,
        to_entry: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            none if none.is_empty() => rename::Mode::Replace,
            RenameFlags::RENAME_NOREPLACE => rename::Mode::Keep,
            RenameFlags::RENAME_EXCHANGE => rename::Mode::Exchange,
            _ => return self.0.refuse(reply, Errno::INVAL),
        };
        changing::rename(&self.0, name(parent, entry), name(to_parent, to_entry), mode, reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        entry: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (place, owner) = (name(parent, entry), caller(request));
        let exclusive = flags & libc::O_EXCL != 0;
        changing::create(&self.0, place, mode_bits(mode), owner, exclusive, reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.0.open(file(ino));
        self.0.tell(reply, opened, |reply, ()| {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.0.open(file(ino));
        self.0.tell(reply, opened, |reply, ()| {
            reply.opened(FileHandle(0), FopenFlags::empty());
        });
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.0.close(file(ino));
        self.0.tell(reply, Ok(()), |reply, ()| reply.ok());
    }

    fn releasedir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.close(file(ino));
        self.0.tell(reply, Ok(()), |reply, ()| reply.ok());
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.0.read(file(ino), offset, size);
        self.0.tell(reply, bytes, |reply, bytes| reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let strip = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let bytes = Bytes::copy_from_slice(data);
        changing::write(&self.0, file(ino), offset, bytes, strip, reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // close(2) promises nothing about the disk.
        self.0.tell(reply, Ok(()), |reply, ()| reply.ok());
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.sync(file(ino), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.sync(file(ino), reply);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let how = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => Allocate::Reserve { keep_size },
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => Allocate::Punch,
            libc::FALLOC_FL_ZERO_RANGE => Allocate::Zero { keep_size },
            _ => return self.0.refuse(reply, Errno::OPNOTSUPP),
        };
        let strip = !caller(request).keeps_set_id();
        let range = Range { offset, length };
        changing::allocate(&self.0, file(ino), range, how, strip, reply);
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = self.0.seek(file(ino), offset, whence);
        self.0.tell(reply, found, |reply, found| reply.offset(found));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let rows = self.0.list(file(ino), offset);
        self.0.tell(reply, rows, fill);
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let rows = self.0.list(file(ino), offset);
        self.0.tell(reply, rows, |reply, rows| fill_plus(&self.0, reply, rows));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let space = self.0.space();
        self.0.tell(reply, space, |reply, space| {
            // A file takes no inode table's slot here; the disk beneath bounds them as well.
            let files = space.files.saturating_add(space.available);
            let (block, longest) = (space.block_bytes, 255);
            let (total, free, available) = (space.total, space.free, space.available);
            reply.statfs(total, free, available, files, available, block, longest, block);
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        attribute: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            0 => xattr::Mode::Set,
            libc::XATTR_CREATE => xattr::Mode::Create,
            libc::XATTR_REPLACE => xattr::Mode::Replace,
            _ => return self.0.refuse(reply, Errno::INVAL),
        };
        let pair = (attribute.as_bytes().to_vec(), value.to_vec());
        changing::set_xattr(&self.0, file(ino), pair, mode, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, attribute: &OsStr, reply: ReplyEmpty) {
        changing::remove_xattr(&self.0, file(ino), attribute.as_bytes().to_vec(), reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.0.xattr(file(ino), name.as_bytes());
        self.0.tell(reply, value, |reply, value| give_sized(reply, &value, size));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.0.xattr_names(file(ino));
        self.0.tell(reply, names, |reply, names| give_sized(reply, &names, size));
    }

    // What follows is refused once, whereupon the kernel does it by itself or tells the caller
    // that there is no such thing. That says nothing of the volume, so it passes no gate.

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The kernel then copies by reading and writing.
        reply.error(Code::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Code::ENOTTY);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Code::ENOSYS);
    }
}
