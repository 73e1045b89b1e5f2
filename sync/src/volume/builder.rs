//! Takes another replica's content: rows, then bytes straight into the objects, then records.
//!
//! Until the last of those records is applied the content is of no moment that ever was, and is
//! marked so. A copy that is killed is begun again.

use std::sync::Arc;

use super::running::Running;
use super::snapshot::DATA_BYTES_MAX;
use super::{Piece, SnapshotHeader, Volume, VolumeError};
use crate::op::Kind;
use crate::position::Position;
use crate::store::index::{Checkpoint, Compared};
use crate::store::rows::{self, Row};
use crate::store::{StoreError, sound};

/// Pieces of so many bytes are written out at once.
const WRITE_OUT_BYTES: usize = 256 << 10;

/// A copy that is being made. Dropping it leaves an incomplete one.
pub struct Builder {
    running: Arc<Running>,
    /// How far the records reach that are needed.
    start: Position,
    has_content: bool,
}

pub(super) fn begin(volume: &Volume, header: &SnapshotHeader) -> Result<Builder, VolumeError> {
    let ours = volume.cluster();
    if let Some(ours) = ours.filter(|ours| *ours != header.cluster) {
        return Err(VolumeError::OtherCluster { ours, theirs: header.cluster });
    }
    let running = volume.running();
    if running.leads() {
        return Err(VolumeError::Leads);
    }
    let head = running.log.head();
    let (mine, theirs) = (running.lineage(), &header.lineage);
    let shared = mine.common_ancestor(head.seq, theirs, header.position.seq);
    if !running.building() && shared != head {
        return Err(VolumeError::HasContent { ours: head, theirs: header.position });
    }
    let start = Checkpoint {
        position: header.position,
        lineage: header.lineage.clone(),
        building: true,
        floor: header.floor,
    };
    let running = volume.begin_again(&start, Some(header.cluster))?;
    running.ledger().index.hurry(true)?;
    Ok(Builder { running, start: header.position, has_content: false })
}

impl Builder {
    /// Takes a piece, in the order in which the snapshot gave them. Not durable yet.
    ///
    /// # Errors
    /// A piece that no snapshot gives, or what the disk said.
    pub fn take(&mut self, piece: &Piece) -> Result<(), VolumeError> {
        self.running.progress.check()?;
        if self.has_content {
            return Err(VolumeError::Unsound("a piece after the last one".into()));
        }
        match piece {
            Piece::Rows(rows) => self.take_rows(rows),
            Piece::Data { id, offset, bytes } => {
                let size = self.size(*id)?;
                let end = offset.checked_add(bytes.len() as u64);
                if bytes.len() > DATA_BYTES_MAX || end.is_none_or(|end| end > size) {
                    let what = format!("{} bytes at {offset} of file {id}", bytes.len());
                    return Err(VolumeError::Unsound(what));
                }
                self.running.objects.write_at(*id, *offset, bytes)?;
                // While the next piece arrives; at the end all of it is waited for. Small files
                // would each cost a request of their own.
                if bytes.len() >= WRITE_OUT_BYTES {
                    self.running.objects.begin_writing(*id, *offset, bytes.len() as u64);
                }
                Ok(())
            }
        }
    }

    fn take_rows(&self, rows: &[Row]) -> Result<(), VolumeError> {
        for row in rows {
            sound::row(row).map_err(VolumeError::Unsound)?;
        }
        self.running.ledger().index.put(rows)?;
        for row in rows {
            if let Row::Node { id, attributes, .. } = row
                && attributes.kind == Kind::File
            {
                // Its bytes may all be holes, and then this is all that it ever gets.
                self.running.objects.set_size(*id, attributes.size)?;
            }
        }
        Ok(())
    }

    /// The size that the rows gave a regular file.
    fn size(&self, id: crate::position::FileId) -> Result<u64, VolumeError> {
        let mut ledger = self.running.ledger();
        match rows::node(ledger.index.connection(), id)? {
            Some(of) if of.kind == Kind::File => Ok(of.size),
            _ => Err(VolumeError::Unsound(format!("bytes of {id}, which is no regular file"))),
        }
    }

    /// Says that every piece was taken: makes them durable, and lets the records be applied that
    /// were received meanwhile. The copy is still incomplete.
    ///
    /// # Errors
    /// What the disk said.
    pub fn content_is_there(&mut self) -> Result<(), VolumeError> {
        if !self.has_content {
            self.running.objects.sync_all().map_err(|e| StoreError::Unsynced(e.to_string()))?;
            self.running.ledger().index.hurry(false)?;
            self.has_content = true;
            self.running.release_applier();
        }
        Ok(())
    }

    /// Completes the copy, once records through `through` are durable and applied; waits for
    /// that, while they are [received](Volume::receive) elsewhere. Blocks.
    ///
    /// # Errors
    /// What the disk said, or a log that reached `through` in another epoch.
    pub fn finish(mut self, through: Position) -> Result<(), VolumeError> {
        self.content_is_there()?;
        let needed = through.seq.max(self.start.seq);
        // The copy is at no position before, whatever is committed by then: nobody may be around who
        // would say so. What is applied too early here is what the leader's objects hold as well.
        self.running.log.allow_applier(needed);
        self.running.progress.wait_applied(needed)?;
        if through.seq > self.start.seq {
            let epoch = self.running.lineage().epoch_at(through.seq).unwrap_or_default();
            if epoch != through.epoch {
                let what = format!("op {} is of epoch {epoch}, not {}", through.seq, through.epoch);
                return Err(VolumeError::Unsound(what));
            }
        }
        // Made of the leader's own bytes, over a link that no bit is flipped on.
        let compared = Compared { seq: needed, at_s: 0 };
        self.running.ledger().index.set_compared(compared)?;
        self.running.live().at.building = false;
        if let Err(error) = self.running.checkpoint() {
            self.running.live().at.building = true;
            return Err(error);
        }
        Ok(())
    }
}
