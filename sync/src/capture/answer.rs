//! Answers, and when there must be none.
//!
//! Two hazards. A replica that may no longer lead must not answer, not even with an error: the
//! service would take `EIO` for a broken disk. And a fuser reply that is dropped *is* an `EIO`.
//! So every reply is held by a [`Held`] from the start, which never lets go of it without either
//! an open gate or an aborted connection.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use super::live::Failure;
use crate::journal::Refused;

/// Whether this replica may answer its service at this moment.
pub trait Gate: Send + Sync {
    /// Asked right before each reply. Must not block. Once it said no, the mount is expected to
    /// be aborted: the replies that it held back are never given.
    fn open(&self) -> bool;
}

/// A reply that can be an error.
pub(super) trait Reply: Send + 'static {
    fn error(self, errno: fuser::Errno);
}

macro_rules! replies {
    ($($name:ident),*) => { $(
        impl Reply for fuser::$name {
            fn error(self, errno: fuser::Errno) {
                fuser::$name::error(self, errno);
            }
        }
    )* };
}

replies!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// Where every reply passes, or stays.
pub(super) struct Door {
    gate: Arc<dyn Gate>,
    /// Replies that are not to be given. `None` once the connection is aborted.
    parked: Mutex<Option<Vec<Box<dyn Any + Send>>>>,
    held: AtomicU64,
}

impl Door {
    pub(super) fn new(gate: Arc<dyn Gate>) -> Door {
        Door { gate, parked: Mutex::new(Some(Vec::new())), held: AtomicU64::new(0) }
    }

    pub(super) fn hold<R: Reply>(self: &Arc<Self>, reply: R) -> Held<R> {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held { door: self.clone(), reply: Some(reply) }
    }

    /// Requests that have no answer yet, the parked ones among them.
    pub(super) fn unanswered(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The connection is aborted: nobody hears replies any more, so they may be dropped, and
    /// with them the descriptors that they keep open.
    pub(super) fn discard(&self) {
        let parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let count = parked.as_ref().map_or(0, Vec::len);
        drop(parked);
        self.held.fetch_sub(count as u64, Ordering::Relaxed);
    }

    fn park(&self, reply: Box<dyn Any + Send>) {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        match parked.as_mut() {
            Some(parked) => parked.push(reply),
            None => {
                drop(parked);
                self.held.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// A reply on its way. Dropping it parks it.
pub(super) struct Held<R: Reply> {
    door: Arc<Door>,
    reply: Option<R>,
}

impl<R: Reply> Held<R> {
    /// Gives the reply, if the gate is open.
    pub(super) fn send(mut self, send: impl FnOnce(R)) {
        if !self.door.gate.open() {
            return;
        }
        if let Some(reply) = self.reply.take() {
            self.door.held.fetch_sub(1, Ordering::Relaxed);
            send(reply);
        }
    }

    pub(super) fn fail(self, failure: Failure) {
        let errno = match failure {
            Failure::Errno(errno) => errno,
            Failure::Refused(Refused::NoSpace) => Errno::NOSPC,
            Failure::Refused(Refused::Failed(_)) => Errno::IO,
            // Nothing may be answered: the drop parks it.
            Failure::Refused(Refused::Deposed) => return,
        };
        self.send(|reply| reply.error(fuser::Errno::from_i32(errno.raw_os_error())));
    }

    /// Gives what `outcome` came to.
    pub(super) fn give<T>(self, outcome: Result<T, Failure>, send: impl FnOnce(R, T)) {
        match outcome {
            Ok(value) => self.send(|reply| send(reply, value)),
            Err(failure) => self.fail(failure),
        }
    }
}

impl<R: Reply> Drop for Held<R> {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            self.door.park(Box::new(reply));
        }
    }
}
