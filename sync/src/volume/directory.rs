//! The state directory: who has it open, and what is in it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::VolumeError;
use crate::position::VolumeId;
use crate::store::objects::sync_directory;
use crate::vow::Vow;

/// The file that is locked, holding the owner's process id.
const LOCK: &str = "lock";

/// What a volume that is not finished being made may have left. A directory that has no vow and
/// something else in it was meant for something else.
const OURS: [&str; 16] = [
    LOCK,
    "vow",
    "vow.next",
    "meta.db",
    "meta.db-wal",
    "meta.db-shm",
    "meta.db-journal",
    "log",
    "objects",
    "quarantine",
    "log.discarded",
    "objects.discarded",
    "staging",
    "staging.discarded",
    "switching",
    "switching.discarded",
];

/// A state directory that nobody else has open, for as long as this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The lock goes with the descriptor, also when the process is killed.
    _lock: File,
}

impl Directory {
    /// Locks `path`, making the directory if it is not there.
    ///
    /// # Errors
    /// Another process has it, it holds something else, or it cannot be made.
    pub fn lock(path: &Path) -> Result<Directory, VolumeError> {
        refuse_foreign(path)?;
        create(path)?;
        let path = fs::canonicalize(path).map_err(VolumeError::on("find", path))?;
        let file = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .map_err(VolumeError::on("open", &file))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let read = lock.read_to_string(&mut pid).is_ok_and(|length| length > 0);
            let pid = if read { pid.trim().to_owned() } else { "unknown".to_owned() };
            return Err(VolumeError::InUse { path, pid });
        }
        let written = lock
            .set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(lock, "{}", std::process::id()));
        written.map_err(VolumeError::on("write", &file))?;
        Ok(Directory { path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The vow; a directory without one is given a blank one, unless it holds a volume.
    pub(super) fn load_vow(&self) -> Result<Vow, VolumeError> {
        if let Some(vow) = Vow::load(&self.path)? {
            return Ok(vow);
        }
        // The vow is the first thing that a volume writes: content without one has lost it, and
        // with it what was promised.
        if self.join("meta.db").exists() || self.join("log").exists() {
            let found = "a volume without its vow".to_owned();
            return Err(VolumeError::NotOurs { path: self.path.clone(), found });
        }
        let vow = Vow::blank(new_volume_id());
        vow.store(&self.path)?;
        Ok(vow)
    }

    /// Removes `name` and what is in it. The name goes at once and for good, so a kill leaves all
    /// of it or only rubbish, which the next open removes.
    pub(super) fn discard(&self, name: &str) -> Result<(), VolumeError> {
        let (path, rubbish) = (self.join(name), self.join(&format!("{name}.discarded")));
        self.remove_rubbish()?;
        if path.exists() {
            fs::rename(&path, &rubbish).map_err(VolumeError::on("discard", &path))?;
            sync_directory(&self.path)?;
        }
        self.remove_rubbish()
    }

    /// Removes what an earlier [`Directory::discard`] did not get to.
    pub(super) fn remove_rubbish(&self) -> Result<(), VolumeError> {
        for name in OURS.iter().filter(|name| name.ends_with(".discarded")) {
            let path = self.join(name);
            if path.exists() {
                fs::remove_dir_all(&path).map_err(VolumeError::on("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// Makes the directory, for our eyes only: the names in the index are the service's secrets too.
fn create(path: &Path) -> Result<(), VolumeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(VolumeError::on("create", path))
}

/// A random id; two copies never share one.
pub(super) fn new_volume_id() -> VolumeId {
    VolumeId(rand::random())
}

fn refuse_foreign(path: &Path) -> Result<(), VolumeError> {
    if path.join("vow").exists() {
        return Ok(());
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(VolumeError::on("read", path)(cause)),
    };
    for entry in entries {
        let entry = entry.map_err(VolumeError::on("read", path))?;
        let name = entry.file_name();
        // A daemon may have put its socket here before it opened the volume.
        let socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        let ours = socket || OURS.iter().any(|ours| name == *ours) || name == "lost+found";
        if !ours {
            let found = name.to_string_lossy().into_owned();
            return Err(VolumeError::NotOurs { path: path.to_owned(), found });
        }
    }
    Ok(())
}
