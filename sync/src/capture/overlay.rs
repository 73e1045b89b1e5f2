//! What the objects do not hold yet: answered bytes on their way through the log.
//!
//! The mount answers a write before any object has it. Until the applier has been there, a read
//! takes the object's bytes and lays over them what is kept here.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;

use crate::op::Change;
use crate::position::{FileId, Seq};

/// One stretch of a file as the ops left it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    seq: Seq,
    end: u64,
    /// `None`: zeros.
    bytes: Option<Bytes>,
}

impl Stretch {
    /// The part `from..to` of this stretch, which starts at `start`.
    fn part(&self, start: u64, from: u64, to: u64) -> Stretch {
        let bytes = self.bytes.as_ref().map(|bytes| {
            let at = |offset: u64| usize::try_from(offset - start).expect("within the buffer");
            bytes.slice(at(from)..at(to))
        });
        Stretch { seq: self.seq, end: to, bytes }
    }
}

/// The unapplied bytes of one file: stretches that do not overlap, each by its start. Where ops
/// overlapped the later one holds, which is what replaying them in order would give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layer {
    stretches: BTreeMap<u64, Stretch>,
}

impl Layer {
    fn insert(&mut self, seq: Seq, start: u64, end: u64, bytes: Option<Bytes>) {
        if start >= end {
            return;
        }
        for (at, old) in self.overlapping(start, end) {
            self.stretches.remove(&at);
            if at < start {
                self.stretches.insert(at, old.part(at, at, start));
            }
            if old.end > end {
                self.stretches.insert(end, old.part(at, end, old.end));
            }
        }
        self.stretches.insert(start, Stretch { seq, end, bytes });
    }

    fn overlapping(&self, start: u64, end: u64) -> Vec<(u64, Stretch)> {
        let first = self.stretches.range(..start).next_back().filter(|(_, old)| old.end > start);
        let rest = self.stretches.range(start..end);
        first.into_iter().chain(rest).map(|(at, old)| (*at, old.clone())).collect()
    }

    /// Forgets what ops up to `applied` left within `start..end`.
    fn forget(&mut self, applied: Seq, start: u64, end: u64) {
        // What is left of one op's stretch never reaches past the stretch that it had.
        let old: Vec<u64> = self
            .stretches
            .range(start..end)
            .filter(|(_, stretch)| stretch.seq <= applied)
            .map(|(at, _)| *at)
            .collect();
        for at in old {
            self.stretches.remove(&at);
        }
    }

    /// What this layer says of `start..end`, to be laid over the object's bytes.
    pub(super) fn view(&self, start: u64, end: u64) -> View {
        let cut = |(at, stretch): (u64, Stretch)| {
            let (from, to) = (at.max(start), stretch.end.min(end));
            (from - start, stretch.part(at, from, to))
        };
        View { start, parts: self.overlapping(start, end).into_iter().map(cut).collect() }
    }
}

/// A layer's part over one range, taken out of the lock: it shares the bytes and copies none.
#[derive(Debug, Default)]
pub(super) struct View {
    start: u64,
    /// `(from the range's start, what)`.
    parts: Vec<(u64, Stretch)>,
}

impl View {
    /// Whether nothing of the object would show through `length` bytes.
    pub(super) fn covers(&self, length: usize) -> bool {
        let covered: u64 = self.parts.iter().map(|(at, part)| part.end - self.start - at).sum();
        covered >= length as u64
    }

    /// Lays the parts over `into`, which holds the object's bytes of the range or of less.
    pub(super) fn lay_over(&self, into: &mut [u8]) {
        for (at, part) in &self.parts {
            let length = into.len();
            let within = |at: u64| usize::try_from(at).map_or(length, |at| at.min(length));
            let target = &mut into[within(*at)..within(part.end - self.start)];
            match &part.bytes {
                Some(bytes) => target.copy_from_slice(&bytes[..target.len()]),
                None => target.fill(0),
            }
        }
    }
}

#[derive(Debug, Default)]
struct Unapplied {
    /// The file's last op.
    last: Seq,
    layer: Layer,
    bytes: u64,
}

