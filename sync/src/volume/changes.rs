//! Reads out what was born after an op, while the volume goes on changing.
//!
//! As a [`Snapshot`], and right for the same reason: rows are exact as of the checkpoint that is
//! pinned, bytes may be newer, and the receiver applies every record after that checkpoint up to
//! one that was durable when the last byte had been read. The receiver asks for bytes chunk by
//! chunk, with hashes of what it has, and gets the blocks that differ.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::VolumeError;
use super::running::Running;
use super::snapshot::{Snapshot, SnapshotHeader};
use crate::journal::Objects;
use crate::position::{ClusterId, FileId, Position, Seq};
use crate::store::born::{self, Born, OfFile};
use crate::store::rows::{self, Cursor, Row};
use crate::store::stage::{BLOCK_BYTES, CHUNK_BLOCKS, Want};
use crate::store::{CHUNK_BYTES, StoreError};

const ROWS_MAX: usize = 1024;

/// The first half of blake3: enough that no accident and no forger makes two blocks equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockHash(pub [u8; 16]);

impl BlockHash {
    /// Of a block's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> BlockHash {
        let whole = *blake3::hash(bytes).as_bytes();
        BlockHash(std::array::from_fn(|at| whole[at]))
    }
}

/// What a delta begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesHeader {
    /// As of a full copy.
    pub snapshot: SnapshotHeader,
    /// Rows born after this, and what else is asked for. The op in common that was asked for, or the
    /// checkpoint if that is before it: what is applied here does not reach the op in common yet.
    pub since: Seq,
    /// All rows (of chunks, those born after `since`) and not only the changed ones, as deletions
    /// may have left no trace.
    pub whole: bool,
}

/// A chunk that the receiver asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Whose.
    pub id: FileId,
    /// Which of its chunks.
    pub chunk: u64,
    /// Hashes of the receiver's blocks, as many as the file has there.
    pub hashes: Vec<BlockHash>,
}

/// Blocks next to one another that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// Their place in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// Which; `None` is as many zeros.
    pub bytes: Option<Bytes>,
}

/// A delta that is being read out.
pub struct Changes {
    snapshot: Snapshot,
    header: ChangesHeader,
    /// The op in common, as the receiver said.
    shared: Seq,
    walk: Walk,
    wants: VecDeque<Want>,
    absent: Vec<Want>,
    file: Option<OfFile>,
}

enum Walk {
    Born(Born),
    All(Cursor),
}

impl Changes {
    pub(super) fn begin(
        running: Arc<Running>,
        cluster: ClusterId,
        shared: Seq,
        whole: bool,
    ) -> Result<Changes, VolumeError> {
        let snapshot = Snapshot::begin(running, cluster)?;
        let at = snapshot.header().clone();
        // A new leader applies nothing before its EpochStart is committed, and that may need the
        // copy of the very replica that asks: so what both have and only the other has applied is
        // rolled back there too, and comes again as records. Deletions since the earlier op may
        // have left no trace there.
        let since = shared.min(at.position.seq);
        let whole = whole || at.floor > since || since < shared;
        let walk =
            if whole { Walk::All(Cursor::default()) } else { Walk::Born(Born::after(since)) };
        let header = ChangesHeader { snapshot: at, since, whole };
        let (wants, absent) = (VecDeque::new(), Vec::new());
        Ok(Changes { snapshot, header, shared, walk, wants, absent, file: None })
    }

    /// What it is of.
    #[must_use]
    pub fn header(&self) -> &ChangesHeader {
        &self.header
    }

