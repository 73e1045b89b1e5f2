//! Rows in the order of their births: what changed since an op, as an index query.
//!
//! Also all rows of one file, for a replica that threw it away in a history that lost. Both walk
//! in pages, so that any number of rows passes in bounded memory.

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, ToSql};

use super::StoreError;
use super::rows::{NODE_COLUMNS, Row, chunk_read, entry_read, node_read, xattr_read};
use crate::position::{FileId, Seq};

/// How far a walk over the rows born after some op has come.
#[derive(Clone, Debug)]
pub struct Born {
    table: usize,
    since: Seq,
    birth: Seq,
    id: i64,
    name: Vec<u8>,
    chunk: i64,
}

const TABLES: usize = 5;

impl Born {
    /// At the first row born after `since`.
    #[must_use]
    pub fn after(since: Seq) -> Born {
        Born::at(0, since)
    }

    fn at(table: usize, since: Seq) -> Born {
        // No row sorts after this key within its birth, so `since` itself is passed over.
        Born { table, since, birth: since, id: i64::MAX, name: Vec::new(), chunk: i64::MAX }
    }

    /// The next rows, at most `limit`; empty means that there are no more.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn next(&mut self, db: &Connection, limit: usize) -> Result<Vec<Row>, StoreError> {
        while self.table < TABLES {
            let rows = self.page(db, limit)?;
            if let Some(last) = rows.last() {
                self.advance(last);
                return Ok(rows);
            }
            *self = Born::at(self.table + 1, self.since);
        }
        Ok(Vec::new())
    }

    fn advance(&mut self, last: &Row) {
        match last {
            Row::Node { id, birth, .. } | Row::Gone { id, birth } => {
                (self.birth, self.id) = (*birth, id.0 as i64);
            }
            Row::Entry { parent: id, name, birth, .. } | Row::Xattr { id, name, birth, .. } => {
                (self.birth, self.id) = (*birth, id.0 as i64);
                self.name.clone_from(name);
            }
            Row::Chunk { id, index, birth } => {
                (self.birth, self.id, self.chunk) = (*birth, id.0 as i64, *index as i64);
            }
        }
    }

    fn page(&self, db: &Connection, limit: usize) -> Result<Vec<Row>, StoreError> {
        let limit = limit as i64;
        let (birth, id) = (&self.birth, &self.id);
        match self.table {
            0 => read(
                db,
                &format!(
                    "SELECT {NODE_COLUMNS} FROM nodes WHERE (birth, id) > (?, ?) \
                     ORDER BY birth, id LIMIT ?"
                ),
                &[birth, id, &limit],
                node_read,
            ),
            1 => read(
                db,
                "SELECT parent, name, child, birth FROM entries \
                 WHERE (birth, parent, name) > (?, ?, ?) ORDER BY birth, parent, name LIMIT ?",
                &[birth, id, &self.name, &limit],
                entry_read,
            ),
            2 => read(
                db,
                "SELECT id, name, value, birth FROM xattrs \
                 WHERE (birth, id, name) > (?, ?, ?) ORDER BY birth, id, name LIMIT ?",
                &[birth, id, &self.name, &limit],
                xattr_read,
            ),
            3 => read(
                db,
                "SELECT id, chunk, birth FROM chunks \
                 WHERE (birth, id, chunk) > (?, ?, ?) ORDER BY birth, id, chunk LIMIT ?",
                &[birth, id, &self.chunk, &limit],
                chunk_read,
            ),
            _ => read(
                db,
                "SELECT id, birth FROM gone WHERE (birth, id) > (?, ?) \
                 ORDER BY birth, id LIMIT ?",
                &[birth, id, &limit],
                gone_read,
            ),
        }
    }
}

/// How far a walk over all rows of one file has come: its node, and what hangs on it.
#[derive(Clone, Debug)]
pub struct OfFile {
    id: FileId,
    table: usize,
    name: Vec<u8>,
    chunk: i64,
}