/// One op's mark in one file, to be found again once it is applied.
#[derive(Debug)]
struct Mark {
    seq: Seq,
    id: FileId,
    start: u64,
    end: u64,
    bytes: u64,
}

/// The unapplied ops of every file.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    files: HashMap<FileId, Unapplied>,
    /// In the order of seqs.
    marks: VecDeque<Mark>,
    bytes: u64,
}

impl Overlay {
    /// Takes note of one op: what it wrote, and which files it concerned at all.
    ///
    /// `size_of` gives a file's size before the op.
    pub(super) fn note(
        &mut self,
        seq: Seq,
        changes: &[Change],
        payload: &Bytes,
        size_of: impl Fn(FileId) -> Option<u64>,
    ) {
        let mut taken = 0;
        for change in changes {
            match change {
                Change::Write { id, offset, length } => {
                    let end = taken + *length as usize;
                    let bytes = payload.slice(taken..end);
                    taken = end;
                    self.mark(seq, *id, *offset, offset + u64::from(*length), Some(bytes));
                }
                Change::Zero { id, offset, length } => {
                    self.mark(seq, *id, *offset, offset.saturating_add(*length), None);
                }
                Change::Node { id, attributes } => {
                    // A cut: whatever the object still has past the new end reads as zeros, also
                    // if the file grows again before the applier has cut it.
                    let cut = size_of(*id).is_some_and(|size| attributes.size < size);
                    let start = if cut { attributes.size } else { u64::MAX };
                    self.mark(seq, *id, start, u64::MAX, None);
                }
                Change::Entry { parent, child, .. } => {
                    for id in [Some(*parent), *child].into_iter().flatten() {
                        self.mark(seq, id, 0, 0, None);
                    }
                }
                Change::Reserve { id, .. } | Change::Xattr { id, .. } | Change::Gone { id } => {
                    self.mark(seq, *id, 0, 0, None);
                }
                Change::EpochStart { .. } => {}
            }
        }
    }

    fn mark(&mut self, seq: Seq, id: FileId, start: u64, end: u64, bytes: Option<Bytes>) {
        let length = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let file = self.files.entry(id).or_default();
        file.last = seq;
        file.bytes += length;
        self.bytes += length;
        file.layer.insert(seq, start, end, bytes);
        let marked = self.marks.back().is_some_and(|last| (last.seq, last.id) == (seq, id));
        if marked && start >= end {
            return;
        }
        self.marks.push_back(Mark { seq, id, start, end, bytes: length });
    }

    /// The objects hold everything up to `applied`: forgets it.
    pub(super) fn forget(&mut self, applied: Seq) {
        while self.marks.front().is_some_and(|mark| mark.seq <= applied) {
            let Some(mark) = self.marks.pop_front() else { return };
            self.bytes -= mark.bytes;
            let Some(file) = self.files.get_mut(&mark.id) else { continue };
            file.bytes -= mark.bytes;
            if file.last <= applied {
                self.files.remove(&mark.id);
            } else {
                file.layer.forget(applied, mark.start, mark.end);
            }
        }
    }

    /// The last op of `id` that may be unapplied.
    pub(super) fn last(&self, id: FileId) -> Option<Seq> {
        self.files.get(&id).map(|file| file.last)
    }

    /// What to lay over the object's bytes `start..end` of `id`.
    pub(super) fn view(&self, id: FileId, start: u64, end: u64) -> View {
        self.files.get(&id).map_or_else(View::default, |file| file.layer.view(start, end))
    }

    /// Whether the object of `id` may differ from the file.
    pub(super) fn is_behind(&self, id: FileId) -> bool {
        self.files.get(&id).is_some_and(|file| !file.layer.stretches.is_empty())
    }

    /// Bytes written to `id` that its object does not hold yet.
    pub(super) fn bytes_of(&self, id: FileId) -> u64 {
        self.files.get(&id).map_or(0, |file| file.bytes)
    }

    /// Bytes written that no object holds yet.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
#[path = "overlay/tests.rs"]
mod tests;
