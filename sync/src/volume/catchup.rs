//! Takes a delta: what differs from the leader's volume, beside ours until it is whole.
//!
//! The volume stays at its old position, and may be promoted from there, until every row, every
//! block and every record of the delta is durable in `staging/`; then it [switches](super::switch)
//! to the new position in one step. What this replica alone had applied is kept in quarantine
//! before that.

use std::sync::Arc;

use super::changes::{Ask, BlockHash, ChangesHeader, Differing};
use super::running::Running;
use super::switch::{self, STAGING};
use super::{Volume, VolumeError, losing};
use crate::journal::Objects;
use crate::log::Log;
use crate::op::Record;
use crate::position::{Epoch, Position};
use crate::store::index::Checkpoint;
use crate::store::rows::Row;
use crate::store::sound;
use crate::store::stage::{BLOCK_BYTES, Need, Stage, Want};

/// Bytes of records that may wait to become durable.
const UNSYNCED_BYTES_MAX: u64 = 16 << 20;

/// Room that must be left on the disk beyond what the delta itself needs.
const SPARE_BYTES: u64 = 16 << 20;

/// A delta that is being taken. Dropping it leaves the volume as it was; the next one goes on
/// from what is here of it.
pub struct Catchup {
    volume: Volume,
    running: Arc<Running>,
    stage: Stage,
    /// The last op in common. The volume goes over to nothing that lacks it.
    shared: Position,
    /// Where this volume stands.
    from: Position,
    /// The checkpoint that the delta is of.
    to: Checkpoint,
    log: Option<Log>,
    unsynced: u64,
    received: u64,
}

/// What the delta must be asked with.
pub(super) fn needs_whole(volume: &Volume, base: Position) -> Result<bool, VolumeError> {
    let running = volume.running();
    settle(&running)?;
    Ok(running.ledger().index.checkpoint()?.floor > base.seq)
}

/// Everything that the log holds is in the objects and the index.
///
/// A log that ends where the delta begins is a part of the leader's, and what the leader has released
/// of that was committed. One that goes on past it has lost, and is rolled back as a whole.
fn settle(running: &Running) -> Result<Checkpoint, VolumeError> {
    if running.building() {
        return Err(VolumeError::Building);
    }
    if running.leads() {
        return Err(VolumeError::Leads);
    }
    // Only what the log holds now: what comes later, if this delta ends half-way, waits until it is
    // committed.
    running.log.allow_applier(running.log.head().seq);
    running.checkpoint_all()
}

pub(super) fn begin(
    volume: &Volume,
    header: &ChangesHeader,
    shared: Position,
) -> Result<Catchup, VolumeError> {
    let theirs = header.snapshot.cluster;
    if let Some(ours) = volume.cluster().filter(|ours| *ours != theirs) {
        return Err(VolumeError::OtherCluster { ours, theirs });
    }
    let running = volume.running();
    let from = settle(&running)?.position;
    let at = header.snapshot.position;
    // The op in common, or the leader's checkpoint if that is before it.
    let base = running.lineage().common_ancestor(from.seq, &header.snapshot.lineage, at.seq);
    let lowered = base.seq < shared.seq;
    let fits = base.seq == shared.seq.min(at.seq) && header.since == base.seq;
    if !fits || lowered && !header.whole {
        let what = format!(
            "a delta from {} to {at} for a volume at {from} that shares up to {shared}",
            header.since
        );
        return Err(VolumeError::Unsound(what));
    }
    let dir = volume.inner.directory.join(STAGING);
    let mut stage = Stage::begin(&dir, base, from)?;
    let log = dir.join("log");
    if log.exists() {
        std::fs::remove_dir_all(&log).map_err(VolumeError::on("remove", &log))?;
    }
    let to = Checkpoint {
        position: at,
        lineage: header.snapshot.lineage.clone(),
        building: true,
        floor: header.snapshot.floor,
    };
    stage.set_target(&to, header.whole)?;
    let volume = volume.clone();
    let (log, unsynced, received) = (None, 0, 0);
    Ok(Catchup { volume, running, stage, shared, from, to, log, unsynced, received })
}

