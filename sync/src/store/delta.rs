//! What ops changed since the last checkpoint, by key and with births.
//!
//! Pure. The applier notes each record here instead of in SQL; a checkpoint writes the whole of it
//! in one transaction. Of several changes of one key only the last is kept, so its size follows
//! what was touched and not how often.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::CHUNK_BYTES;
use crate::op::{Attributes, Change, Head, Kind};
use crate::position::{FileId, Seq};

/// A value and the op that set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Born<T> {
    /// What it is now.
    pub value: T,
    /// Since which op.
    pub birth: Seq,
}

/// New births of one file's chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    /// Chunks that were written.
    pub written: BTreeMap<u64, Seq>,
    /// `[from, to)` lost bytes to a truncation or a hole: every chunk in it *that was ever
    /// written* has at least this birth. Kept as ranges, as a hole may span millions of chunks of
    /// which none exists.
    pub cut: Vec<(u64, u64, Seq)>,
}

impl Chunks {
    /// Whether the chunk has, or would have if it was ever written, a birth after `seq`.
    pub(super) fn newer(&self, chunk: u64, seq: Seq) -> bool {
        let cut =
            |(from, to, birth): &(u64, u64, Seq)| (*from..*to).contains(&chunk) && *birth > seq;
        self.written.get(&chunk).is_some_and(|birth| *birth > seq) || self.cut.iter().any(cut)
    }

    fn write(&mut self, from: u64, to: u64, birth: Seq) {
        for chunk in from..to {
            self.written.insert(chunk, birth);
        }
    }

    fn cut(&mut self, from: u64, to: u64, birth: Seq) {
        if from >= to {
            return;
        }
        for (_, stamped) in self.written.range_mut(from..to) {
            *stamped = birth;
        }
        // The newest birth wins everywhere, so what lies inside the new range says nothing more.
        self.cut.retain(|(first, end, _)| *first < from || *end > to);
        self.cut.push((from, to, birth));
    }
}

/// Names in one directory, or attributes of one file, by name.
type Named<T> = HashMap<FileId, BTreeMap<Vec<u8>, Born<Option<T>>>>;

/// Everything that changed, with its birth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Files; `None` is gone for good.
    pub nodes: HashMap<FileId, Born<Option<Attributes>>>,
    /// By directory and name; `None` is a name that was taken away.
    pub entries: Named<FileId>,
    /// By file and attribute name; `None` is one that was taken away.
    pub xattrs: Named<Vec<u8>>,
    /// By file.
    pub chunks: HashMap<FileId, Chunks>,
    /// Objects that are to be synced before this delta may be called stored.
    pub dirty: HashSet<FileId>,
    /// Changes noted, the repeated ones too: how long replaying them would take.
    pub noted: usize,
}

impl Delta {
    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.noted == 0
    }

    /// Notes one record. `size_before` says how long a regular file was before the record; what a
    /// change of the same record did to it is taken into account here.
    pub fn note(&mut self, head: &Head, size_before: impl Fn(FileId) -> u64) {
        let mut sizes: HashMap<FileId, u64> = HashMap::new();
        self.noted += head.changes.len().max(1);
        for change in &head.changes {
            match change {
                Change::Node { id, attributes } => {
                    if attributes.kind == Kind::File {
                        let before = *sizes.entry(*id).or_insert_with(|| size_before(*id));
                        self.resize(*id, before, attributes.size, head.seq);
                        sizes.insert(*id, attributes.size);
                    }
                    self.nodes.insert(*id, born(Some(attributes.clone()), head.seq));
                }
                Change::Gone { id } => {
                    self.nodes.insert(*id, born(None, head.seq));
                    self.entries.remove(id);
                    self.xattrs.remove(id);
                    self.chunks.remove(id);
                    self.dirty.remove(id);
                }
                Change::Entry { parent, name, child } => {
                    let names = self.entries.entry(*parent).or_default();
                    names.insert(name.clone(), born(*child, head.seq));
                }
                Change::Xattr { id, name, value } => {
                    let names = self.xattrs.entry(*id).or_default();
                    names.insert(name.clone(), born(value.clone(), head.seq));
                }
                Change::Write { id, offset, length } => {
                    let (from, to) = chunks_of(*offset, u64::from(*length));
                    self.chunks.entry(*id).or_default().write(from, to, head.seq);
                    self.dirty.insert(*id);
                }
                Change::Zero { id, offset, length } => {
                    let (from, to) = chunks_of(*offset, *length);
                    self.chunks.entry(*id).or_default().cut(from, to, head.seq);
                    self.dirty.insert(*id);
                }
                Change::Reserve { .. } | Change::EpochStart { .. } => {}
            }
        }
    }

    /// A cut file keeps births on what was cut off: its size may come back and its bytes not.
    fn resize(&mut self, id: FileId, before: u64, after: u64, birth: Seq) {
        if after < before {
            let to = before.div_ceil(CHUNK_BYTES);
            self.chunks.entry(id).or_default().cut(after / CHUNK_BYTES, to, birth);
        }
        if after != before {
            self.dirty.insert(id);
        }
    }

    /// The files that are gone.
    pub fn gone(&self) -> impl Iterator<Item = FileId> + '_ {
        self.nodes.iter().filter(|(_, node)| node.value.is_none()).map(|(id, _)| *id)
    }
}

fn born<T>(value: T, birth: Seq) -> Born<T> {
    Born { value, birth }
}

/// `[first, end)` chunks that `length` bytes from `offset` touch.
pub(crate) fn chunks_of(offset: u64, length: u64) -> (u64, u64) {
    let end = offset.saturating_add(length);
    (offset / CHUNK_BYTES, end.div_ceil(CHUNK_BYTES).max(offset / CHUNK_BYTES))
}
