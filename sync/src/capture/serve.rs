//! How a request is served: room first, then the lock, then the record, then the answer.

use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use super::answer::{Door, Held, Reply};
use super::live::{Failure, Live, Status};
use super::stat::{file_attr, now};
use crate::journal::{Journal, Objects, Waiter};
use crate::op::{Kind, Time};
use crate::position::FileId;

/// What an op takes in the log besides its names and bytes, roughly; for back-pressure.
pub(super) const RECORD_BYTES: u64 = 512;

/// One mounted volume, as its requests see it.
pub(super) struct Capture {
    live: Mutex<Live>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) objects: Arc<dyn Objects>,
    pub(super) door: Arc<Door>,
}

impl Capture {
    pub(super) fn new(
        live: Live,
        journal: Arc<dyn Journal>,
        objects: Arc<dyn Objects>,
        door: Door,
    ) -> Arc<Capture> {
        let capture =
            Arc::new(Capture { live: Mutex::new(live), journal, objects, door: Arc::new(door) });
        // The journal outlives the mount, and must not keep its tree.
        let told = Arc::downgrade(&capture);
        capture.journal.on_applied(Box::new(move |seq| {
            if let Some(capture) = told.upgrade() {
                capture.live().applied(seq);
            }
        }));
        capture
    }

    /// The live state. Held for as long as a plan is made and recorded; never over a reply, a
    /// disk or a waiter.
    pub(super) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().expect("a plan that panicked half way leaves no state to go on from")
    }

    /// Serves a request that changes something: waits (parked, without a thread) for room for
    /// `bytes`, has `plan` record it under the lock, and answers with what came of it.
    pub(super) fn change<R: Reply, T>(
        self: &Arc<Self>,
        reply: R,
        bytes: u64,
        plan: impl FnOnce(&mut Live, Time) -> Result<T, Failure> + Send + 'static,
        answer: impl FnOnce(&Capture, R, T) + Send + 'static,
    ) {
        let held = self.door.hold(reply);
        let capture = self.clone();
        let job: Waiter = Box::new(move |room| {
            let outcome = match room {
                Ok(()) => plan(&mut capture.live(), now()),
                Err(refused) => Err(Failure::Refused(refused)),
            };
            held.give(outcome, |reply, value| answer(&capture, reply, value));
        });
        if let Some(job) = self.journal.ready(bytes + RECORD_BYTES, job) {
            job(Ok(()));
        }
    }

    /// Serves a request that changes nothing.
    pub(super) fn tell<R: Reply, T>(
        &self,
        reply: R,
        outcome: Result<T, Errno>,
        answer: impl FnOnce(R, T),
    ) {
        self.door.hold(reply).give(outcome.map_err(Failure::Errno), answer);
    }

    /// Answers a request with an error.
    pub(super) fn refuse<R: Reply>(&self, reply: R, errno: Errno) {
        self.door.hold(reply).fail(Failure::Errno(errno));
    }

    /// Answers `reply` once `id`'s last op is committed, and not later: what others wrote
    /// meanwhile is their own to wait for. A file without uncommitted ops is answered at once.
    pub(super) fn sync(&self, id: FileId, reply: fuser::ReplyEmpty) {
        let held: Held<_> = self.door.hold(reply);
        let last = self.live().last_op(id);
        let Some(last) = last else {
            held.send(fuser::ReplyEmpty::ok);
            return;
        };
        let told = move |committed: Result<(), _>| {
            held.give(committed.map_err(Failure::Refused), |reply, ()| reply.ok());
        };
        self.journal.when_committed(last, Box::new(told));
    }

    /// What `stat(2)` shows of a file. Asks the disk; call it without the lock.
    pub(super) fn attr(&self, status: &Status) -> fuser::FileAttr {
        let size = status.attributes.size;
        let allocated = match status.attributes.kind {
            Kind::File if size > 0 => {
                // Not worth an error to the service: without an answer the file counts as dense.
                let allocated = self.objects.allocated(status.id).unwrap_or(size);
                allocated.saturating_add(status.bytes_unapplied).min(size.next_multiple_of(4096))
            }
            _ => 0,
        };
        file_attr(status, allocated)
    }
}