impl Catchup {
    /// Takes rows: the leader's own changes, or answers to wants.
    ///
    /// # Errors
    /// A row that no leader has, or what the disk said.
    pub fn take_rows(&mut self, rows: &[Row]) -> Result<(), VolumeError> {
        rows.iter().try_for_each(sound::row).map_err(VolumeError::Unsound)?;
        Ok(self.stage.put(rows)?)
    }

    /// All of the leader's changes are here: finds out what else to ask for.
    ///
    /// # Errors
    /// What the disk said.
    pub fn find_wants(&mut self) -> Result<(), VolumeError> {
        switch::step("rows");
        let ours = self.volume.inner.directory.join("meta.db");
        Ok(self.stage.find_wants(&ours)?)
    }

    /// The next wants after `last`.
    ///
    /// # Errors
    /// What the disk said.
    pub fn wants(&self, last: Option<&Want>, limit: usize) -> Result<Vec<Want>, VolumeError> {
        Ok(self.stage.wants(last, limit)?)
    }

    /// The leader has no row for these.
    ///
    /// # Errors
    /// What the disk said.
    pub fn take_absent(&mut self, wants: &[Want]) -> Result<(), VolumeError> {
        Ok(self.stage.put_absent(wants)?)
    }

    /// All rows are here: finds out which chunks to ask for, and says how many.
    ///
    /// # Errors
    /// What the disk said.
    pub fn find_needs(&mut self) -> Result<u64, VolumeError> {
        let ours = self.volume.inner.directory.join("meta.db");
        let chunks = self.stage.find_needs(&ours)?;
        switch::step("needs");
        Ok(chunks)
    }

    /// The next chunks to ask for after `last`, with the hashes of what is here.
    ///
    /// # Errors
    /// What the disk said.
    pub fn asks(
        &self,
        last: Option<Need>,
        limit: usize,
    ) -> Result<(Vec<Ask>, Option<Need>), VolumeError> {
        let needs = self.stage.needs(last, limit)?;
        let mut asks = Vec::with_capacity(needs.len());
        for need in &needs {
            let (offset, length) = need.extent();
            let mut bytes = vec![0; length as usize];
            self.running
                .objects
                .read_at(need.id, offset, &mut bytes)
                .map_err(VolumeError::on("read", self.running.objects.path(need.id)))?;
            self.stage.lay_over(need.id, need.chunk, &mut bytes)?;
            let hashes = bytes.chunks(BLOCK_BYTES as usize).map(BlockHash::of).collect();
            asks.push(Ask { id: need.id, chunk: need.chunk, hashes });
        }
        Ok((asks, needs.last().copied()))
    }

    /// Takes what differs in a chunk that was asked for.
    ///
    /// # Errors
    /// Bytes that were not asked for, or what the disk said.
    pub fn take_differing(&mut self, ask: &Ask, found: &Differing) -> Result<(), VolumeError> {
        let chunk = ask.chunk * crate::store::CHUNK_BYTES;
        let blocks = ask.hashes.len() as u64;
        let within = found.offset.checked_sub(chunk).filter(|within| within % BLOCK_BYTES == 0);
        let end = within.and_then(|within| within.checked_add(found.length));
        let fits = end.is_some_and(|end| end.div_ceil(BLOCK_BYTES) <= blocks);
        let as_said = found.bytes.as_ref().is_none_or(|of| of.len() as u64 == found.length);
        if !fits || !as_said || found.length == 0 {
            let what = format!("{} bytes at {} of file {}", found.length, found.offset, ask.id);
            return Err(VolumeError::Unsound(what));
        }
        let mut done = 0;
        while done < found.length {
            let length = (found.length - done).min(BLOCK_BYTES);
            let bytes = found.bytes.as_ref().map(|of| &of[done as usize..(done + length) as usize]);
            let block = (found.offset + done) / BLOCK_BYTES;
            self.stage.put_block(ask.id, block, length, bytes)?;
            done += length;
        }
        self.received += found.bytes.as_ref().map_or(0, |_| found.length);
        if self.received > 0 {
            switch::step("a block");
        }
        Ok(())
    }

