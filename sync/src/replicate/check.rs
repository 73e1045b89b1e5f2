//! What a record from the network must be before a follower's log may take it. Pure.
//!
//! The leader holds the cluster's secret, which is no reason to believe it: one that is broken,
//! or was replaced, must not be able to make a follower's log other than a log that some leader
//! wrote. What is inside a record (names, offsets, sizes) is judged by [`crate::store::sound`].

use crate::op::{Change, Head, Record};
use crate::position::{Epoch, FileId, Lineage, Seq};
use crate::store::sound;

/// A record that does not belong here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Not the next one.
    #[error("record {found} came where {expected} should have")]
    OutOfOrder {
        /// The seq that fits.
        expected: Seq,
        /// The one that came.
        found: Seq,
    },
    /// Of another epoch than the leader's lineage says.
    #[error("record {seq} is of epoch {found}, and by the leader's lineage of {expected}")]
    OtherEpoch {
        /// The record.
        seq: Seq,
        /// By the lineage.
        expected: Epoch,
        /// What it says.
        found: Epoch,
    },
    /// An epoch's start where none is, or none where one is.
    #[error("record {seq} {}", if *.starts { "starts an epoch in the middle of one" } else {
        "should start its epoch and does not" })]
    Start {
        /// The record.
        seq: Seq,
        /// Whether it says that it starts one.
        starts: bool,
    },
    /// It names a file that cannot exist yet.
    #[error("record {seq} of epoch {epoch} names file {id}, which only a later epoch could create")]
    FutureFile {
        /// The record.
        seq: Seq,
        /// Its epoch.
        epoch: Epoch,
        /// The file.
        id: FileId,
    },
    /// Its content is of no use.
    #[error("record {seq}: {why}")]
    Unsound {
        /// The record.
        seq: Seq,
        /// What is wrong.
        why: String,
    },
}

/// The place that the next record must take.
#[derive(Clone, Debug)]
pub struct Expected {
    lineage: Lineage,
    next: Seq,
}

impl Expected {
    /// After `after`, along the leader's `lineage` (whose last epoch is the session's).
    #[must_use]
    pub fn new(lineage: Lineage, after: Seq) -> Expected {
        Expected { lineage, next: after.next() }
    }

    /// Passes `record` and expects the one after it.
    ///
    /// # Errors
    /// Why it does not fit; the session is over.
    pub fn pass(&mut self, record: &Record) -> Result<(), Unfit> {
        let head = &record.head;
        let (expected, found) = (self.next, head.seq);
        if expected != found {
            return Err(Unfit::OutOfOrder { expected, found });
        }
        self.fits_lineage(head)?;
        fits_epoch(head)?;
        sound::record(record).map_err(|why| Unfit::Unsound { seq: head.seq, why })?;
        self.next = head.seq.next();
        Ok(())
    }

    fn fits_lineage(&self, head: &Head) -> Result<(), Unfit> {
        let seq = head.seq;
        let expected = self.lineage.epoch_at(seq).unwrap_or_default();
        if head.epoch != expected {
            return Err(Unfit::OtherEpoch { seq, expected, found: head.epoch });
        }
        let starts = head.changes.iter().any(|change| matches!(change, Change::EpochStart { .. }));
        let first = self.lineage.0.contains(&(head.epoch, seq));
        if starts != first {
            return Err(Unfit::Start { seq, starts });
        }
        Ok(())
    }
}

fn fits_epoch(head: &Head) -> Result<(), Unfit> {
    let (seq, epoch) = (head.seq, head.epoch);
    for change in &head.changes {
        let (one, other) = match change {
            Change::Node { id, .. }
            | Change::Gone { id }
            | Change::Write { id, .. }
            | Change::Zero { id, .. }
            | Change::Reserve { id, .. }
            | Change::Xattr { id, .. } => (*id, None),
            Change::Entry { parent, child, .. } => (*parent, *child),
            Change::EpochStart { .. } => continue,
        };
        for id in [Some(one), other].into_iter().flatten() {
            if id == FileId(0) || id.0 >> 40 > epoch.0 {
                return Err(Unfit::FutureFile { seq, epoch, id });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::op::Time;

    fn record(epoch: u64, seq: u64, changes: Vec<Change>) -> Record {
        let head = Head { epoch: Epoch(epoch), seq: Seq(seq), at: Time::default(), changes };
        Record { head, payload: Bytes::new() }
    }

    fn start(epoch: u64, seq: u64) -> Record {
        record(epoch, seq, vec![Change::EpochStart { node: "a".into() }])
    }

    fn entry(name: &[u8], child: FileId) -> Change {
        Change::Entry { parent: FileId::ROOT, name: name.to_vec(), child: Some(child) }
    }

    fn expected(after: u64) -> Expected {
        Expected::new(Lineage(vec![(Epoch(1), Seq(1)), (Epoch(3), Seq(5))]), Seq(after))
    }

    #[test]
    fn the_leaders_own_log_passes_across_an_epoch() {
        let mut expected = expected(3);
        let file = FileId::new(Epoch(3), 7);
        for record in [record(1, 4, vec![]), start(3, 5), record(3, 6, vec![entry(b"x", file)])] {
            assert_eq!(expected.pass(&record), Ok(()), "{record:?}");
        }
    }

    #[test]
    fn what_no_leader_wrote_is_refused() {
        let with = |change| record(3, 6, vec![change]);
        let file = FileId::new(Epoch(3), 7);
        let table = [
            ("one too far", record(3, 7, vec![])),
            ("one again", start(3, 5)),
            ("an older epoch", record(1, 6, vec![])),
            ("a newer epoch", record(4, 6, vec![])),
            ("a second start", start(3, 6)),
            ("a path", with(entry(b"../x", file))),
            ("a name of nothing", with(entry(b"", file))),
            ("a file of the next epoch", with(entry(b"x", FileId::new(Epoch(4), 0)))),
            ("file 0", with(Change::Gone { id: FileId(0) })),
            ("bytes that are not there", with(Change::Write { id: file, offset: 0, length: 1 })),
        ];
        for (name, record) in table {
            let mut expected = expected(5);
            assert!(expected.pass(&record).is_err(), "{name}");
            assert_eq!(expected.next, Seq(6), "{name}: nothing was passed");
        }
        assert!(expected(4).pass(&record(3, 5, vec![])).is_err(), "an epoch without its start");
    }
}
