//! Captures a service's writes: a FUSE mount whose every change becomes a record.
//!
//! The leader's replica mounts the volume for as long as it leads. The service works in the
//! mount; the journal takes what it does; the objects give what it reads. Nothing here knows of
//! disks, peers or elections.
//!
//! Hazards: the daemon must never touch its own mount, since a request that waits for itself
//! never ends. And a mount that may no longer answer says nothing at all, not even an error,
//! until it is aborted; whoever ends a leadership kills the service first and then calls
//! [`Mount::abort`].

mod answer;
mod changing;
mod filesystem;
mod live;
mod mountpoint;
mod overlay;
mod reading;
mod serve;
mod stat;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fuser::{BackgroundSession, Config, Session, SessionACL};
use rustix::io::Errno;

use crate::image::Image;
use crate::journal::{Journal, Objects, Refused};
use crate::namespace::{Plan, Tree, TreeError};
use crate::op::{Attributes, Change, Kind};
use crate::position::{Epoch, FileId};

pub use answer::Gate;

use answer::Door;
use filesystem::Kernel;
use live::Live;
use serve::Capture;

/// Why there is no mount, or still one.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each is")]
pub enum MountError {
    #[error(
        "cannot open /dev/fuse: {source}; load the kernel's fuse module, and in a container pass \
         `--device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined`"
    )]
    Device { source: io::Error },
    #[error(
        "not permitted to mount on {}: CAP_SYS_ADMIN is missing; run as root, and in a container \
         pass `--device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined`",
        mountpoint.display()
    )]
    Permission { mountpoint: PathBuf },
    #[error("cannot mount on {}: {source}", mountpoint.display())]
    Mountpoint { mountpoint: PathBuf, source: io::Error },
    #[error(
        "{} is not empty (it holds {found}), and a mount would hide that; take it into the volume \
         with `mainstay import {}`, or move it away",
        mountpoint.display(), mountpoint.display()
    )]
    NotEmpty { mountpoint: PathBuf, found: String },
    #[error(
        "{} is the live mount of another mainstay; stop that one or choose another place",
        mountpoint.display()
    )]
    Mounted { mountpoint: PathBuf },
    #[error("{} is in use: a process has a file or its working directory there", mountpoint.display())]
    Busy { mountpoint: PathBuf },
    #[error("the volume's tree cannot be mounted: {0}")]
    Tree(#[from] TreeError),
    #[error("the journal takes no ops: {0}")]
    Refused(#[from] Refused),
    #[error("cannot serve the mount on {}: {source}", mountpoint.display())]
    Session { mountpoint: PathBuf, source: io::Error },
}

/// Whether a mount at `point` would be refused, to be known long before one is needed. Makes the
/// directory if it is not there, and clears a dead mount of an earlier daemon away.
///
/// # Errors
/// It would be, for this reason.
pub fn check_mountpoint(point: &Path) -> Result<(), MountError> {
    mountpoint::prepare(point).map(drop)
}

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Where: an empty directory; it is made if it does not exist.
    pub mountpoint: PathBuf,
    /// What `/proc/mounts` names as the source, for people: the service.
    pub name: String,
    /// The leadership, for the ids of new files. One leadership mounts a volume once; a second
    /// mount in the same epoch goes on after the highest id that it finds.
    pub epoch: Epoch,
    /// Threads that take requests. Only reads ever wait in one, for the disk.
    pub threads: usize,
}

impl MountOptions {
    /// The usual: eight threads.
    #[must_use]
    pub fn new(mountpoint: &Path, name: &str, epoch: Epoch) -> MountOptions {
        MountOptions { mountpoint: mountpoint.to_owned(), name: name.to_owned(), epoch, threads: 8 }
    }
}

/// How a mount is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountStats {
    /// Requests without an answer yet, those that never get one among them.
    pub unanswered: u64,
    /// Written bytes that no object holds yet.
    pub unapplied_bytes: u64,
    /// Files of the volume.
    pub files: u64,
    /// Whether requests are being taken. False after an abort, or when a thread died.
    pub serving: bool,
}

/// A mounted volume. Dropping it aborts it.
pub struct Mount {
    capture: Arc<Capture>,
    mountpoint: PathBuf,
    connection: u32,
    session: Mutex<Option<BackgroundSession>>,
}