    /// Takes the next record after the delta's checkpoint; all rows and blocks are here.
    ///
    /// # Errors
    /// It is not the next one, or the log takes no more.
    pub fn record(&mut self, epoch: Epoch, record: &Record) -> Result<(), VolumeError> {
        sound::record(record).map_err(VolumeError::Unsound)?;
        let log = self.log()?;
        log.append_by(epoch, record)?;
        self.unsynced += record.payload.len() as u64 + 256;
        if self.unsynced >= UNSYNCED_BYTES_MAX {
            self.unsynced = 0;
            self.log()?.wait_durable(record.head.seq)?;
        }
        Ok(())
    }

    fn log(&mut self) -> Result<&Log, VolumeError> {
        if self.log.is_none() {
            let options = self.volume.inner.options.log.clone();
            let dir = self.volume.inner.directory.join(STAGING).join("log");
            self.log = Some(Log::open(&dir, options, self.to.position)?);
        }
        self.log.as_ref().ok_or(VolumeError::Closed)
    }

    /// Everything up to `through` was taken, from the leader of `by`: makes it durable, keeps what
    /// loses, and moves the volume there.
    ///
    /// # Errors
    /// The volume is at its old position; or, if the disk failed in the middle of the switch, it
    /// takes nothing any more, and the next start ends it.
    pub fn finish(mut self, by: Epoch, through: Position) -> Result<(), VolumeError> {
        let needed = through.seq.max(self.to.position.seq);
        if needed < self.shared.seq {
            // This log may be one of the few that have it.
            let what = format!("the delta ends at {through}, short of {}", self.shared);
            return Err(VolumeError::Unsound(what));
        }
        let end = match self.log.take() {
            Some(log) => {
                let end = log.wait_durable(needed)?;
                log.close();
                end
            }
            // No record came: an empty log begins at the checkpoint, and a file for it would only
            // be waited for.
            None => {
                let dir = self.volume.inner.directory.join(STAGING).join("log");
                std::fs::create_dir(&dir).map_err(VolumeError::on("create", &dir))?;
                self.to.position
            }
        };
        if end != through.max(self.to.position) {
            let what = format!("the delta ends at {end} and not at {through}");
            return Err(VolumeError::Unsound(what));
        }
        switch::step("records");
        self.stage.seal()?;
        self.room()?;
        {
            let running = Arc::clone(&self.running);
            let mut ledger = running.ledger();
            self.stage.put_into_index(&mut ledger.index, true)?;
        }
        switch::step("sealed");
        let volume = self.volume.clone();
        let _turn = volume.turn();
        self.still_here()?;
        if self.from.seq > self.shared.seq {
            losing::keep(&volume, &self.running, self.from, self.shared)?;
        }
        switch::step("quarantined");
        volume.begin_switch(by)?;
        let Catchup { running, stage, .. } = self;
        running.stop();
        running.log.close();
        drop(stage);
        let switched = volume.switch();
        if let Err(error) = &switched {
            running.fail(&format!("{error}; a restart goes on from here"));
        }
        switched
    }

    /// Whether the volume is as it was when the delta began.
    fn still_here(&self) -> Result<(), VolumeError> {
        let now = self.volume.running();
        let same = Arc::ptr_eq(&now, &self.running);
        if !same || now.leads() || now.building() || now.log.head() != self.from {
            return Err(VolumeError::Closed);
        }
        now.progress.check()
    }

    /// The switch cannot be taken back, so it should not begin what a full disk would stop.
    fn room(&self) -> Result<(), VolumeError> {
        let objects = &self.running.objects;
        let space = objects.space().map_err(VolumeError::on("stat", objects.root()))?;
        let (free, wanted) = (space.0 * space.3, self.stage.bytes() + SPARE_BYTES);
        if free < wanted {
            let cause = std::io::Error::new(
                std::io::ErrorKind::StorageFull,
                format!("{free} bytes are free, and moving to the delta may take {wanted}"),
            );
            return Err(VolumeError::on("write", objects.root())(cause));
        }
        Ok(())
    }

    /// Bytes of blocks that were sent.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }
}
