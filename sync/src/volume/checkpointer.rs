//! The thread that moves the checkpoint, so that the log may be released.
//!
//! The order is: dirty objects durable, then one transaction in the index, then the log, then the
//! objects of files that are gone. A kill between any two is repaired by replaying from the
//! checkpoint that the index says.

use std::sync::Arc;
use std::time::Instant;

use super::VolumeError;
use super::running::Running;
use crate::position::FileId;
use crate::store::StoreError;
use crate::store::delta::Delta;
use crate::store::index::{Checkpoint, Index};

/// The index, and what is left to remove. Its lock is held by whoever moves the checkpoint.
pub(super) struct Ledger {
    pub(super) index: Index,
    /// Objects of files that the index says are gone.
    doomed: Vec<FileId>,
    /// Doomed objects that were removed since the last checkpoint, perhaps not durably yet.
    removed: Vec<FileId>,
    /// While somebody holds one of these, doomed objects stay.
    pins: Arc<()>,
}

impl Ledger {
    /// Finds what an earlier process did not get to remove.
    pub(super) fn new(index: Index) -> Result<Ledger, StoreError> {
        let doomed = index.doomed()?;
        Ok(Ledger { index, doomed, removed: Vec::new(), pins: Arc::new(()) })
    }

    /// Objects that are there now stay while this is held.
    pub(super) fn pin(&self) -> Arc<()> {
        Arc::clone(&self.pins)
    }
}

/// Until the volume stops or fails.
pub(super) fn run(running: &Running) {
    while wait(running) {
        match running.checkpoint() {
            Ok(_) => running.let_in(),
            Err(error) if error.is_full() => {
                // Nothing is lost by waiting: the log keeps what the index lacks.
                let what = format!("no checkpoint, as the disk is full: {error}");
                tracing::warn!("{what}");
                running.progress.set_waiting(Some(what));
            }
            Err(_) => return,
        }
    }
}

/// Waits until a checkpoint is due; `false` when the volume stops.
fn wait(running: &Running) -> bool {
    let mut gate = running.gate();
    let begun = Instant::now();
    loop {
        if gate.stopped || running.progress.check().is_err() {
            return false;
        }
        let left = running.options.checkpoint_interval.saturating_sub(begun.elapsed());
        if (std::mem::take(&mut gate.checkpoint_due) || left.is_zero()) && !gate.holds {
            return true;
        }
        let longest = left.max(std::time::Duration::from_millis(50));
        gate = running.wait(gate, longest);
    }
}

impl Running {
    /// Moves the checkpoint to what is applied now.
    ///
    /// Whatever goes wrong but a full disk fails the volume. An object that could not be synced
    /// may have lost what was applied to it, and the next sync would not say so; the log still
    /// has it, so what ends is this process and not the volume on disk.
    pub(super) fn checkpoint(&self) -> Result<Checkpoint, VolumeError> {
        self.progress.check()?;
        let mut ledger = self.ledger();
        loop {
            match self.write_frozen(&mut ledger) {
                Ok((at, true)) => return Ok(at),
                Ok((_, false)) => {}
                Err(error) => {
                    if !error.is_full() {
                        self.fail(&error.to_string());
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// As [`Running::checkpoint`], of all that the log holds.
    pub(super) fn checkpoint_all(&self) -> Result<Checkpoint, VolumeError> {
        self.settle()?;
        self.checkpoint()
    }

    /// Writes what is frozen, or what is live if nothing was left from an earlier try.
    fn write_frozen(&self, ledger: &mut Ledger) -> Result<(Checkpoint, bool), StoreError> {
        let (delta, at, last) = self.live().freeze();
        self.sync_objects(&delta)?;
        let stored = ledger.index.checkpoint()?;
        if !delta.is_empty() || (stored.position, stored.building) != (at.position, at.building) {
            ledger.index.write(&delta, &at, &ledger.removed)?;
            ledger.removed.clear();
            ledger.doomed.extend(delta.gone());
        }
        self.live().written();
        self.log.release(at.position.seq);
        self.remove_doomed(ledger)?;
        self.progress.set_waiting(None);
        Ok((at, last))
    }

    /// Also makes durable that removed objects are gone, which the index may then forget.
    fn sync_objects(&self, delta: &Delta) -> Result<(), StoreError> {
        let synced = delta
            .dirty
            .iter()
            .try_for_each(|id| self.objects.sync(*id))
            .and_then(|()| self.objects.sync_names());
        // A full disk that shows only now has already dropped pages: no second try would help.
        synced.map_err(|error| StoreError::Unsynced(error.to_string()))
    }

    /// Removes the objects of files that are gone, unless somebody is still reading them out.
    fn remove_doomed(&self, ledger: &mut Ledger) -> Result<(), StoreError> {
        if Arc::strong_count(&ledger.pins) > 1 {
            return Ok(());
        }
        while let Some(id) = ledger.doomed.pop() {
            self.objects.remove(id)?;
            ledger.removed.push(id);
        }
        Ok(())
    }
}
