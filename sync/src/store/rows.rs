//! The index's rows as values: what a full copy sends, and what `meta.db` holds.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row as SqlRow, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::op::{Attributes, Kind, Time};
use crate::position::{Epoch, FileId, Lineage, Seq};

/// One row of the index. Births are those of the leader that made the change, on every replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row {
    /// A file that exists.
    Node {
        /// Which.
        id: FileId,
        /// What it is.
        attributes: Attributes,
        /// The op that last changed the attributes.
        birth: Seq,
    },
    /// A name, or that there is none any more.
    Entry {
        /// The directory.
        parent: FileId,
        /// The name in it.
        name: Vec<u8>,
        /// What it names; `None` is a tombstone.
        child: Option<FileId>,
        /// The op that last changed it.
        birth: Seq,
    },
    /// An extended attribute, or that there is none any more.
    Xattr {
        /// Whose.
        id: FileId,
        /// Its name.
        name: Vec<u8>,
        /// Its value; `None` is a tombstone.
        value: Option<Vec<u8>>,
        /// The op that last changed it.
        birth: Seq,
    },
    /// A chunk that was written at some time.
    Chunk {
        /// Whose.
        id: FileId,
        /// Which, counting from 0, of [`CHUNK_BYTES`](super::CHUNK_BYTES) each.
        index: u64,
        /// The op that last changed it.
        birth: Seq,
    },
    /// A file that is gone for good.
    Gone {
        /// Which.
        id: FileId,
        /// The op that ended it.
        birth: Seq,
    },
}

/// SQLite's integers are signed; ids and seqs keep their bits.
macro_rules! as_sql {
    ($($name:ident),*) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.0 as i64))
            }
        }
        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_i64().map(|bits| $name(bits as u64))
            }
        }
    )*};
}
as_sql!(Epoch, Seq, FileId);

impl ToSql for Lineage {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        serde_json::to_string(self)
            .map(ToSqlOutput::from)
            .map_err(|cause| rusqlite::Error::ToSqlConversionFailure(cause.into()))
    }
}

impl FromSql for Lineage {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map_err(|cause| FromSqlError::Other(cause.into()))
    }
}

pub(super) const NODE_COLUMNS: &str = "id, kind, target, mode, uid, gid, nlink, size, atime_s, atime_ns, \
                            mtime_s, mtime_ns, ctime_s, ctime_ns, birth";

fn kind_number(kind: &Kind) -> (u8, Option<&[u8]>) {
    match kind {
        Kind::File => (1, None),
        Kind::Directory => (2, None),
        Kind::Symlink(target) => (3, Some(target)),
        Kind::Fifo => (4, None),
        Kind::Socket => (5, None),
    }
}

fn kind_read(number: u8, target: Option<Vec<u8>>) -> rusqlite::Result<Kind> {
    Ok(match number {
        1 => Kind::File,
        2 => Kind::Directory,
        3 => Kind::Symlink(target.unwrap_or_default()),
        4 => Kind::Fifo,
        5 => Kind::Socket,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(1, i64::from(other))),
    })
}

pub(super) fn node_read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let time = |at: usize| -> rusqlite::Result<Time> {
        Ok(Time { seconds: row.get(at)?, nanos: row.get(at + 1)? })
    };
    let attributes = Attributes {
        kind: kind_read(row.get(1)?, row.get(2)?)?,
        mode: row.get(3)?,
        uid: row.get(4)?,
        gid: row.get(5)?,
        nlink: row.get(6)?,
        size: row.get::<_, i64>(7)? as u64,
        atime: time(8)?,
        mtime: time(10)?,
        ctime: time(12)?,
    };
    Ok(Row::Node { id: row.get(0)?, attributes, birth: row.get(14)? })
}

/// Puts a row, whatever was there before.
pub(crate) fn put(db: &Connection, row: &Row) -> rusqlite::Result<()> {
    match row {
        Row::Node { id, attributes, birth } => put_node(db, *id, attributes, *birth),
        Row::Entry { parent, name, child, birth } => db
            .prepare_cached("REPLACE INTO entries(parent, name, child, birth) VALUES (?,?,?,?)")?
            .execute(params![parent, name, child, birth])
            .map(drop),
        Row::Xattr { id, name, value, birth } => db
            .prepare_cached("REPLACE INTO xattrs(id, name, value, birth) VALUES (?,?,?,?)")?
            .execute(params![id, name, value, birth])
            .map(drop),
        Row::Chunk { id, index, birth } => db
            .prepare_cached("REPLACE INTO chunks(id, chunk, birth, hash) VALUES (?,?,?,NULL)")?
            .execute(params![id, *index as i64, birth])
            .map(drop),
        Row::Gone { id, birth } => db
            .prepare_cached("REPLACE INTO gone(id, birth) VALUES (?,?)")?
            .execute(params![id, birth])
            .map(drop),
    }
}

fn put_node(db: &Connection, id: FileId, of: &Attributes, birth: Seq) -> rusqlite::Result<()> {
    let (kind, target) = kind_number(&of.kind);
    db.prepare_cached(&format!(
        "REPLACE INTO nodes({NODE_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
    ))?
    .execute(params![
        id,
        kind,
        target,
        of.mode,
        of.uid,
        of.gid,
        of.nlink,
        of.size as i64,
        of.atime.seconds,
        of.atime.nanos,
        of.mtime.seconds,
        of.mtime.nanos,
        of.ctime.seconds,
        of.ctime.nanos,
        birth
    ])
    .map(drop)
}