impl OfFile {
    /// At the first row of `id`.
    #[must_use]
    pub fn new(id: FileId) -> OfFile {
        OfFile { id, table: 0, name: Vec::new(), chunk: -1 }
    }

    /// The next rows, at most `limit`; empty means that there are no more.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn next(&mut self, db: &Connection, limit: usize) -> Result<Vec<Row>, StoreError> {
        while self.table < 4 {
            let rows = self.page(db, limit)?;
            match rows.last() {
                Some(Row::Entry { name, .. } | Row::Xattr { name, .. }) => {
                    self.name.clone_from(name);
                }
                Some(Row::Chunk { index, .. }) => self.chunk = *index as i64,
                Some(Row::Node { .. } | Row::Gone { .. }) | None => {
                    self.table += 1;
                    self.name.clear();
                }
            }
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }

    fn page(&self, db: &Connection, limit: usize) -> Result<Vec<Row>, StoreError> {
        let limit = limit as i64;
        match self.table {
            0 => node(db, self.id).map(|row| row.into_iter().collect()),
            1 => read(
                db,
                "SELECT parent, name, child, birth FROM entries \
                 WHERE parent = ? AND name > ? ORDER BY name LIMIT ?",
                &[&self.id, &self.name, &limit],
                entry_read,
            ),
            2 => read(
                db,
                "SELECT id, name, value, birth FROM xattrs \
                 WHERE id = ? AND name > ? ORDER BY name LIMIT ?",
                &[&self.id, &self.name, &limit],
                xattr_read,
            ),
            _ => read(
                db,
                "SELECT id, chunk, birth FROM chunks \
                 WHERE id = ? AND chunk > ? ORDER BY chunk LIMIT ?",
                &[&self.id, &self.chunk, &limit],
                chunk_read,
            ),
        }
    }
}

/// The row of a file.
pub(crate) fn node(db: &Connection, id: FileId) -> Result<Option<Row>, StoreError> {
    one(db, &format!("SELECT {NODE_COLUMNS} FROM nodes WHERE id = ?"), &[&id], node_read)
}

/// The row of a name.
pub(crate) fn entry(db: &Connection, id: FileId, name: &[u8]) -> Result<Option<Row>, StoreError> {
    let sql = "SELECT parent, name, child, birth FROM entries WHERE parent = ? AND name = ?";
    one(db, sql, &[&id, &name], entry_read)
}

/// The row of an extended attribute.
pub(crate) fn xattr(db: &Connection, id: FileId, name: &[u8]) -> Result<Option<Row>, StoreError> {
    let sql = "SELECT id, name, value, birth FROM xattrs WHERE id = ? AND name = ?";
    one(db, sql, &[&id, &name], xattr_read)
}

/// The row of a chunk.
pub(crate) fn chunk(db: &Connection, id: FileId, index: u64) -> Result<Option<Row>, StoreError> {
    let sql = "SELECT id, chunk, birth FROM chunks WHERE id = ? AND chunk = ?";
    one(db, sql, &[&id, &(index as i64)], chunk_read)
}

fn gone_read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row::Gone { id: row.get(0)?, birth: row.get(1)? })
}

fn one(
    db: &Connection,
    sql: &str,
    key: &[&dyn ToSql],
    row: fn(&SqlRow<'_>) -> rusqlite::Result<Row>,
) -> Result<Option<Row>, StoreError> {
    Ok(db.prepare_cached(sql)?.query_row(key, row).optional()?)
}

fn read(
    db: &Connection,
    sql: &str,
    key: &[&dyn ToSql],
    row: fn(&SqlRow<'_>) -> rusqlite::Result<Row>,
) -> Result<Vec<Row>, StoreError> {
    let mut query = db.prepare_cached(sql)?;
    Ok(query.query_map(key, row)?.collect::<rusqlite::Result<_>>()?)
}
