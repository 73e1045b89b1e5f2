//! A delta on its way: what is to be different in a volume, beside it and not in it.
//!
//! Called by the follower's catch-up. Rows and blocks of the leader are collected here while the
//! volume stays as it is, at its old position and promotable. [`switch`](Stage::put_into) then
//! puts all of it into the objects and the index; doing that twice, or again after a kill in the
//! middle, ends in the same volume, which is what makes the switch one step.
//!
//! What of the blocks survives a kill is a guess of what the leader has, never trusted: a chunk
//! is asked for again with the hashes of what is here, and only what differs is sent.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::index::{self, Checkpoint};
use super::rows::{self, Row};
use super::{CHUNK_BYTES, StoreError};
use crate::position::{FileId, Position, Seq};

/// Bytes that are compared and sent as one.
pub const BLOCK_BYTES: u64 = 8 * 1024;

/// Blocks in a chunk.
pub const CHUNK_BLOCKS: u64 = CHUNK_BYTES / BLOCK_BYTES;

/// Bytes of blocks between two commits.
const COMMIT_BYTES: u64 = 8 << 20;

const ROWS: &str = "rows.db";
const BLOCKS: &str = "blocks";

const STAGE_SCHEMA: &str = "
CREATE TABLE stage(
    one INTEGER PRIMARY KEY CHECK (one = 1),
    base_epoch INTEGER NOT NULL, base_seq INTEGER NOT NULL,
    from_epoch INTEGER NOT NULL, from_seq INTEGER NOT NULL, whole INTEGER NOT NULL) STRICT;
CREATE TABLE want(
    kind INTEGER NOT NULL, id INTEGER NOT NULL, name BLOB NOT NULL, chunk INTEGER NOT NULL,
    PRIMARY KEY (kind, id, name, chunk)) STRICT, WITHOUT ROWID;
CREATE TABLE absent(
    kind INTEGER NOT NULL, id INTEGER NOT NULL, name BLOB NOT NULL, chunk INTEGER NOT NULL,
    PRIMARY KEY (kind, id, name, chunk)) STRICT, WITHOUT ROWID;
CREATE TABLE need(
    id INTEGER NOT NULL, first INTEGER NOT NULL, past INTEGER NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (id, first)) STRICT, WITHOUT ROWID;
CREATE TABLE blocks(
    id INTEGER NOT NULL, block INTEGER NOT NULL, place INTEGER, length INTEGER NOT NULL,
    PRIMARY KEY (id, block)) STRICT, WITHOUT ROWID;
";

/// Something that this replica changed in a history that lost, and that the leader may have as it
/// was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// A file's attributes.
    Node(FileId),
    /// A name.
    Entry(FileId, Vec<u8>),
    /// An extended attribute.
    Xattr(FileId, Vec<u8>),
    /// A chunk's birth. Its bytes are asked for later, with all others.
    Chunk(FileId, u64),
    /// Everything of a file, which is gone here.
    Whole(FileId),
}

/// A chunk whose bytes may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Of which file.
    pub id: FileId,
    /// Which of its chunks.
    pub chunk: u64,
    /// The file's size where the delta ends.
    pub size: u64,
}

impl Need {
    /// Where the chunk's bytes begin, and how many of them the file has.
    #[must_use]
    pub fn extent(&self) -> (u64, u64) {
        let from = self.chunk * CHUNK_BYTES;
        (from, self.size.saturating_sub(from).min(CHUNK_BYTES))
    }
}

/// A delta in a directory of its own.
pub struct Stage {
    pub(super) dir: PathBuf,
    pub(super) db: Connection,
    pub(super) blocks: File,
    end: u64,
    uncommitted: u64,
}

