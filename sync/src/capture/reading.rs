//! Requests that change nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use rustix::io::Errno;

use super::filesystem::TTL;
use super::live::Status;
use super::serve::Capture;
use super::stat::file_type;
use crate::namespace::{NAME_BYTES_MAX, xattr};
use crate::op::Kind;
use crate::position::FileId;

/// Entries looked at under one hold of the lock.
const LISTED_MAX: usize = 512;

/// One entry of a listing.
pub(super) struct Row {
    cookie: u64,
    name: Vec<u8>,
    status: Status,
}

/// What `statfs(2)` shows, in blocks.
pub(super) struct Space {
    pub(super) block_bytes: u32,
    pub(super) total: u64,
    pub(super) free: u64,
    pub(super) available: u64,
    pub(super) files: u64,
}

impl Capture {
    /// `None`: there is no such name.
    pub(super) fn lookup(&self, parent: FileId, name: &[u8]) -> Result<Option<Status>, Errno> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let live = self.live();
        let directory = live.tree.attributes(parent).ok_or(Errno::STALE)?;
        if directory.kind != Kind::Directory {
            return Err(Errno::NOTDIR);
        }
        live.tree.child(parent, name).map(|child| live.status(child)).transpose()
    }

    pub(super) fn readlink(&self, id: FileId) -> Result<Vec<u8>, Errno> {
        match &self.live().tree.attributes(id).ok_or(Errno::STALE)?.kind {
            Kind::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::INVAL),
        }
    }

    /// The bytes of `id`: the object's, with everything that it does not hold yet laid over.
    ///
    /// The overlay is looked at before the object, which the applier may change in between.
    /// Seen so, the object holds some of the ops in the view, or all, or even later ones. An op
    /// in the view may be there or half there: laying it over again gives the same bytes. An op
    /// from before the view was applied when the view was taken, so it is there. A later op is
    /// one that a writer made while this read was under way: the kernel locks a page against
    /// both, so it touched other pages, or the reader went round the page cache (`O_DIRECT`) and
    /// may see either. In no case does a byte show what it was before the view.
    pub(super) fn read(&self, id: FileId, offset: u64, length: u32) -> Result<Vec<u8>, Errno> {
        let (length, view) = self.live().read(id, offset, length)?;
        let mut bytes = vec![0; length];
        if length > 0 && !view.covers(length) {
            // Where the object ends short of the file, the zeros stand.
            self.objects.read_at(id, offset, &mut bytes).map_err(|error| {
                tracing::error!(file = id.0, offset, %error, "an object cannot be read");
                Errno::IO
            })?;
        }
        view.lay_over(&mut bytes);
        Ok(bytes)
    }

    /// `SEEK_DATA` and `SEEK_HOLE`.
    pub(super) fn seek(&self, id: FileId, offset: i64, whence: i32) -> Result<i64, Errno> {
        let data = match whence {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return Err(Errno::INVAL),
        };
        let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        let (size, behind) = {
            let live = self.live();
            (live.tree.attributes(id).ok_or(Errno::STALE)?.size, live.is_behind(id))
        };
        if offset >= size {
            return Err(Errno::NXIO);
        }
        let found = if behind {
            // Calling everything data until the object has caught up is always true enough.
            if data { offset } else { size }
        } else {
            let found = self.objects.seek(id, offset, data).map_err(|_| Errno::IO)?;
            match (found, data) {
                (Some(found), true) if found >= size => return Err(Errno::NXIO),
                (Some(found), _) => found.min(size),
                (None, true) => return Err(Errno::NXIO),
                // Past the object's end everything is a hole.
                (None, false) => offset,
            }
        };
        i64::try_from(found).map_err(|_| Errno::OVERFLOW)
    }

    pub(super) fn space(&self) -> Result<Space, Errno> {
        let (block, total, free, available) = self.objects.space().map_err(|_| Errno::IO)?;
        let live = self.live();
        let under_way = live.bytes_unapplied().div_ceil(block.max(1));
        let available = available.saturating_sub(under_way);
        Ok(Space {
            block_bytes: u32::try_from(block).unwrap_or(4096),
            total,
            free: free.saturating_sub(under_way),
            available,
            files: live.tree.files() as u64,
        })
    }

    pub(super) fn xattr(&self, id: FileId, name: &[u8]) -> Result<Vec<u8>, Errno> {
        xattr::check_name(name)?;
        let live = self.live();
        live.tree.attributes(id).ok_or(Errno::STALE)?;
        live.tree.xattr(id, name).map(<[u8]>::to_vec).ok_or(Errno::NODATA)
    }

    /// Names, each with a zero behind it.
    pub(super) fn xattr_names(&self, id: FileId) -> Result<Vec<u8>, Errno> {
        let live = self.live();
        live.tree.attributes(id).ok_or(Errno::STALE)?;
        let mut names = Vec::new();
        for name in live.tree.xattr_names(id) {
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(names)
    }

    /// The entries of `id` after `cookie`, `.` and `..` first; not all of them if there are
    /// many. None: the listing is at its end.
    pub(super) fn list(&self, id: FileId, cookie: u64) -> Result<Vec<Row>, Errno> {
        let live = self.live();
        let own = live.status(id)?;
        if own.attributes.kind != Kind::Directory {
            return Err(Errno::NOTDIR);
        }
        // A removed directory that is still open lists nothing, not even itself.
        if own.attributes.nlink == 0 {
            return Ok(Vec::new());
        }
        let parent = live.tree.parent(id).unwrap_or(id);
        let mut rows = Vec::new();
        for (at, name, whose) in [(1, ".", id), (2, "..", parent)] {
            if cookie < at {
                rows.push(Row { cookie: at, name: name.into(), status: live.status(whose)? });
            }
        }
        for listed in live.tree.list(id, cookie).take(LISTED_MAX) {
            let Ok(status) = live.status(listed.child) else { continue };
            rows.push(Row { cookie: listed.cookie, name: listed.name.to_vec(), status });
        }
        Ok(rows)
    }
}

pub(super) fn fill(mut reply: ReplyDirectory, rows: Vec<Row>) {
    for row in rows {
        let kind = file_type(&row.status.attributes.kind);
        let name = OsStr::from_bytes(&row.name);
        if reply.add(INodeNo(row.status.id.0), row.cookie, kind, name) {
            break;
        }
    }
    reply.ok();
}

pub(super) fn fill_plus(capture: &Capture, mut reply: ReplyDirectoryPlus, rows: Vec<Row>) {
    for row in rows {
        let attr = capture.attr(&row.status);
        let name = OsStr::from_bytes(&row.name);
        let generation = Generation(0);
        if reply.add(attr.ino, row.cookie, name, &TTL, &attr, generation) {
            break;
        }
    }
    reply.ok();
}
