//! What a volume has promised, and under whom it takes part in an epoch.

use super::{Volume, VolumeError};
use crate::position::{Epoch, Position, VolumeId};
use crate::vow::Vow;

impl Volume {
    /// Nothing of this epoch or an older one is taken any more.
    #[must_use]
    pub fn promised(&self) -> Epoch {
        self.vow().promised
    }

    /// Promises to take nothing of `epoch` or an older one, and says how far the log reaches, for
    /// the ballot.
    ///
    /// The order is what makes the ballot true: the log refuses first and drains the sync in
    /// flight, so its position can no longer move; the vow is durable second; only then may the
    /// position be told.
    ///
    /// # Errors
    /// An incomplete copy has no position to vote with; or the vow could not be stored, and the
    /// log refuses nonetheless.
    pub fn promise(&self, epoch: Epoch) -> Result<Position, VolumeError> {
        let switching = self.switching();
        if *switching {
            return Err(VolumeError::Switching);
        }
        let running = self.running();
        if running.building() {
            return Err(VolumeError::Building);
        }
        let position = running.log.seal(epoch)?;
        let mut vow = self.vow();
        if vow.promised < epoch {
            self.store_vow(&mut vow, |vow| vow.promised = epoch)?;
        }
        Ok(position)
    }

    /// From now on this replica takes part in `epoch`, which `leader` leads, and in none before it.
    /// Durable when it returns: what is acknowledged in that epoch rests on it.
    ///
    /// # Errors
    /// The epoch was promised away, or another volume leads it; or what the disk said.
    pub fn accept_leader(&self, epoch: Epoch, leader: VolumeId) -> Result<(), VolumeError> {
        if self.leader() == Some((epoch, leader)) && self.promised() < epoch {
            return Ok(());
        }
        // As in a promise: the log refuses first. It is drained without the vow in hand, which
        // whoever only asks would wait for.
        self.running().log.seal(Epoch(epoch.0.saturating_sub(1)))?;
        self.vow_leader(epoch, leader)
    }

    /// As [`Volume::accept_leader`] where the log itself is this leader's.
    pub(super) fn vow_leader(&self, epoch: Epoch, leader: VolumeId) -> Result<(), VolumeError> {
        let mut vow = self.vow();
        let over = match vow.leader {
            Some((of, by)) if of > epoch || of == epoch && by != leader => of,
            _ => vow.promised,
        };
        if over >= epoch {
            return Err(VolumeError::Over { epoch, over });
        }
        if vow.leader == Some((epoch, leader)) {
            return Ok(());
        }
        self.store_vow(&mut vow, |vow| {
            vow.promised = vow.promised.max(Epoch(epoch.0 - 1));
            vow.leader = Some((epoch, leader));
        })
    }

    /// The newest epoch that this replica takes part in, and which volume leads it.
    #[must_use]
    pub fn leader(&self) -> Option<(Epoch, VolumeId)> {
        self.vow().leader
    }

    /// Changes the vow on disk, then in memory.
    pub(super) fn store_vow(
        &self,
        vow: &mut Vow,
        change: impl FnOnce(&mut Vow),
    ) -> Result<(), VolumeError> {
        let mut next = vow.clone();
        change(&mut next);
        next.store(self.state_dir())?;
        *vow = next;
        Ok(())
    }
}