impl Mount {
    /// Mounts the volume that `image` describes.
    ///
    /// A volume without any file gets its root directory, and what was open without a name when
    /// the last leader died is recorded as gone, before anybody can see it.
    ///
    /// # Errors
    /// Nothing is mounted.
    pub fn new(
        options: MountOptions,
        image: Image,
        journal: Arc<dyn Journal>,
        objects: Arc<dyn Objects>,
        gate: Arc<dyn Gate>,
    ) -> Result<Mount, MountError> {
        let mountpoint = mountpoint::prepare(&options.mountpoint)?;
        let live = load(image, options.epoch, journal.clone())?;
        let capture = Capture::new(live, journal, objects, Door::new(gate));
        let fresh = mountpoint::attach(&mountpoint, &options.name)?;
        let mut config = Config::default();
        config.acl = SessionACL::All;
        config.n_threads = Some(options.threads.max(1));
        let kernel = Kernel(capture.clone());
        let session = Session::from_fd(kernel, fresh.device, SessionACL::All, config)
            .and_then(Session::spawn);
        let connection = fresh.connection;
        match session {
            Ok(session) => {
                let session = Mutex::new(Some(session));
                Ok(Mount { capture, mountpoint, connection, session })
            }
            Err(source) => {
                if let Err(error) = mountpoint::abort(&mountpoint, connection) {
                    tracing::warn!(%error, "a mount that cannot be served stays behind");
                }
                Err(MountError::Session { mountpoint, source })
            }
        }
    }

    /// Where it is mounted, as a full path.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Waits until everything that was answered so far is committed. Blocks; not for a thread
    /// that the journal or the mount needs.
    ///
    /// # Errors
    /// It can never be.
    pub fn barrier(&self) -> Result<(), Refused> {
        let Some(seq) = self.capture.live().recorded() else { return Ok(()) };
        let (told, answer) = mpsc::sync_channel(1);
        // The receiver is there until it was told.
        let tell = move |committed| drop(told.send(committed));
        self.capture.journal.when_committed(seq, Box::new(tell));
        answer.recv().unwrap_or(Err(Refused::Deposed))
    }

    /// Takes an unused mount away, in order: nothing that was answered is lost by it. May be
    /// tried again when it was busy.
    ///
    /// # Errors
    /// It is still mounted.
    pub fn unmount(&self) -> Result<(), MountError> {
        let mountpoint = self.mountpoint.clone();
        match mountpoint::detach(&self.mountpoint) {
            Ok(()) => {
                self.end();
                Ok(())
            }
            Err(Errno::BUSY) => Err(MountError::Busy { mountpoint }),
            Err(errno) => Err(MountError::Mountpoint { mountpoint, source: errno.into() }),
        }
    }

    /// Ends the mount at once, whatever hangs in it: every request in the kernel fails, and
    /// tasks that could not be killed can be. Kill the service first, so that it takes no error
    /// for the disk's. Doing it again does nothing.
    ///
    /// # Errors
    /// The kernel refused; the mount is as it was.
    pub fn abort(&self) -> Result<(), MountError> {
        if self.lock_session().is_none() {
            return Ok(());
        }
        mountpoint::abort(&self.mountpoint, self.connection).map_err(|source| {
            MountError::Mountpoint { mountpoint: self.mountpoint.clone(), source }
        })?;
        self.end();
        Ok(())
    }

    /// How it is doing.
    #[must_use]
    pub fn stats(&self) -> MountStats {
        let session = self.lock_session();
        let serving = session.as_ref().is_some_and(|session| !session.guard.is_finished());
        drop(session);
        let live = self.capture.live();
        MountStats {
            unanswered: self.capture.door.unanswered(),
            unapplied_bytes: live.bytes_unapplied(),
            files: live.tree.files() as u64,
            serving,
        }
    }

    /// The kernel has let go of the connection, so the threads end by themselves.
    fn end(&self) {
        drop(self.lock_session().take());
        self.capture.door.discard();
    }

    fn lock_session(&self) -> std::sync::MutexGuard<'_, Option<BackgroundSession>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.abort() {
            tracing::warn!(%error, "the mount stays behind");
        }
    }
}

fn load(image: Image, epoch: Epoch, journal: Arc<dyn Journal>) -> Result<Live, MountError> {
    let at = stat::now();
    let blank = image.nodes.is_empty();
    let root = Attributes {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        nlink: 2,
        size: 0,
        atime: at,
        mtime: at,
        ctime: at,
    };
    let first = Change::Node { id: FileId::ROOT, attributes: root };
    let tree = if blank {
        let mut tree = Tree::default();
        tree.apply(&first);
        tree
    } else {
        Tree::load(image)?
    };
    let mut changes = if blank { vec![first] } else { Vec::new() };
    changes.extend(tree.orphans().map(|id| Change::Gone { id }));
    let mut live = Live::new(tree, epoch, journal);
    live.record(at, Plan { changes }, Bytes::new())?;
    Ok(live)
}