/// A file's attributes, if it is in the index.
pub(crate) fn node(db: &Connection, id: FileId) -> Result<Option<Attributes>, StoreError> {
    let mut query = db.prepare_cached(&format!("SELECT {NODE_COLUMNS} FROM nodes WHERE id = ?"))?;
    let mut rows = query.query([id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    match node_read(row)? {
        Row::Node { attributes, .. } => Ok(Some(attributes)),
        _ => Ok(None),
    }
}

/// The op that last changed a chunk, if it was ever written.
pub(crate) fn chunk_birth(
    db: &Connection,
    id: FileId,
    chunk: u64,
) -> Result<Option<Seq>, StoreError> {
    let mut query = db.prepare_cached("SELECT birth FROM chunks WHERE id = ? AND chunk = ?")?;
    let mut rows = query.query(params![id, chunk as i64])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
}

/// How far a walk over all rows has come. It goes table by table and by key, so that any number
/// of rows passes in bounded memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    table: Table,
    id: i64,
    name: Vec<u8>,
    started: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Nodes,
    Entries,
    Xattrs,
    Chunks,
    Gone,
    End,
}

impl Default for Cursor {
    fn default() -> Self {
        Cursor::at(Table::Nodes)
    }
}

impl Cursor {
    fn at(table: Table) -> Cursor {
        Cursor { table, id: i64::MIN, name: Vec::new(), started: false }
    }

    /// The next rows, at most `limit`; empty means that there are no more.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn next(&mut self, db: &Connection, limit: usize) -> Result<Vec<Row>, StoreError> {
        while self.table != Table::End {
            let rows = self.page(db, limit)?;
            if let Some(last) = rows.last() {
                self.advance(last);
                return Ok(rows);
            }
            *self = Cursor::at(match self.table {
                Table::Nodes => Table::Entries,
                Table::Entries => Table::Xattrs,
                Table::Xattrs => Table::Chunks,
                Table::Chunks => Table::Gone,
                Table::Gone | Table::End => Table::End,
            });
        }
        Ok(Vec::new())
    }

    fn advance(&mut self, last: &Row) {
        self.started = true;
        match last {
            Row::Node { id, .. } | Row::Gone { id, .. } => self.id = id.0 as i64,
            Row::Entry { parent: id, name, .. } | Row::Xattr { id, name, .. } => {
                self.id = id.0 as i64;
                self.name.clone_from(name);
            }
            Row::Chunk { id, index, .. } => {
                self.id = id.0 as i64;
                self.name = index.to_be_bytes().to_vec();
            }
        }
    }

    fn page(&self, db: &Connection, limit: usize) -> Result<Vec<Row>, StoreError> {
        // Before the first row the comparison must let the smallest key itself through.
        let past = if self.started { ">" } else { ">=" };
        let read = |sql: String, key: &[&dyn ToSql], row: fn(&SqlRow<'_>) -> _| {
            db.prepare_cached(&sql)?.query_map(key, row)?.collect::<rusqlite::Result<Vec<Row>>>()
        };
        let limit = limit as i64;
        let rows = match self.table {
            Table::Nodes => read(
                format!("SELECT {NODE_COLUMNS} FROM nodes WHERE id {past} ? ORDER BY id LIMIT ?"),
                &[&self.id, &limit],
                node_read,
            ),
            Table::Entries => read(
                format!(
                    "SELECT parent, name, child, birth FROM entries \
                     WHERE (parent, name) {past} (?, ?) ORDER BY parent, name LIMIT ?"
                ),
                &[&self.id, &self.name, &limit],
                entry_read,
            ),
            Table::Xattrs => read(
                format!(
                    "SELECT id, name, value, birth FROM xattrs \
                     WHERE (id, name) {past} (?, ?) ORDER BY id, name LIMIT ?"
                ),
                &[&self.id, &self.name, &limit],
                xattr_read,
            ),
            Table::Chunks => read(
                format!(
                    "SELECT id, chunk, birth FROM chunks \
                     WHERE (id, chunk) {past} (?, ?) ORDER BY id, chunk LIMIT ?"
                ),
                &[&self.id, &self.chunk(), &limit],
                chunk_read,
            ),
            Table::Gone => read(
                format!("SELECT id, birth FROM gone WHERE id {past} ? ORDER BY id LIMIT ?"),
                &[&self.id, &limit],
                |row| Ok(Row::Gone { id: row.get(0)?, birth: row.get(1)? }),
            ),
            Table::End => Ok(Vec::new()),
        };
        Ok(rows?)
    }

    fn chunk(&self) -> i64 {
        self.name.as_slice().try_into().map_or(i64::MIN, i64::from_be_bytes)
    }
}

pub(super) fn entry_read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row::Entry {
        parent: row.get(0)?,
        name: row.get(1)?,
        child: row.get(2)?,
        birth: row.get(3)?,
    })
}

pub(super) fn xattr_read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row::Xattr { id: row.get(0)?, name: row.get(1)?, value: row.get(2)?, birth: row.get(3)? })
}

pub(super) fn chunk_read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row::Chunk { id: row.get(0)?, index: row.get::<_, i64>(1)? as u64, birth: row.get(2)? })
}
