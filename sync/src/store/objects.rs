//! The objects: one plain file per regular file of the volume, named by its id.
//!
//! `objects/<low byte of the id>/<id in 16 hexadecimal digits>`; the low byte counts up with each
//! new file, so the 256 directories fill evenly. Only the applier (and a builder, while there is
//! no applier) writes; anybody reads.
//!
//! An object's length is its file's size as of the last applied op. A file of size 0 may have no
//! object; any other has one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use super::StoreError;
use super::descriptors::Descriptors;
use crate::journal::Objects;
use crate::position::FileId;

const DIRECTORIES: usize = 256;

/// The directory of objects, and those of them that are open.
pub struct ObjectFiles {
    root: PathBuf,
    descriptors: Mutex<Descriptors>,
    /// Which of the directories gained or lost a name since they were last synced.
    renamed: Vec<AtomicBool>,
}

impl ObjectFiles {
    /// Opens `root`, making it and its directories if they are not there.
    ///
    /// # Errors
    /// A directory that cannot be made.
    pub fn open(root: &Path, descriptors: usize) -> Result<ObjectFiles, StoreError> {
        for low in 0..DIRECTORIES {
            let directory = root.join(format!("{low:02x}"));
            if !directory.is_dir() {
                fs::create_dir_all(&directory).map_err(StoreError::on("create", &directory))?;
            }
        }
        sync_directory(root)?;
        Ok(ObjectFiles {
            root: root.to_owned(),
            descriptors: Mutex::new(Descriptors::new(descriptors)),
            renamed: (0..DIRECTORIES).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    /// The directory that all objects are under.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where `id`'s object is, if it is.
    #[must_use]
    pub fn path(&self, id: FileId) -> PathBuf {
        self.root.join(format!("{:02x}", id.0 & 0xff)).join(format!("{:016x}", id.0))
    }

    /// Writes all of `bytes` at `offset`, making the object if there is none.
    ///
    /// # Errors
    /// What the disk said; some of the bytes may have been written.
    pub fn write_at(&self, id: FileId, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let file = self.open_or_create(id)?;
        file.write_all_at(bytes, offset).map_err(StoreError::on("write", self.path(id)))
    }

    /// Has the kernel begin to write out what lies there, so that a later sync finds less to do. A
    /// hint: failing is no error.
    pub fn begin_writing(&self, id: FileId, offset: u64, length: u64) {
        let Ok(Some(file)) = self.open_existing(id) else { return };
        let (offset, length) = (offset as i64, length as i64);
        // SAFETY: only numbers, and a descriptor that lives as long as `file`.
        let begun = unsafe {
            libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE)
        };
        if begun != 0 {
            tracing::debug!(%id, offset, length, "writing out not begun");
        }
    }

    /// Makes `length` bytes from `offset` read as zeros; the object does not grow.
    ///
    /// # Errors
    /// What the disk said.
    pub fn zero(&self, id: FileId, offset: u64, length: u64) -> Result<(), StoreError> {
        let Some(file) = self.open_existing(id)? else { return Ok(()) };
        let failed = |cause| StoreError::on("zero", self.path(id))(cause);
        let end = file.metadata().map_err(failed)?.len().min(offset.saturating_add(length));
        if offset >= end {
            return Ok(());
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&*file, punch, offset, end - offset) {
            Err(Errno::OPNOTSUPP) => write_zeros(&file, offset, end).map_err(failed),
            done => done.map_err(|errno| failed(errno.into())),
        }
    }

    /// Makes the object `size` bytes long: cut off, or with a hole at its end.
    ///
    /// # Errors
    /// What the disk said.
    pub fn set_size(&self, id: FileId, size: u64) -> Result<(), StoreError> {
        let file = match self.open_existing(id)? {
            Some(file) => file,
            None if size == 0 => return Ok(()),
            None => self.open_or_create(id)?,
        };
        file.set_len(size).map_err(StoreError::on("resize", self.path(id)))
    }

    /// How long the object is; `None` if there is none.
    ///
    /// # Errors
    /// What the disk said.
    pub fn length(&self, id: FileId) -> Result<Option<u64>, StoreError> {
        let Some(file) = self.open_existing(id)? else { return Ok(None) };
        let metadata = file.metadata().map_err(StoreError::on("stat", self.path(id)))?;
        Ok(Some(metadata.len()))
    }

    /// Reserves room without changing content or length. A hint: failing is no error.
    pub fn reserve(&self, id: FileId, offset: u64, length: u64) {
        let reserved = self
            .open_or_create(id)
            .map(|file| fallocate(&*file, FallocateFlags::KEEP_SIZE, offset, length));
        if !matches!(reserved, Ok(Ok(()))) {
            tracing::debug!(%id, offset, length, "space not reserved: {reserved:?}");
        }
    }

    /// Makes what was written to `id` durable.
    ///
    /// # Errors
    /// What the disk said; the object's content is then unknown.
    pub fn sync(&self, id: FileId) -> Result<(), StoreError> {
        match self.open_existing(id)? {
            Some(file) => file.sync_data().map_err(StoreError::on("sync", self.path(id))),
            None => Ok(()),
        }
    }

    /// Makes the making and removing of objects so far durable.
    ///
    /// # Errors
    /// What the disk said.
    pub fn sync_names(&self) -> Result<(), StoreError> {
        for (low, renamed) in self.renamed.iter().enumerate() {
            // Cleared first: a name that comes while we sync is left to the next time.
            if renamed.swap(false, Ordering::AcqRel)
                && let Err(error) = sync_directory(&self.root.join(format!("{low:02x}")))
            {
                renamed.store(true, Ordering::Release);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes every object and name durable at once, for when nearly all of them are new.
    ///
    /// # Errors
    /// What the disk said.
    pub fn sync_all(&self) -> Result<(), StoreError> {
        let failed = |cause| StoreError::on("sync", &self.root)(cause);
        let root = File::open(&self.root).map_err(failed)?;
        rustix::fs::syncfs(&root).map_err(|errno| failed(errno.into()))
    }

    /// Removes the object; one that is not there is no error.
    ///
    /// # Errors
    /// What the disk said.
    pub fn remove(&self, id: FileId) -> Result<(), StoreError> {
        self.descriptors().remove(id);
        let path = self.path(id);
        match fs::remove_file(&path) {
            Ok(()) => self.note_name(id),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(StoreError::File { action: "remove", path, cause }),
        }
        Ok(())
    }

    /// The object, if there is one.
    ///
    /// # Errors
    /// What the disk said.
    pub fn open_existing(&self, id: FileId) -> Result<Option<Arc<File>>, StoreError> {
        if let Some(file) = self.descriptors().get(id) {
            return Ok(Some(file));
        }
        match self.open_file(id, false) {
            Ok(file) => Ok(Some(file)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(StoreError::on("open", self.path(id))(cause)),
        }
    }

    fn open_or_create(&self, id: FileId) -> Result<Arc<File>, StoreError> {
        if let Some(file) = self.open_existing(id)? {
            return Ok(file);
        }
        self.note_name(id);
        self.open_file(id, true).map_err(StoreError::on("create", self.path(id)))
    }

    fn open_file(&self, id: FileId, create: bool) -> io::Result<Arc<File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.path(id))?;
        let file = Arc::new(file);
        self.descriptors().put(id, Arc::clone(&file));
        Ok(file)
    }

    fn note_name(&self, id: FileId) {
        self.renamed[(id.0 & 0xff) as usize].store(true, Ordering::Release);
    }

    fn descriptors(&self) -> std::sync::MutexGuard<'_, Descriptors> {
        // Its methods leave it whole wherever they could panic.
        self.descriptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, id: FileId) -> io::Result<Option<Arc<File>>> {
        self.open_existing(id).map_err(|error| match error {
            StoreError::File { cause, .. } => cause,
            other => io::Error::other(other),
        })
    }
}

impl Objects for ObjectFiles {
    fn read_at(&self, id: FileId, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let Some(file) = self.opened(id)? else { return Ok(0) };
        let mut read = 0;
        while read < into.len() {
            match file.read_at(&mut into[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(read)
    }

    /// The descriptor's own offset is moved by this, and used by nothing else.
    fn seek(&self, id: FileId, offset: u64, data: bool) -> io::Result<Option<u64>> {
        let Some(file) = self.opened(id)? else { return Ok(None) };
        let whence = if data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
        match seek(&*file, whence) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn allocated(&self, id: FileId) -> io::Result<u64> {
        Ok(match self.opened(id)? {
            Some(file) => file.metadata()?.blocks() * 512,
            None => 0,
        })
    }

    fn space(&self) -> io::Result<(u64, u64, u64, u64)> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok((stat.f_frsize, stat.f_blocks, stat.f_bfree, stat.f_bavail))
    }
}

/// For file systems without holes.
fn write_zeros(file: &File, offset: u64, end: u64) -> io::Result<()> {
    let zeros = [0; 64 * 1024];
    let mut at = offset;
    while at < end {
        let length = (end - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..length as usize], at)?;
        at += length;
    }
    Ok(())
}

/// Makes a directory's names durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::on("sync", path))
}
