//! A replica's disk: what is on it, and what a crash leaves of it.
//!
//! Three things, as in `sync/src/volume`: the vow (durable at once when its store returns), the log
//! (durable as far as the last sync that ended), the objects (as the applier left them; durable as
//! far as the checkpoint). An object's content is modelled by the op that last wrote each of its
//! places, and every op has a place of its own: its seq. So content that no record accounts for
//! (a stray) shows as another op in a place than the log has there.

use std::sync::Arc;

use mainstay_election::values::Config;
use mainstay_sync::op::{Change, Head, Record, Time};
use mainstay_sync::position::{ClusterId, Epoch, Lineage, Position, Seq, VolumeId};

use super::rng::Rng;
use super::session::Staged;

/// What an op did, as far as anybody here looks: a number that no two ops share.
pub type Tag = i64;

/// The record of op `tag`.
#[must_use]
pub fn record(epoch: Epoch, seq: Seq, tag: Tag, starts: Option<&str>) -> Record {
    let start = |node: &str| Change::EpochStart { node: node.to_owned() };
    let changes = starts.map(start).into_iter().collect();
    let at = Time { seconds: tag, nanos: 0 };
    Record { head: Head { epoch, seq, at, changes }, payload: bytes::Bytes::new() }
}

/// Which op it is the record of.
#[must_use]
pub fn tag(record: &Record) -> Tag {
    record.head.at.seconds
}

/// Whether it begins an epoch.
#[must_use]
pub fn starts(record: &Record) -> bool {
    matches!(record.head.changes.first(), Some(Change::EpochStart { .. }))
}

/// One replica's state directory.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The vow's: which copy this is.
    pub volume: VolumeId,
    /// The vow's.
    pub cluster: Option<ClusterId>,
    /// The vow's: nothing of this epoch or an older one is taken.
    pub promised: Epoch,
    /// The vow's: the newest epoch that it takes part in, and who leads that.
    pub leader: Option<(Epoch, VolumeId)>,
    /// The vow's: the newest config seen.
    pub config: Option<Arc<Config>>,
    /// Where the log begins: a copy's position, or nothing.
    base: Position,
    /// The lineage up to `base`.
    base_lineage: Lineage,
    /// The records after `base`, in order. Kept here also when released, for whoever checks.
    records: Vec<Record>,
    /// Which epochs wrote it, up to the head.
    lineage: Lineage,
    /// Everything up to here survives a power loss.
    pub durable: Seq,
    /// Records up to here may have been freed: nobody streams from before.
    pub released: Seq,
    /// The index: everything up to here need not be replayed.
    pub checkpoint: Seq,
    /// The index: an incomplete copy.
    pub building: bool,
    /// Up to here a delta had everything applied that it was to roll back.
    pub rolls_back: Seq,
    /// By seq (from 1): which op's outcome is there; 0 is none.
    pub objects: Vec<Tag>,
}

impl Disk {
    /// An empty one.
    #[must_use]
    pub fn blank(volume: VolumeId) -> Disk {
        Disk {
            volume,
            cluster: None,
            promised: Epoch(0),
            leader: None,
            config: None,
            base: Position::default(),
            base_lineage: Lineage::default(),
            records: Vec::new(),
            lineage: Lineage::default(),
            durable: Seq(0),
            released: Seq(0),
            checkpoint: Seq(0),
            building: false,
            rolls_back: Seq(0),
            objects: Vec::new(),
        }
    }

    /// The last record.
    #[must_use]
    pub fn head(&self) -> Position {
        self.records.last().map_or(self.base, |last| last.head.position())
    }

    /// The last durable record.
    #[must_use]
    pub fn durable(&self) -> Position {
        match self.record(self.durable) {
            Some(record) => record.head.position(),
            None => self.base,
        }
    }

