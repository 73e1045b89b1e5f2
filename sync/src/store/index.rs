//! `meta.db`: the namespace, the births, and up to which op they are so.
//!
//! Written in one transaction per checkpoint, by one connection; read through others meanwhile
//! (SQLite's write-ahead log gives each reader the state at its first read).

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use super::StoreError;
use super::delta::{Born, Chunks, Delta};
use super::rows::{self, Row};
use crate::position::{FileId, Lineage, Position, Seq};

/// What this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Tombstones kept at most, of each sort; past it the older half goes.
const TOMBSTONES_MAX: u64 = 200_000;

pub(super) const SCHEMA: &str = "
CREATE TABLE checkpoint(
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL, seq INTEGER NOT NULL, lineage TEXT NOT NULL,
    building INTEGER NOT NULL, floor INTEGER NOT NULL) STRICT;
INSERT INTO checkpoint VALUES (1, 0, 0, '[]', 0, 0);
CREATE TABLE nodes(
    id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, target BLOB,
    mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
    nlink INTEGER NOT NULL, size INTEGER NOT NULL,
    atime_s INTEGER NOT NULL, atime_ns INTEGER NOT NULL,
    mtime_s INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    ctime_s INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    birth INTEGER NOT NULL) STRICT;
CREATE TABLE entries(
    parent INTEGER NOT NULL, name BLOB NOT NULL, child INTEGER, birth INTEGER NOT NULL,
    PRIMARY KEY (parent, name)) STRICT, WITHOUT ROWID;
CREATE TABLE xattrs(
    id INTEGER NOT NULL, name BLOB NOT NULL, value BLOB, birth INTEGER NOT NULL,
    PRIMARY KEY (id, name)) STRICT, WITHOUT ROWID;
CREATE TABLE chunks(
    id INTEGER NOT NULL, chunk INTEGER NOT NULL, birth INTEGER NOT NULL, hash BLOB,
    PRIMARY KEY (id, chunk)) STRICT, WITHOUT ROWID;
CREATE TABLE gone(id INTEGER PRIMARY KEY, birth INTEGER NOT NULL) STRICT;
CREATE TABLE doomed(id INTEGER PRIMARY KEY) STRICT;
CREATE INDEX nodes_birth ON nodes(birth);
CREATE INDEX entries_birth ON entries(birth);
CREATE INDEX entries_tombstones ON entries(birth) WHERE child IS NULL;
CREATE INDEX xattrs_birth ON xattrs(birth);
CREATE INDEX chunks_birth ON chunks(birth);
CREATE INDEX gone_birth ON gone(birth);
";

/// When the content was last compared with the leader's, added later and hence apart.
const COMPARED: &str = "CREATE TABLE IF NOT EXISTS compared(
    one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, at_s INTEGER NOT NULL) STRICT";

/// When a volume's content was last compared with its leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// As of which op.
    pub seq: Seq,
    /// Seconds since 1970; 0: when it was made.
    pub at_s: u64,
}

/// Up to where the index is so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last op that it holds.
    pub position: Position,
    /// Which epochs led there.
    pub lineage: Lineage,
    /// A copy of another replica is not complete yet: neither to be led from nor to be voted for.
    pub building: bool,
    /// Deletions up to here may have no tombstone any more.
    pub floor: Seq,
}

/// The writing connection.
pub struct Index {
    path: PathBuf,
    db: Connection,
}

impl Index {
    /// Opens `path`, making it if it is not there. Changes nothing in one of a newer format.
    ///
    /// # Errors
    /// A newer format, a damaged file, or what the disk said.
    pub fn open(path: &Path) -> Result<Index, StoreError> {
        let mut db = Connection::open(path)?;
        db.busy_timeout(Duration::from_secs(10))?;
        let format: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if format > FORMAT {
            return Err(StoreError::Unsound(format!(
                "{} has format {format} and this build reads up to {FORMAT}; run the newer build",
                path.display()
            )));
        }
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        if format == 0 {
            let making = db.transaction()?;
            making.execute_batch(SCHEMA)?;
            making.pragma_update(None, "user_version", FORMAT)?;
            making.commit()?;
        }
        db.execute_batch(COMPARED)?;
        Ok(Index { path: path.to_owned(), db })
    }

