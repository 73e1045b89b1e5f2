//! What a chunk's bytes are at one op, while later ops are being applied.
//!
//! The hazard is a false alarm: two replicas that are compared at different moments. So a chunk
//! counts as hashed *at* an op only if nothing that was applied after that op had touched it, both
//! before its bytes were read and after: the applier writes a record's bytes and notes its births
//! under one lock, and both questions are asked under that lock. A chunk that has moved on is left
//! to the next time. What a file gained or lost at its end without a write does not count: trailing
//! zeros are not hashed.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::running::Running;
use super::{Volume, VolumeError};
use crate::journal::Objects;
use crate::position::{FileId, Seq};
use crate::quarantine::{Manifest, Quarantine};
use crate::store::CHUNK_BYTES;
use crate::store::index::Compared;

/// blake3 of a chunk's bytes up to the last that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkHash(pub [u8; 32]);

impl std::fmt::Display for ChunkHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl ChunkHash {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> ChunkHash {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        ChunkHash(*blake3::hash(&bytes[..end]).as_bytes())
    }
}

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashed {
    /// Its hash now.
    pub hash: ChunkHash,
    /// Its hash when it was last hashed, if it was not written since. Another one than now's means
    /// that this replica's disk has changed it.
    pub remembered: Option<ChunkHash>,
}

impl Hashed {
    /// Whether this replica knows that its own bytes are wrong.
    #[must_use]
    pub fn is_rotten(&self) -> bool {
        self.remembered.is_some_and(|before| before != self.hash)
    }
}

/// A chunk that got good bytes from another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// Where the bad ones are kept.
    pub kept: std::path::PathBuf,
}

impl Volume {
    /// Waits until chunks can be hashed at `at`: it is applied, and so is whatever a kill may have
    /// left in the objects ahead of it, of which no birth tells before. Blocks.
    ///
    /// # Errors
    /// The volume failed or was closed before.
    pub fn wait_verifiable(&self, at: Seq) -> Result<(), VolumeError> {
        let running = self.running();
        running.progress.wait_applied(at.max(running.touched()))
    }

    /// A chunk's hash at `at`, which is applied; `None` if it has moved on.
    ///
    /// # Errors
    /// What the disk said.
    pub fn hash_chunk(
        &self,
        id: FileId,
        chunk: u64,
        at: Seq,
    ) -> Result<Option<Hashed>, VolumeError> {
        let running = self.running();
        let Some(bytes) = bytes_at(&running, id, chunk, at)? else { return Ok(None) };
        let hash = ChunkHash::of(&bytes);
        // A remembered hash is of the index's row. It is of these bytes unless the chunk was written
        // since the index was, which is asked first: a checkpoint in between takes the hash away.
        let noted = running.live().is_noted(id, chunk);
        let remembered =
            if noted { None } else { running.ledger().index.hash(id, chunk, at)?.map(ChunkHash) };
        Ok(Some(Hashed { hash, remembered }))
    }

    /// A chunk's bytes at `at`; `None` if it has moved on.
    ///
    /// # Errors
    /// What the disk said.
    pub fn chunk_at(&self, id: FileId, chunk: u64, at: Seq) -> Result<Option<Bytes>, VolumeError> {
        Ok(bytes_at(&self.running(), id, chunk, at)?.map(Bytes::from))
    }

    /// Remembers hashes that chunks had at `at`.
    ///
    /// # Errors
    /// What the disk said.
    pub fn remember_hashes(
        &self,
        hashes: &[(FileId, u64, ChunkHash)],
        at: Seq,
    ) -> Result<(), VolumeError> {
        let hashes: Vec<_> = hashes.iter().map(|(id, chunk, hash)| (*id, *chunk, hash.0)).collect();
        Ok(self.running().ledger().index.put_hashes(&hashes, at)?)
    }

    /// Puts `good`, another replica's bytes at `at`, in the place of a chunk's own, which go to
    /// quarantine; `None` if it has moved on.
    ///
    /// # Errors
    /// What the disk said; the chunk is as it was.
    pub fn mend_chunk(
        &self,
        id: FileId,
        chunk: u64,
        at: Seq,
        good: &[u8],
        why: &str,
    ) -> Result<Option<Mended>, VolumeError> {
        let running = self.running();
        let Some(bad) = bytes_at(&running, id, chunk, at)? else { return Ok(None) };
        let quarantine =
            Quarantine::open(self.state_dir(), self.inner.options.quarantine_bytes_max)?;
        let manifest = Manifest::new(why, self.id(), self.durable(), running.lineage());
        let kept = quarantine.keep_bytes(&manifest, &format!("{id}-{chunk}"), &bad)?;
        quarantine.keep_bound()?;
        // Under the applier's lock, so that no record comes between the question and the bytes.
        let live = running.live();
        let Some(size) = live.unchanged_since(id, chunk, at)? else { return Ok(None) };
        let from = chunk * CHUNK_BYTES;
        let length = size.saturating_sub(from).min(CHUNK_BYTES) as usize;
        let mut bytes = vec![0; length];
        let given = good.len().min(length);
        bytes[..given].copy_from_slice(&good[..given]);
        running.objects.write_at(id, from, &bytes)?;
        running.objects.sync(id)?;
        drop(live);
        Ok(Some(Mended { kept }))
    }

