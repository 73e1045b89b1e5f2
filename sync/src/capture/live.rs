//! The live state: the tree, the bytes under way, and who has what open, under one lock.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;

use super::overlay::{Overlay, View};
use crate::journal::{Journal, Refused};
use crate::namespace::{Plan, Tree, remove};
use crate::op::{Attributes, Kind, Time};
use crate::position::{Epoch, FileId, Seq};

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The service is told.
    Errno(Errno),
    /// The journal did not take it.
    Refused(Refused),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Errno(errno)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        Failure::Refused(refused)
    }
}

/// What a reply tells of a file.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) id: FileId,
    pub(super) attributes: Attributes,
    /// Written bytes that its object does not hold yet.
    pub(super) bytes_unapplied: u64,
}

/// Everything that requests share. One lock around it all: the order in which plans are made is
/// then the order of seqs, and what is done under it is a few map operations and one copy into
/// the log's buffer.
pub(super) struct Live {
    pub(super) tree: Tree,
    overlay: Overlay,
    /// How often each file is open. A file without a name stays until this is 0.
    holders: HashMap<FileId, u64>,
    journal: Arc<dyn Journal>,
    epoch: Epoch,
    /// Of the id given last.
    counter: u64,
    recorded: Option<Seq>,
}

impl Live {
    pub(super) fn new(tree: Tree, epoch: Epoch, journal: Arc<dyn Journal>) -> Live {
        let base = FileId::new(epoch, 0).0;
        // Ids that this epoch gave already, for a mount that is not its first.
        let counter = tree
            .ids()
            .filter(|id| id.0 >> 40 == epoch.0 && *id != FileId::ROOT)
            .map(|id| id.0 - base)
            .max()
            .unwrap_or(0);
        Live {
            tree,
            overlay: Overlay::default(),
            holders: HashMap::new(),
            journal,
            epoch,
            counter,
            recorded: None,
        }
    }

    /// An id that no file ever had.
    pub(super) fn new_id(&mut self) -> FileId {
        self.counter += 1;
        let id = FileId::new(self.epoch, self.counter);
        if id == FileId::ROOT { self.new_id() } else { id }
    }

    /// Records `plan` and brings the live state past it; all of it or nothing.
    pub(super) fn record(&mut self, at: Time, plan: Plan, payload: Bytes) -> Result<(), Refused> {
        if plan.changes.is_empty() {
            return Ok(());
        }
        let seq = self.journal.append(at, plan.changes.clone(), payload.clone())?;
        self.recorded = Some(seq);
        let tree = &self.tree;
        self.overlay.note(seq, &plan.changes, &payload, |id| {
            tree.attributes(id).map(|attributes| attributes.size)
        });
        for change in &plan.changes {
            self.tree.apply(change);
        }
        Ok(())
    }

    /// The last op recorded by this mount.
    pub(super) fn recorded(&self) -> Option<Seq> {
        self.recorded
    }

    /// The objects hold everything up to `seq`.
    pub(super) fn applied(&mut self, seq: Seq) {
        self.overlay.forget(seq);
    }

    /// The op that an `fsync` of `id` waits for. `None`: all of its ops are applied, and only
    /// committed ops are.
    pub(super) fn last_op(&self, id: FileId) -> Option<Seq> {
        self.overlay.last(id)
    }

    pub(super) fn status(&self, id: FileId) -> Result<Status, Errno> {
        let attributes = self.tree.attributes(id).ok_or(Errno::STALE)?.clone();
        Ok(Status { id, attributes, bytes_unapplied: self.overlay.bytes_of(id) })
    }

    /// How many of `length` bytes at `offset` there are, and what to lay over the object's.
    pub(super) fn read(
        &self,
        id: FileId,
        offset: u64,
        length: u32,
    ) -> Result<(usize, View), Errno> {
        let attributes = self.tree.attributes(id).ok_or(Errno::STALE)?;
        if attributes.kind != Kind::File {
            return Err(Errno::ISDIR);
        }
        let end = attributes.size.min(offset.saturating_add(u64::from(length)));
        let there = usize::try_from(end.saturating_sub(offset)).map_err(|_| Errno::INVAL)?;
        Ok((there, self.overlay.view(id, offset, end.max(offset))))
    }

    /// Whether the object of `id` may differ from the file.
    pub(super) fn is_behind(&self, id: FileId) -> bool {
        self.overlay.is_behind(id)
    }

    /// Written bytes that no object holds yet.
    pub(super) fn bytes_unapplied(&self) -> u64 {
        self.overlay.bytes()
    }

    pub(super) fn is_open(&self, id: FileId) -> bool {
        self.holders.contains_key(&id)
    }

    /// One more holder of `id`.
    pub(super) fn opened(&mut self, id: FileId) {
        *self.holders.entry(id).or_default() += 1;
    }

    /// One holder less; the last one of a file without a name takes it along.
    pub(super) fn closed(&mut self, id: FileId, at: Time) -> Result<(), Refused> {
        let Some(holders) = self.holders.get_mut(&id) else { return Ok(()) };
        *holders -= 1;
        if *holders > 0 {
            return Ok(());
        }
        self.holders.remove(&id);
        let plan = remove::release(&self.tree, id);
        self.record(at, plan, Bytes::new())
    }
}