    /// When the content was last compared, in this volume's life.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn compared(&self) -> Result<Option<Compared>, StoreError> {
        let row = |row: &rusqlite::Row<'_>| {
            Ok(Compared { seq: row.get(0)?, at_s: row.get::<_, i64>(1)? as u64 })
        };
        Ok(self.db.query_row("SELECT seq, at_s FROM compared", [], row).optional()?)
    }

    /// Says that the content was compared.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn set_compared(&mut self, to: Compared) -> Result<(), StoreError> {
        let sql = "REPLACE INTO compared VALUES (1, ?, ?)";
        Ok(self.db.execute(sql, params![to.seq, to.at_s as i64]).map(drop)?)
    }

    /// Remembers hashes that chunks had at `seq`. One that was written since keeps none: its birth
    /// is later, or is still to come and takes the hash away when it does.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn put_hashes(
        &mut self,
        hashes: &[(FileId, u64, [u8; 32])],
        seq: Seq,
    ) -> Result<(), StoreError> {
        let writing = self.db.transaction()?;
        for (id, chunk, hash) in hashes {
            writing
                .prepare_cached(
                    "UPDATE chunks SET hash = ? WHERE id = ? AND chunk = ? AND birth <= ?",
                )?
                .execute(params![&hash[..], id, *chunk as i64, seq])?;
        }
        writing.commit()?;
        Ok(())
    }

    /// The hash that is remembered of a chunk that was not written after `at`.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn hash(&self, id: FileId, chunk: u64, at: Seq) -> Result<Option<[u8; 32]>, StoreError> {
        let mut query = self
            .db
            .prepare_cached("SELECT hash FROM chunks WHERE id = ? AND chunk = ? AND birth <= ?")?;
        let hash: Option<Option<Vec<u8>>> =
            query.query_row(params![id, chunk as i64, at], |row| row.get(0)).optional()?;
        Ok(hash.flatten().and_then(|hash| hash.try_into().ok()))
    }

    /// Another connection, for reading only.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn reader(&self) -> Result<Connection, StoreError> {
        reader(&self.path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Up to where the index is so.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        checkpoint(&self.db)
    }

    /// Writes `delta` and moves the checkpoint, all or nothing. The objects of the files that are
    /// gone are remembered as doomed in the same transaction, so that a kill leaves none behind.
    ///
    /// `removed` are formerly doomed objects whose removal is durable by now.
    ///
    /// # Errors
    /// What SQLite said; nothing was written.
    pub fn write(
        &mut self,
        delta: &Delta,
        to: &Checkpoint,
        removed: &[FileId],
    ) -> Result<(), StoreError> {
        let writing = self.db.transaction()?;
        for (id, chunks) in &delta.chunks {
            write_chunks(&writing, *id, chunks)?;
        }
        for (id, names) in &delta.xattrs {
            for (name, Born { value, birth }) in names {
                let (name, value) = (name.clone(), value.clone());
                rows::put(&writing, &Row::Xattr { id: *id, name, value, birth: *birth })?;
            }
        }
        for (parent, names) in &delta.entries {
            for (name, Born { value, birth }) in names {
                let (parent, name, child) = (*parent, name.clone(), *value);
                rows::put(&writing, &Row::Entry { parent, name, child, birth: *birth })?;
            }
        }
        for (id, node) in &delta.nodes {
            let (id, birth) = (*id, node.birth);
            match &node.value {
                Some(of) => rows::put(&writing, &Row::Node { id, attributes: of.clone(), birth })?,
                None => forget(&writing, id, birth)?,
            }
        }
        for id in removed {
            writing.prepare_cached("DELETE FROM doomed WHERE id = ?")?.execute([id])?;
        }
        let floor = bury(&writing)?.max(checkpoint(&writing)?.floor);
        move_checkpoint(&writing, &Checkpoint { floor, ..to.clone() })?;
        writing.commit()?;
        Ok(())
    }

    /// Puts rows of another replica, as they are, leaving the checkpoint where it is.
    ///
    /// # Errors
    /// What SQLite said; nothing was written.
    pub fn put(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        let writing = self.db.transaction()?;
        for row in rows {
            rows::put(&writing, row)?;
        }
        writing.commit()?;
        Ok(())
    }

    /// Whether a commit need not be durable by itself. The next one that is takes all before it
    /// along, as they are in one file, one after the other.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn hurry(&mut self, hurry: bool) -> Result<(), StoreError> {
        let synchronous = if hurry { "NORMAL" } else { "FULL" };
        Ok(self.db.pragma_update(None, "synchronous", synchronous)?)
    }

    /// Moves only the checkpoint.
    ///
    /// # Errors
    /// What SQLite said; nothing was written.
    pub fn set_checkpoint(&mut self, to: &Checkpoint) -> Result<(), StoreError> {
        Ok(move_checkpoint(&self.db, to)?)
    }

    /// Throws every row away and puts the checkpoint at `start`.
    ///
    /// # Errors
    /// What SQLite said; nothing was written.
    pub fn clear(&mut self, start: &Checkpoint) -> Result<(), StoreError> {
        let clearing = self.db.transaction()?;
        for table in ["nodes", "entries", "xattrs", "chunks", "gone", "doomed", "compared"] {
            clearing.execute(&format!("DELETE FROM {table}"), [])?;
        }
        move_checkpoint(&clearing, start)?;
        clearing.commit()?;
        Ok(())
    }

    /// The objects that are to be removed.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn doomed(&self) -> Result<Vec<FileId>, StoreError> {
        let mut query = self.db.prepare_cached("SELECT id FROM doomed")?;
        let ids = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(ids)
    }

    /// All objects that were to be removed are, durably.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn forget_doomed(&mut self) -> Result<(), StoreError> {
        Ok(self.db.execute("DELETE FROM doomed", []).map(drop)?)
    }

    /// The connection, for offline tools that mend rows.
    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.db
    }
}