    /// Which epochs wrote the log.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// The oldest record that may be streamed.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.base.seq.max(self.released).next()
    }

    /// The record at `seq`, if it was ever in this log.
    #[must_use]
    pub fn record(&self, seq: Seq) -> Option<&Record> {
        let at = usize::try_from(seq.0.checked_sub(self.base.seq.0 + 1)?).ok()?;
        self.records.get(at)
    }

    /// The records after `seq`, at most `most`.
    #[must_use]
    pub fn after(&self, seq: Seq, most: u64) -> &[Record] {
        let at = usize::try_from(seq.0.saturating_sub(self.base.seq.0)).unwrap_or(usize::MAX);
        let rest = self.records.get(at..).unwrap_or_default();
        &rest[..rest.len().min(usize::try_from(most).unwrap_or(usize::MAX))]
    }

    /// Which op this volume has at `seq`, in its log or, from before that, in its objects.
    #[must_use]
    pub fn op_at(&self, seq: Seq) -> Option<Tag> {
        if seq <= self.base.seq {
            return self.object(seq);
        }
        self.record(seq).map(tag)
    }

    /// What is in the place of `seq`.
    #[must_use]
    pub fn object(&self, seq: Seq) -> Option<Tag> {
        let at = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        self.objects.get(at).copied().filter(|tag| *tag != 0)
    }

    /// Writes an op's outcome; what was there before, if it was another op's.
    pub fn write_object(&mut self, seq: Seq, tag: Tag) -> Option<Tag> {
        let at = usize::try_from(seq.0 - 1).unwrap_or(0);
        if self.objects.len() <= at {
            self.objects.resize(at + 1, 0);
        }
        let before = std::mem::replace(&mut self.objects[at], tag);
        (before != 0 && before != tag).then_some(before)
    }

    /// Appends a record that was found to fit (`sync/src/volume/running.rs`, `append`).
    pub fn append(&mut self, record: Record) {
        debug_assert_eq!(record.head.seq, self.head().seq.next());
        if starts(&record) {
            self.lineage = self.lineage.extended(record.head.epoch, record.head.seq);
        }
        self.records.push(record);
    }

    /// Drops the records after `seq` (`sync/src/volume/aside.rs`, `cut`).
    pub fn truncate(&mut self, seq: Seq) {
        let keep = usize::try_from(seq.0.saturating_sub(self.base.seq.0)).unwrap_or(0);
        self.records.truncate(keep);
        self.lineage.0.retain(|(_, first)| *first <= seq);
        self.durable = self.durable.min(seq);
    }

    /// The content goes and another begins (`sync/src/volume/mod.rs`, `begin_again`): what the
    /// old copy acknowledged is gone with it, so it is another volume.
    pub fn begin_again(
        &mut self,
        volume: VolumeId,
        cluster: Option<ClusterId>,
        at: Position,
        lineage: Lineage,
        building: bool,
    ) {
        *self = Disk {
            cluster,
            promised: self.promised,
            leader: self.leader,
            config: self.config.take(),
            base: at,
            base_lineage: lineage.clone(),
            lineage,
            durable: at.seq,
            released: at.seq,
            checkpoint: at.seq,
            building,
            ..Disk::blank(volume)
        };
    }

    /// Another position in one step (`sync/src/volume/switch.rs`): what was born since its
    /// base gives way to what was staged, and `records` are its log.
    pub fn switch(&mut self, staged: &Staged, records: Vec<Record>) {
        if !mutant!("own-tail-kept-by-a-delta") {
            self.objects.truncate(usize::try_from(staged.base.0).unwrap_or(usize::MAX));
        }
        for (seq, tag) in &staged.places {
            let _ = self.write_object(*seq, *tag);
        }
        self.base = staged.to;
        self.base_lineage = staged.lineage.clone();
        self.lineage = staged.lineage.clone();
        self.records.clear();
        records.into_iter().for_each(|record| self.append(record));
        self.rolls_back = Seq(0);
        self.durable = self.head().seq;
        (self.checkpoint, self.released) = (staged.to.seq, staged.to.seq);
    }

    /// What the process' death leaves: in the log some records past the last sync, in order. A
    /// loss of power also takes what the objects have beyond the checkpoint, some of it or all.
    pub fn crash(&mut self, rng: &mut Rng, power: bool) {
        let unsynced = self.head().seq.0 - self.durable.0;
        let left = Seq(self.durable.0 + rng.below(unsynced + 1));
        self.truncate(left);
        // Opening a log syncs what it found (`sync/src/log/recovery.rs`).
        self.durable = left;
        if power {
            for at in usize::try_from(self.checkpoint.0).unwrap_or(0)..self.objects.len() {
                if rng.chance(500) {
                    self.objects[at] = 0;
                }
            }
            while self.objects.last() == Some(&0) {
                self.objects.pop();
            }
        }
    }

    /// The lineage that belongs to the checkpoint: what a copy is told (`SnapshotHeader`).
    #[must_use]
    pub fn lineage_at(&self, seq: Seq) -> Lineage {
        Lineage(self.lineage.0.iter().copied().filter(|(_, first)| *first <= seq).collect())
    }

    /// The position of the record at `seq`.
    #[must_use]
    pub fn position_at(&self, seq: Seq) -> Position {
        let epoch = self.lineage.epoch_at(seq).unwrap_or_default();
        Position { epoch, seq }
    }

    /// The lineage before the log.
    #[must_use]
    pub fn base_lineage(&self) -> &Lineage {
        &self.base_lineage
    }
}