impl Stage {
    /// Opens the delta in `dir`, or begins one there, for a volume at `from` that shares its
    /// history with the leader up to `base`. Blocks of an earlier attempt are kept as guesses if
    /// the volume has not changed since.
    ///
    /// # Errors
    /// What the disk or SQLite said.
    pub fn begin(dir: &Path, base: Position, from: Position) -> Result<Stage, StoreError> {
        if dir.exists() {
            match Stage::open(dir) {
                Ok(mut stage) if stage.bounds()? == Some((base, from)) => {
                    stage.forget_rows(base, from)?;
                    return Ok(stage);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("an unfinished delta is begun anew: {error}"),
            }
            fs::remove_dir_all(dir).map_err(StoreError::on("remove", dir))?;
        }
        fs::create_dir_all(dir).map_err(StoreError::on("create", dir))?;
        let stage = Stage::open(dir)?;
        stage.db.execute_batch(index::SCHEMA)?;
        stage.db.execute_batch(STAGE_SCHEMA)?;
        stage.set_bounds(base, from)?;
        stage.db.execute_batch("BEGIN")?;
        Ok(stage)
    }

    /// Opens the one in `dir`.
    ///
    /// # Errors
    /// What the disk or SQLite said.
    pub fn open(dir: &Path) -> Result<Stage, StoreError> {
        let db = Connection::open(dir.join(ROWS))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        // What counts is made durable when the delta is sealed.
        db.pragma_update(None, "synchronous", "NORMAL")?;
        let path = dir.join(BLOCKS);
        let blocks = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::on("open", &path))?;
        let end = blocks.metadata().map_err(StoreError::on("stat", &path))?.len();
        Ok(Stage { dir: dir.to_owned(), db, blocks, end, uncommitted: 0 })
    }

    /// The last op in common, and where the volume stands.
    fn bounds(&self) -> Result<Option<(Position, Position)>, StoreError> {
        let sql = "SELECT base_epoch, base_seq, from_epoch, from_seq FROM stage";
        Ok(self
            .db
            .query_row(sql, [], |row| {
                let base = Position { epoch: row.get(0)?, seq: row.get(1)? };
                Ok((base, Position { epoch: row.get(2)?, seq: row.get(3)? }))
            })
            .optional()?)
    }

    fn set_bounds(&self, base: Position, from: Position) -> Result<(), StoreError> {
        self.db.execute(
            "REPLACE INTO stage VALUES (1, ?, ?, ?, ?, 0)",
            params![base.epoch, base.seq, from.epoch, from.seq],
        )?;
        Ok(())
    }

    /// Rows are cheap and exact as of one checkpoint: they are fetched anew.
    fn forget_rows(&mut self, base: Position, from: Position) -> Result<(), StoreError> {
        self.db.execute_batch("BEGIN")?;
        let tables = ["nodes", "entries", "xattrs", "chunks", "gone", "want", "absent", "need"];
        for table in tables {
            self.db.execute(&format!("DELETE FROM {table}"), [])?;
        }
        self.set_bounds(base, from)
    }