    /// When the content was last compared with a leader's, in this volume's life.
    #[must_use]
    pub fn compared(&self) -> Option<Compared> {
        self.running().ledger().index.compared().ok().flatten()
    }

    /// Says that the content was compared now, as of `seq`.
    ///
    /// # Errors
    /// What the disk said.
    pub fn set_compared(&self, seq: Seq) -> Result<(), VolumeError> {
        let at_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(self.running().ledger().index.set_compared(Compared { seq, at_s })?)
    }

    /// The path by which people know a file, if it has a name.
    ///
    /// # Errors
    /// What the disk said.
    pub fn path_of(&self, id: FileId) -> Result<Option<String>, VolumeError> {
        let db = self.running().reader()?;
        let (mut parts, mut at) = (Vec::new(), id);
        while at != FileId::ROOT {
            let sql = "SELECT parent, name FROM entries WHERE child = ? LIMIT 1";
            let found: Option<(FileId, Vec<u8>)> =
                db.query_row(sql, [at], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((parent, name)) = found.filter(|_| parts.len() < 1000) else {
                return Ok(None);
            };
            parts.push(String::from_utf8_lossy(&name).into_owned());
            at = parent;
        }
        parts.reverse();
        Ok(Some(parts.join("/")))
    }

    /// Every chunk of every file that has bytes here, or ever had, as of the last checkpoint.
    ///
    /// # Errors
    /// What the disk said.
    pub fn chunk_walk(&self) -> Result<ChunkWalk, VolumeError> {
        let running = self.running();
        running.checkpoint()?;
        let db = running.reader()?;
        Ok(ChunkWalk { running, db, file: None, last: None })
    }
}

/// The bytes of a chunk at `at`: read between two looks at what has touched it.
fn bytes_at(
    running: &Running,
    id: FileId,
    chunk: u64,
    at: Seq,
) -> Result<Option<Vec<u8>>, VolumeError> {
    if running.progress.applied() < at {
        return Ok(None);
    }
    let Some(size) = running.live().unchanged_since(id, chunk, at)? else { return Ok(None) };
    let from = chunk.saturating_mul(CHUNK_BYTES);
    let mut bytes = vec![0; size.saturating_sub(from).min(CHUNK_BYTES) as usize];
    running
        .objects
        .read_at(id, from, &mut bytes)
        .map_err(VolumeError::on("read", running.objects.path(id)))?;
    Ok(running.live().unchanged_since(id, chunk, at)?.map(|_| bytes))
}

/// A walk over chunks in bounded memory.
pub struct ChunkWalk {
    running: Arc<Running>,
    db: Connection,
    /// The file whose chunks come, its size and the next of them.
    file: Option<(FileId, u64, u64)>,
    last: Option<i64>,
}

impl ChunkWalk {
    /// How many bytes the files have, about: for showing progress.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn bytes(&self) -> Result<u64, VolumeError> {
        let sql = "SELECT count(*) FROM chunks";
        let chunks: i64 = self.db.query_row(sql, [], |row| row.get(0))?;
        Ok(chunks as u64 * CHUNK_BYTES)
    }

    /// The next ones, at most `limit`; empty when that was all.
    ///
    /// # Errors
    /// What the disk said.
    pub fn next(&mut self, limit: usize) -> Result<Vec<(FileId, u64)>, VolumeError> {
        let mut chunks = Vec::new();
        while chunks.len() < limit {
            let Some((id, size, next)) = self.file else {
                match self.next_file()? {
                    Some(file) => self.file = Some(file),
                    None => break,
                }
                continue;
            };
            match self.next_chunk(id, size, next)? {
                Some(chunk) => {
                    chunks.push((id, chunk));
                    self.file = Some((id, size, chunk + 1));
                }
                None => self.file = None,
            }
        }
        Ok(chunks)
    }

    fn next_file(&mut self) -> Result<Option<(FileId, u64, u64)>, VolumeError> {
        let sql = "SELECT id, size FROM nodes WHERE kind = 1 AND size > 0 \
                   AND (?1 IS NULL OR id > ?1) ORDER BY id LIMIT 1";
        let found: Option<(i64, i64)> =
            self.db.query_row(sql, [self.last], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((id, size)) = found else { return Ok(None) };
        self.last = Some(id);
        Ok(Some((FileId(id as u64), size as u64, 0)))
    }

    /// What was never written has no row; what has bytes nonetheless is worth a look.
    fn next_chunk(&self, id: FileId, size: u64, next: u64) -> Result<Option<u64>, VolumeError> {
        let sql = "SELECT chunk FROM chunks WHERE id = ? AND chunk >= ? ORDER BY chunk LIMIT 1";
        let born: Option<i64> =
            self.db.query_row(sql, params![id, next as i64], |row| row.get(0)).optional()?;
        let data = self
            .running
            .objects
            .seek(id, next * CHUNK_BYTES, true)
            .map_err(VolumeError::on("read", self.running.objects.path(id)))?;
        let data = data.map(|offset| offset / CHUNK_BYTES);
        let found = match (born.map(|chunk| chunk as u64), data) {
            (Some(born), Some(data)) => Some(born.min(data)),
            (one, other) => one.or(other),
        };
        Ok(found.filter(|chunk| chunk * CHUNK_BYTES < size))
    }
}