    /// The next of the leader's own changes; empty when that was all.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn next_rows(&mut self) -> Result<Vec<Row>, VolumeError> {
        let db = self.snapshot.db();
        let since = self.header.since;
        match &mut self.walk {
            Walk::Born(born) => Ok(born.next(db, ROWS_MAX)?),
            Walk::All(cursor) => loop {
                let mut rows = cursor.next(db, ROWS_MAX)?;
                let end = rows.is_empty();
                rows.retain(|row| !matches!(row, Row::Chunk { birth, .. } if *birth <= since));
                if end || !rows.is_empty() {
                    return Ok(rows);
                }
            },
        }
    }

    /// Asks for the rows of `wants`, which [`Changes::next_answer`] then gives.
    pub fn ask(&mut self, wants: Vec<Want>) {
        self.wants.extend(wants);
    }

    /// The next of the rows that were asked for; empty when that was all.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn next_answer(&mut self) -> Result<Vec<Row>, VolumeError> {
        let mut rows = Vec::new();
        while rows.len() < ROWS_MAX {
            let db = self.snapshot.db();
            if let Some(file) = &mut self.file {
                let more = file.next(db, ROWS_MAX)?;
                if more.is_empty() {
                    self.file = None;
                }
                rows.extend(more);
                continue;
            }
            let Some(want) = self.wants.pop_front() else { break };
            let found = match &want {
                Want::Node(id) => born::node(db, *id)?,
                Want::Entry(parent, name) => born::entry(db, *parent, name)?,
                Want::Xattr(id, name) => born::xattr(db, *id, name)?,
                Want::Chunk(id, chunk) => born::chunk(db, *id, *chunk)?,
                Want::Whole(id) => {
                    let node = born::node(db, *id)?;
                    // The node comes again with the rest of the file.
                    self.file = node.as_ref().map(|_| OfFile::new(*id));
                    node
                }
            };
            match found {
                Some(row) => rows.push(row),
                None => self.absent.push(want),
            }
        }
        Ok(rows)
    }

    /// Which of the wants, since the last time, this volume has no row for.
    pub fn take_absent(&mut self) -> Vec<Want> {
        std::mem::take(&mut self.absent)
    }

    /// What of a chunk differs from what `ask` says.
    ///
    /// # Errors
    /// A file or a chunk that is not there, or what the disk said.
    pub fn differing(&self, ask: &Ask) -> Result<Vec<Differing>, VolumeError> {
        let size = match rows::node(self.snapshot.db(), ask.id)? {
            Some(of) if of.kind == crate::op::Kind::File => of.size,
            _ => return Err(unsound(ask, "no regular file")),
        };
        let from = ask.chunk.checked_mul(CHUNK_BYTES).filter(|from| *from < size);
        let Some(from) = from else { return Err(unsound(ask, "past its end")) };
        let length = (size - from).min(CHUNK_BYTES);
        if ask.hashes.len() as u64 != length.div_ceil(BLOCK_BYTES) {
            return Err(unsound(ask, "another number of blocks"));
        }
        let objects = self.snapshot.objects();
        let mut bytes = vec![0; length as usize];
        // Shorter than the rows say: cut by a record that the receiver will apply.
        objects
            .read_at(ask.id, from, &mut bytes)
            .map_err(VolumeError::on("read", objects.path(ask.id)))?;
        Ok(differing(from, &bytes.into(), &ask.hashes))
    }

    /// As [`Snapshot::through`], once everything was asked for; and no less than the op in common:
    /// the receiver acknowledged that, and must have it again before it gives up what it has.
    #[must_use]
    pub fn through(&self) -> Position {
        let needed = self.snapshot.through();
        self.snapshot.position_of(needed.seq.max(self.shared))
    }
}

fn unsound(ask: &Ask, why: &str) -> VolumeError {
    let Ask { id, chunk, .. } = ask;
    StoreError::Unsound(format!("chunk {chunk} of file {id} is asked for: {why}")).into()
}

/// The blocks of `bytes` whose hashes are not `hashes`, neighbours together.
fn differing(from: u64, bytes: &Bytes, hashes: &[BlockHash]) -> Vec<Differing> {
    let mut found: Vec<Differing> = Vec::with_capacity(CHUNK_BLOCKS as usize);
    for (at, hash) in hashes.iter().enumerate() {
        let start = at * BLOCK_BYTES as usize;
        let end = (start + BLOCK_BYTES as usize).min(bytes.len());
        let block = &bytes[start..end];
        if BlockHash::of(block) == *hash {
            continue;
        }
        let (offset, length) = (from + start as u64, block.len() as u64);
        let zeros = block.iter().all(|byte| *byte == 0);
        match found.last_mut() {
            Some(last) if last.offset + last.length == offset && last.bytes.is_none() == zeros => {
                last.length += length;
                if !zeros {
                    last.bytes = Some(bytes.slice((last.offset - from) as usize..end));
                }
            }
            _ => {
                let bytes = (!zeros).then(|| bytes.slice(start..end));
                found.push(Differing { offset, length, bytes });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_go_together_and_zeros_apart() {
        let block = BLOCK_BYTES as usize;
        let mut bytes = vec![1; 4 * block + 100];
        bytes[2 * block..3 * block].fill(0);
        let bytes = Bytes::from(bytes);
        let same = BlockHash::of(&bytes[..block]);
        let other = BlockHash([0; 16]);
        let found = differing(CHUNK_BYTES, &bytes, &[other, other, other, same, other]);
        let places: Vec<_> = found
            .iter()
            .map(|of| (of.offset - CHUNK_BYTES, of.length, of.bytes.is_none()))
            .collect();
        let block = BLOCK_BYTES;
        assert_eq!(
            places,
            [(0, 2 * block, false), (2 * block, block, true), (4 * block, 100, false)]
        );
        assert_eq!(found[0].bytes.as_ref().unwrap().len() as u64, 2 * block);
        assert!(differing(0, &bytes.slice(..block as usize), &[same]).is_empty());
    }
}