    /// Says where the delta leads, and whether its rows are all that there are and not only those
    /// that changed.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn set_target(&mut self, to: &Checkpoint, whole: bool) -> Result<(), StoreError> {
        index::move_checkpoint(&self.db, to)?;
        self.db.execute("UPDATE stage SET whole = ?", [whole])?;
        Ok(())
    }

    pub(super) fn target(&self) -> Result<(Checkpoint, bool, Position), StoreError> {
        let sql = "SELECT whole, base_epoch, base_seq FROM stage";
        let (whole, base) = self.db.query_row(sql, [], |row| {
            Ok((row.get(0)?, Position { epoch: row.get(1)?, seq: row.get(2)? }))
        })?;
        Ok((index::checkpoint(&self.db)?, whole, base))
    }

    /// Keeps rows of the leader.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn put(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        for row in rows {
            rows::put(&self.db, row)?;
        }
        Ok(())
    }

    /// Keeps that the leader has none of these.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn put_absent(&mut self, wants: &[Want]) -> Result<(), StoreError> {
        let sql = "REPLACE INTO absent(kind, id, name, chunk) VALUES (?, ?, ?, ?)";
        for want in wants {
            let (kind, id, name, chunk) = want_key(want);
            self.db.prepare_cached(sql)?.execute(params![kind, id, name, chunk])?;
        }
        Ok(())
    }

    /// Finds out what must be asked of the leader besides what it changed: whatever the volume,
    /// whose index is `ours`, changed after the last op in common. All of the leader's rows are
    /// here; the volume stands still.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn find_wants(&mut self, ours: &Path) -> Result<(), StoreError> {
        self.with_ours(ours, |stage| {
            let (_, whole, base) = stage.target()?;
            let diverged = stage.bounds()?.is_some_and(|(base, from)| from != base);
            if !diverged {
                return Ok(());
            }
            let since = base.seq;
            if whole {
                stage.run(
                    "INSERT OR IGNORE INTO want SELECT 5, id, x'', 0 FROM main.nodes n \
                     WHERE NOT EXISTS (SELECT 1 FROM ours.nodes o WHERE o.id = n.id)",
                )?;
            } else {
                stage.want_rows(since)?;
            }
            stage.db.execute(
                "INSERT OR IGNORE INTO want SELECT 4, id, x'', chunk FROM ours.chunks o \
                 WHERE birth > ? AND NOT EXISTS (SELECT 1 FROM main.gone g WHERE g.id = o.id) \
                 AND NOT EXISTS \
                 (SELECT 1 FROM main.chunks m WHERE m.id = o.id AND m.chunk = o.chunk)",
                [since],
            )?;
            Ok(())
        })
    }

    fn want_rows(&self, since: Seq) -> Result<(), StoreError> {
        for sql in [
            "INSERT OR IGNORE INTO want SELECT 5, id, x'', 0 FROM ours.gone o WHERE birth > ? \
             AND NOT EXISTS (SELECT 1 FROM main.gone g WHERE g.id = o.id)",
            "INSERT OR IGNORE INTO want SELECT 1, id, x'', 0 FROM ours.nodes o WHERE birth > ? \
             AND NOT EXISTS (SELECT 1 FROM main.nodes m WHERE m.id = o.id) \
             AND NOT EXISTS (SELECT 1 FROM main.gone g WHERE g.id = o.id)",
            "INSERT OR IGNORE INTO want SELECT 2, parent, name, 0 FROM ours.entries o \
             WHERE birth > ? AND NOT EXISTS \
             (SELECT 1 FROM main.entries m WHERE m.parent = o.parent AND m.name = o.name) \
             AND NOT EXISTS (SELECT 1 FROM main.gone g WHERE g.id = o.parent)",
            "INSERT OR IGNORE INTO want SELECT 3, id, name, 0 FROM ours.xattrs o \
             WHERE birth > ? AND NOT EXISTS \
             (SELECT 1 FROM main.xattrs m WHERE m.id = o.id AND m.name = o.name) \
             AND NOT EXISTS (SELECT 1 FROM main.gone g WHERE g.id = o.id)",
        ] {
            self.db.execute(sql, [since])?;
        }
        Ok(())
    }

    /// The next wants after `last`, at most `limit`.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn wants(&self, last: Option<&Want>, limit: usize) -> Result<Vec<Want>, StoreError> {
        let (kind, id, name, chunk) = last.map_or((0, i64::MIN, &[][..], 0), want_key);
        let mut query = self.db.prepare_cached(
            "SELECT kind, id, name, chunk FROM want WHERE (kind, id, name, chunk) > (?, ?, ?, ?) \
             ORDER BY kind, id, name, chunk LIMIT ?",
        )?;
        let wants = query.query_map(params![kind, id, name, chunk, limit as i64], |row| {
            let (id, name, chunk): (FileId, Vec<u8>, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(match row.get(0)? {
                1 => Want::Node(id),
                2 => Want::Entry(id, name),
                3 => Want::Xattr(id, name),
                4 => Want::Chunk(id, chunk as u64),
                _ => Want::Whole(id),
            })
        })?;
        Ok(wants.collect::<rusqlite::Result<_>>()?)
    }

    /// Finds out which chunks' bytes are to be fetched, and says how many. All rows and answers
    /// are here.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn find_needs(&mut self, ours: &Path) -> Result<u64, StoreError> {
        self.with_ours(ours, |stage| {
            let (_, whole, base) = stage.target()?;
            // The size of a file where the delta ends; none if it is no regular file there.
            let ours_size = if whole {
                "NULL"
            } else {
                "(SELECT o.size FROM ours.nodes o WHERE o.id = c.id AND o.kind = 1 \
                 AND NOT EXISTS (SELECT 1 FROM main.nodes m WHERE m.id = c.id) \
                 AND NOT EXISTS (SELECT 1 FROM main.gone g WHERE g.id = c.id) \
                 AND NOT EXISTS (SELECT 1 FROM absent a WHERE a.kind = 1 AND a.id = c.id))"
            };
            let size = format!(
                "coalesce((SELECT m.size FROM main.nodes m WHERE m.id = c.id AND m.kind = 1), \
                 {ours_size}, 0)"
            );
            for schema in ["main", "ours"] {
                stage.db.execute(
                    &format!(
                        "INSERT OR IGNORE INTO need SELECT c.id, c.chunk, c.chunk + 1, {size} \
                         FROM {schema}.chunks c WHERE c.birth > ? AND c.chunk < \
                         ({size} + {CHUNK_BYTES} - 1) / {CHUNK_BYTES}"
                    ),
                    [base.seq],
                )?;
            }
            stage.run(
                "DELETE FROM need WHERE EXISTS \
                 (SELECT 1 FROM want w WHERE w.kind = 5 AND w.id = need.id)",
            )?;
            stage.run(&format!(
                "INSERT OR IGNORE INTO need SELECT m.id, 0, \
                 (m.size + {CHUNK_BYTES} - 1) / {CHUNK_BYTES}, m.size FROM want w \
                 JOIN main.nodes m ON m.id = w.id WHERE w.kind = 5 AND m.kind = 1 AND m.size > 0"
            ))?;
            let sql = "SELECT coalesce(sum(past - first), 0) FROM need";
            let chunks: i64 = stage.db.query_row(sql, [], |row| row.get(0))?;
            Ok(chunks as u64)
        })
    }

    /// The next needs after `last`, at most `limit`.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn needs(&self, last: Option<Need>, limit: usize) -> Result<Vec<Need>, StoreError> {
        let (id, next) =
            last.map_or((i64::MIN, 0), |last| (last.id.0 as i64, (last.chunk + 1) as i64));
        let mut query = self.db.prepare_cached(
            "SELECT id, first, past, size FROM need \
             WHERE id > ?1 OR (id = ?1 AND past > ?2) ORDER BY id, first LIMIT ?3",
        )?;
        let mut found = query.query(params![id, next, limit as i64])?;
        let mut needs = Vec::new();
        while let Some(row) = found.next()? {
            let of: FileId = row.get(0)?;
            let (first, past, size): (i64, i64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let first = if of.0 as i64 == id { first.max(next) } else { first };
            for chunk in first..past {
                if needs.len() == limit {
                    return Ok(needs);
                }
                needs.push(Need { id: of, chunk: chunk as u64, size: size as u64 });
            }
        }
        Ok(needs)
    }

    /// Keeps a block of the leader: `bytes`, or as many zeros.
    ///
    /// # Errors
    /// What the disk or SQLite said.
    pub fn put_block(
        &mut self,
        id: FileId,
        block: u64,
        length: u64,
        bytes: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let place = match bytes {
            Some(bytes) => {
                let at = self.end;
                let failed = StoreError::on("write", self.dir.join(BLOCKS));
                self.blocks.write_all_at(bytes, at).map_err(failed)?;
                self.end += bytes.len() as u64;
                self.uncommitted += bytes.len() as u64;
                Some(at as i64)
            }
            None => None,
        };
        self.db
            .prepare_cached("REPLACE INTO blocks(id, block, place, length) VALUES (?, ?, ?, ?)")?
            .execute(params![id, block as i64, place, length as i64])?;
        if self.uncommitted >= COMMIT_BYTES {
            self.uncommitted = 0;
            self.db.execute_batch("COMMIT; BEGIN")?;
        }
        Ok(())
    }

    /// Lays the blocks that are here over `into`, the bytes of a chunk of `id`.
    ///
    /// # Errors
    /// What the disk or SQLite said.
    pub fn lay_over(&self, id: FileId, chunk: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let first = chunk * CHUNK_BLOCKS;
        let mut query = self.db.prepare_cached(
            "SELECT block, place, length FROM blocks WHERE id = ? AND block >= ? AND block < ?",
        )?;
        let mut found = query.query(params![id, first as i64, (first + CHUNK_BLOCKS) as i64])?;
        while let Some(row) = found.next()? {
            let (block, place, length): (i64, Option<i64>, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let from = ((block as u64 - first) * BLOCK_BYTES) as usize;
            let to = (from + length as usize).min(into.len());
            if from >= to {
                continue;
            }
            match place {
                None => into[from..to].fill(0),
                Some(place) => self
                    .blocks
                    .read_exact_at(&mut into[from..to], place as u64)
                    .map_err(StoreError::on("read", self.dir.join(BLOCKS)))?,
            }
        }
        Ok(())
    }

    /// Everything is here: makes it durable, without the guesses that nothing asked for again.
    ///
    /// # Errors
    /// What the disk or SQLite said.
    pub fn seal(&mut self) -> Result<(), StoreError> {
        self.run(&format!(
            "DELETE FROM blocks WHERE NOT EXISTS (SELECT 1 FROM need n WHERE n.id = blocks.id \
             AND n.first <= blocks.block / {CHUNK_BLOCKS} \
             AND n.past > blocks.block / {CHUNK_BLOCKS})"
        ))?;
        self.db.execute_batch("COMMIT")?;
        self.blocks.sync_all().map_err(StoreError::on("sync", self.dir.join(BLOCKS)))?;
        self.db.pragma_update(None, "synchronous", "FULL")?;
        // Into the file itself, which is synced: a directory that is renamed is whole by itself.
        self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        super::objects::sync_directory(&self.dir)
    }

    /// How many bytes of blocks are here.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end
    }

    fn run(&self, sql: &str) -> Result<(), StoreError> {
        Ok(self.db.execute(sql, []).map(drop)?)
    }

    /// Runs `what` with the volume's index beside ours, which it must only read.
    fn with_ours<T>(
        &mut self,
        ours: &Path,
        what: impl FnOnce(&mut Stage) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // No database can be attached within a transaction.
        self.db.execute_batch("COMMIT")?;
        self.db.execute("ATTACH ? AS ours", [ours.to_string_lossy()])?;
        self.db.execute_batch("BEGIN")?;
        let done = what(self);
        self.db.execute_batch("COMMIT; DETACH ours; BEGIN")?;
        done
    }
}

impl Drop for Stage {
    /// What is here is a good guess for the next attempt.
    fn drop(&mut self) {
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("COMMIT")
        {
            tracing::debug!("blocks of a delta are to be fetched again: {error}");
        }
    }
}

fn want_key(want: &Want) -> (i64, i64, &[u8], i64) {
    match want {
        Want::Node(id) => (1, id.0 as i64, &[], 0),
        Want::Entry(id, name) => (2, id.0 as i64, name, 0),
        Want::Xattr(id, name) => (3, id.0 as i64, name, 0),
        Want::Chunk(id, chunk) => (4, id.0 as i64, &[], *chunk as i64),
        Want::Whole(id) => (5, id.0 as i64, &[], 0),
    }
}