/// A connection that cannot write.
pub(crate) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(Duration::from_secs(10))?;
    Ok(db)
}

/// Up to where the index is so, as this connection sees it.
pub(crate) fn checkpoint(db: &Connection) -> Result<Checkpoint, StoreError> {
    let sql = "SELECT epoch, seq, lineage, building, floor FROM checkpoint";
    Ok(db.query_row(sql, [], |row| {
        Ok(Checkpoint {
            position: Position { epoch: row.get(0)?, seq: row.get(1)? },
            lineage: row.get(2)?,
            building: row.get(3)?,
            floor: row.get(4)?,
        })
    })?)
}

pub(super) fn move_checkpoint(db: &Connection, to: &Checkpoint) -> rusqlite::Result<()> {
    let sql = "UPDATE checkpoint SET epoch=?, seq=?, lineage=?, building=?, floor=?";
    let at = to.position;
    db.execute(sql, params![at.epoch, at.seq, to.lineage, to.building, to.floor]).map(drop)
}

fn write_chunks(db: &Transaction<'_>, id: FileId, chunks: &Chunks) -> rusqlite::Result<()> {
    for (from, to, birth) in &chunks.cut {
        db.prepare_cached(
            "UPDATE chunks SET birth = max(birth, ?4), hash = NULL \
             WHERE id = ?1 AND chunk >= ?2 AND chunk < ?3",
        )?
        .execute(params![id, *from as i64, *to as i64, birth])?;
    }
    for (chunk, birth) in &chunks.written {
        rows::put(db, &Row::Chunk { id, index: *chunk, birth: *birth })?;
    }
    Ok(())
}

/// A file that is gone leaves one tombstone, and its object for the checkpointer to remove.
fn forget(db: &Transaction<'_>, id: FileId, birth: Seq) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM nodes WHERE id = ?",
        "DELETE FROM xattrs WHERE id = ?",
        "DELETE FROM chunks WHERE id = ?",
        "DELETE FROM entries WHERE parent = ?",
        "REPLACE INTO doomed(id) VALUES (?)",
    ] {
        db.prepare_cached(sql)?.execute([id])?;
    }
    rows::put(db, &Row::Gone { id, birth })
}

/// Lets the oldest tombstones go where there are too many, and says up to which birth.
fn bury(db: &Transaction<'_>) -> rusqlite::Result<Seq> {
    let mut floor = Seq(0);
    for (count, nth) in [
        ("SELECT count(*) FROM gone", "SELECT birth FROM gone ORDER BY birth LIMIT 1 OFFSET ?"),
        (
            "SELECT count(*) FROM entries WHERE child IS NULL",
            "SELECT birth FROM entries WHERE child IS NULL ORDER BY birth LIMIT 1 OFFSET ?",
        ),
    ] {
        let held: i64 = db.prepare_cached(count)?.query_row([], |row| row.get(0))?;
        if held.unsigned_abs() > TOMBSTONES_MAX {
            let middle: Option<Seq> = db.query_row(nth, [held / 2], |row| row.get(0)).optional()?;
            floor = floor.max(middle.unwrap_or_default());
        }
    }
    if floor > Seq(0) {
        db.execute("DELETE FROM gone WHERE birth <= ?", [floor])?;
        db.execute("DELETE FROM entries WHERE child IS NULL AND birth <= ?", [floor])?;
        db.execute("DELETE FROM xattrs WHERE value IS NULL AND birth <= ?", [floor])?;
    }
    Ok(floor)
}
