//! Reads a whole volume out while it goes on changing.
//!
//! The rows are exact: one read transaction of the index, which is the state at its checkpoint
//! `s`. The bytes are not: each is read when its turn comes, from an object that the applier goes
//! on writing, so the copy holds some of what later ops did and not the rest. What makes it right
//! is that the receiver then applies every record after `s`, up to one that was durable when the
//! last byte had been read:
//!
//! - a byte that the reader saw too new was written by a record after `s`, which writes it again;
//! - a byte that it did not see, because the file was cut or a hole punched meanwhile, was removed
//!   by a record after `s`, and whatever those records do to it, they do again, in order;
//! - a file that is gone by now has its object until we let go, so no row is without its bytes.
//!
//! Hence the log is pinned from `s`, and doomed objects stay, for as long as this lives. So does
//! SQLite's write-ahead log, which grows meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::VolumeError;
use super::running::Running;
use crate::journal::Objects;
use crate::log::LogPin;
use crate::position::{ClusterId, FileId, Lineage, Position, Seq};
use crate::store::index;
use crate::store::objects::ObjectFiles;
use crate::store::rows::{Cursor, Row};

/// Rows in one piece at most.
const ROWS_MAX: usize = 1024;

/// Bytes in one piece at most.
pub(super) const DATA_BYTES_MAX: usize = 1 << 20;

/// What a full copy begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The cluster that it is of.
    pub cluster: ClusterId,
    /// The checkpoint that the rows are of; the records to apply begin after it.
    pub position: Position,
    /// Which epochs led there.
    pub lineage: Lineage,
    /// Deletions up to here may have no tombstone.
    pub floor: Seq,
    /// Files that exist, for showing progress.
    pub files: u64,
    /// Their sizes together, holes included, for showing progress.
    pub bytes: u64,
}

/// A part of a full copy. All rows come before the first data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// Rows of the index, with the leader's births.
    Rows(Vec<Row>),
    /// Bytes of an object, at most 1 MiB. What is in no piece is a hole.
    Data {
        /// Whose.
        id: FileId,
        /// The first byte's place.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
}

/// Everything in a volume, piece by piece, in bounded memory.
pub struct Snapshot {
    running: Arc<Running>,
    header: SnapshotHeader,
    db: Connection,
    rows: Option<Cursor>,
    /// The file being read, its size and the next byte.
    file: Option<(FileId, u64, u64)>,
    /// The last file whose turn came, as SQLite orders ids.
    last: i64,
    _log: LogPin,
    _objects: Arc<()>,
}

impl Snapshot {
    pub(super) fn begin(
        running: Arc<Running>,
        cluster: ClusterId,
    ) -> Result<Snapshot, VolumeError> {
        if running.building() {
            return Err(VolumeError::Building);
        }
        // A fresh checkpoint leaves the receiver few records to apply.
        running.checkpoint()?;
        let db = running.reader()?;
        // With the ledger held no checkpoint moves between what is read and what is pinned.
        let ledger = running.ledger();
        db.execute_batch("BEGIN")?;
        let at = index::checkpoint(&db)?;
        let log = running.log.pin(at.position.seq)?;
        let objects = ledger.pin();
        drop(ledger);
        let (files, bytes) =
            db.query_row("SELECT count(*), coalesce(sum(size), 0) FROM nodes", [], |row| {
                Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
            })?;
        let header = SnapshotHeader {
            cluster,
            position: at.position,
            lineage: at.lineage,
            floor: at.floor,
            files,
            bytes,
        };
        let rows = Some(Cursor::default());
        let (file, last) = (None, i64::MIN);
        Ok(Snapshot { running, header, db, rows, file, last, _log: log, _objects: objects })
    }

    /// The read transaction that the rows are of.
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    /// The objects that the rows name.
    pub(super) fn objects(&self) -> &ObjectFiles {
        &self.running.objects
    }

    /// What it is of.
    #[must_use]
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// The next piece; `None` when everything was read. Blocks on the disk.
    ///
    /// # Errors
    /// What the disk said, or an object that is missing.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, VolumeError> {
        if let Some(cursor) = &mut self.rows {
            let rows = cursor.next(&self.db, ROWS_MAX)?;
            if !rows.is_empty() {
                return Ok(Some(Piece::Rows(rows)));
            }
            self.rows = None;
        }
        loop {
            match self.file {
                None => {
                    self.file = self.next_file()?;
                    if self.file.is_none() {
                        return Ok(None);
                    }
                }
                Some((id, size, at)) => match self.next_data(id, size, at)? {
                    Some((offset, bytes)) => {
                        self.file = Some((id, size, offset + bytes.len() as u64));
                        return Ok(Some(Piece::Data { id, offset, bytes }));
                    }
                    None => self.file = None,
                },
            }
        }
    }

    /// The last record that the receiver must apply before its copy is whole. Only meaningful
    /// after [`Snapshot::next_piece`] said that there is no more.
    #[must_use]
    pub fn through(&self) -> Position {
        // The applier may be in the middle of a record, but of none past this. What is durable
        // beyond it is in no object: the copy can be whole before that is committed. After a
        // restart the objects still have what the process before applied.
        self.position_of(self.running.log.applicable().max(self.running.touched()))
    }

    /// The position of the record at `seq`.
    pub(super) fn position_of(&self, seq: Seq) -> Position {
        let epoch = self.running.lineage().epoch_at(seq).unwrap_or_default();
        Position { epoch, seq }
    }

    fn next_file(&mut self) -> Result<Option<(FileId, u64, u64)>, VolumeError> {
        let past = if self.last == i64::MIN { ">=" } else { ">" };
        let sql = format!(
            "SELECT id, size FROM nodes WHERE id {past} ? AND kind = 1 AND size > 0 \
             ORDER BY id LIMIT 1"
        );
        let found = self
            .db
            .prepare_cached(&sql)?
            .query_row([self.last], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
            .optional()?;
        let Some((id, size)) = found else { return Ok(None) };
        self.last = id;
        let id = FileId(id as u64);
        if self.running.objects.open_existing(id)?.is_none() {
            let what = format!("file {id} has {size} bytes and no object");
            return Err(crate::store::StoreError::Damaged(what).into());
        }
        Ok(Some((id, size as u64, 0)))
    }

    /// The next bytes that are no hole, up to the size that the rows say: what is past it was
    /// written by records after them.
    fn next_data(
        &self,
        id: FileId,
        size: u64,
        at: u64,
    ) -> Result<Option<(u64, Bytes)>, VolumeError> {
        let objects = &self.running.objects;
        let failed = |cause| VolumeError::on("read", objects.path(id))(cause);
        let (from, to) = loop {
            if at >= size {
                return Ok(None);
            }
            let Some(from) = objects.seek(id, at, true).map_err(failed)? else { return Ok(None) };
            let Some(hole) = objects.seek(id, from, false).map_err(failed)? else {
                return Ok(None);
            };
            let to = hole.min(size);
            if from >= size {
                return Ok(None);
            }
            // Equal: a hole was punched between the two questions, and there may be data past it.
            if from < to {
                break (from, to);
            }
        };
        let mut bytes = vec![0; (to - from).min(DATA_BYTES_MAX as u64) as usize];
        let read = objects.read_at(id, from, &mut bytes).map_err(failed)?;
        bytes.truncate(read);
        Ok((read > 0).then(|| (from, bytes.into())))
    }
}
