//! Applies records, and knows what the index will say once it is written.
//!
//! Between checkpoints the namespace is the index, plus a delta that a checkpoint is writing,
//! plus the delta of now. One lock (the caller's) covers a whole record, so that a checkpoint
//! never sees half of one: whatever position it takes, the objects hold all of it.

use std::sync::Arc;

use rusqlite::Connection;

use super::StoreError;
use super::delta::Delta;
use super::index::{self, Checkpoint};
use super::objects::ObjectFiles;
use super::rows;
use crate::op::{Attributes, Change, Kind, Record};
use crate::position::{FileId, Seq};

/// The state after the last applied record.
pub struct Live {
    /// Where it stands; its `position` is the last applied record's.
    pub at: Checkpoint,
    /// What changed since `frozen`, or since the index.
    pub delta: Delta,
    /// What a checkpoint is writing into the index, and the state that it will hold then.
    frozen: Option<(Arc<Delta>, Checkpoint)>,
    /// A record was begun and did not end (a full disk): some of it may be in the objects, and no
    /// birth says so.
    in_doubt: bool,
    db: Connection,
}

impl Live {
    /// Begins at the index's checkpoint, which `db` reads.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn new(db: Connection) -> Result<Live, StoreError> {
        Ok(Live {
            at: index::checkpoint(&db)?,
            delta: Delta::default(),
            frozen: None,
            in_doubt: false,
            db,
        })
    }

    /// Whether the chunk changed since the index was written.
    #[must_use]
    pub fn is_noted(&self, id: FileId, chunk: u64) -> bool {
        let frozen = self.frozen.as_ref().map(|(frozen, _)| &**frozen);
        let noted = |delta: &Delta| delta.chunks.get(&id).is_some_and(|of| of.newer(chunk, Seq(0)));
        noted(&self.delta) || frozen.is_some_and(noted)
    }

    /// Brings the objects and the namespace to `record`, the next one.
    ///
    /// After an error (a full disk) the same record may be applied again.
    ///
    /// # Errors
    /// What the disk said.
    pub fn apply(&mut self, objects: &ObjectFiles, record: &Record) -> Result<(), StoreError> {
        self.in_doubt = true;
        let mut payload = &record.payload[..];
        for change in &record.head.changes {
            match change {
                Change::Node { id, attributes } if attributes.kind == Kind::File => {
                    self.resize(objects, *id, attributes.size, record)?;
                }
                Change::Write { id, offset, length } => {
                    let (bytes, rest) = payload.split_at(*length as usize);
                    payload = rest;
                    objects.write_at(*id, *offset, bytes)?;
                }
                Change::Zero { id, offset, length } => objects.zero(*id, *offset, *length)?,
                Change::Reserve { id, offset, length } => objects.reserve(*id, *offset, *length),
                Change::EpochStart { .. } => {
                    let head = &record.head;
                    self.at.lineage = self.at.lineage.extended(head.epoch, head.seq);
                }
                Change::Node { .. }
                | Change::Gone { .. }
                | Change::Entry { .. }
                | Change::Xattr { .. } => {}
            }
        }
        self.note(record)?;
        self.at.position = record.head.position();
        self.in_doubt = false;
        Ok(())
    }

    /// The size of the file, if it is a regular one and nothing that was applied after `seq`
    /// touched the bytes of its `chunk`; then the object holds them as they were at `seq`.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn unchanged_since(
        &self,
        id: FileId,
        chunk: u64,
        seq: Seq,
    ) -> Result<Option<u64>, StoreError> {
        let frozen = self.frozen.as_ref().map(|(frozen, _)| &**frozen);
        let newer = |delta: &Delta| delta.chunks.get(&id).is_some_and(|of| of.newer(chunk, seq));
        if self.in_doubt || newer(&self.delta) || frozen.is_some_and(newer) {
            return Ok(None);
        }
        let size = match self.node(id)? {
            Some(of) if of.kind == Kind::File => of.size,
            _ => return Ok(None),
        };
        let born = rows::chunk_birth(&self.db, id, chunk)?;
        Ok(born.is_none_or(|birth| birth <= seq).then_some(size))
    }

    /// Compared with the size *in the order of the records*, not with the object's length: after
    /// a kill the object may be ahead of the record that is applied again, and a cut that is
    /// already in the object would then leave no birth.
    fn resize(
        &self,
        objects: &ObjectFiles,
        id: FileId,
        size: u64,
        record: &Record,
    ) -> Result<(), StoreError> {
        let sized =
            |change: &&Change| matches!(change, Change::Node { id: other, .. } if *other == id);
        let several = record.head.changes.iter().filter(sized).count() > 1;
        if several || self.size(id)? != size {
            objects.set_size(id, size)?;
        }
        Ok(())
    }

    fn note(&mut self, record: &Record) -> Result<(), StoreError> {
        let mut sizes = Vec::new();
        for change in &record.head.changes {
            if let Change::Node { id, attributes } = change
                && attributes.kind == Kind::File
            {
                sizes.push((*id, self.size(*id)?));
            }
        }
        let size_of = |id| sizes.iter().find(|(of, _)| *of == id).map_or(0, |(_, size)| *size);
        self.delta.note(&record.head, size_of);
        Ok(())
    }

    /// A file's attributes now.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn node(&self, id: FileId) -> Result<Option<Attributes>, StoreError> {
        let noted = self.delta.nodes.get(&id);
        let noted =
            noted.or_else(|| self.frozen.as_ref().and_then(|(frozen, _)| frozen.nodes.get(&id)));
        match noted {
            Some(node) => Ok(node.value.clone()),
            None => rows::node(&self.db, id),
        }
    }

    fn size(&self, id: FileId) -> Result<u64, StoreError> {
        Ok(self.node(id)?.map_or(0, |attributes| attributes.size))
    }

    /// Sets the delta aside for a checkpoint, which writes it and then calls [`Live::written`].
    /// One whose checkpoint failed comes again, alone: `false` says that there is more to write.
    pub fn freeze(&mut self) -> (Arc<Delta>, Checkpoint, bool) {
        if let Some((delta, at)) = &self.frozen {
            return (Arc::clone(delta), at.clone(), self.delta.is_empty());
        }
        let delta = Arc::new(std::mem::take(&mut self.delta));
        self.frozen = Some((Arc::clone(&delta), self.at.clone()));
        (delta, self.at.clone(), true)
    }

    /// The frozen delta is in the index now.
    pub fn written(&mut self) {
        self.frozen = None;
    }

    /// The namespace now: the index as this moment's read transaction sees it, and the deltas to
    /// lay over it, oldest first.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn view(&self, reader: &Connection) -> Result<(Checkpoint, Vec<Arc<Delta>>), StoreError> {
        // Begun under our lock: a checkpoint that is written after this is not seen, and the
        // frozen delta that it held is laid over instead. Laying over one that is seen as well
        // changes nothing.
        reader.execute_batch("BEGIN")?;
        index::checkpoint(reader)?;
        let mut deltas: Vec<Arc<Delta>> =
            self.frozen.iter().map(|(delta, _)| Arc::clone(delta)).collect();
        deltas.push(Arc::new(self.delta.clone()));
        Ok((self.at.clone(), deltas))
    }
}
