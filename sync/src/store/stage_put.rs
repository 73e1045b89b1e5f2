//! The switch: puts a sealed delta into the objects and the index.
//!
//! Each of the two steps may be done again after a kill: the first writes bytes at places, the
//! second is one transaction whose outcome does not depend on what was there for the keys it sets.

use std::os::unix::fs::FileExt;

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use super::index::{self, Checkpoint, Index};
use super::objects::ObjectFiles;
use super::stage::{BLOCK_BYTES, Stage};
use crate::position::FileId;

/// Changed objects from which on syncing everything at once is less work.
const SYNC_ALL: usize = 64;

impl Stage {
    /// Brings the objects to what they are where the delta leads, durably.
    ///
    /// # Errors
    /// What the disk or SQLite said; it is to be done again.
    pub fn put_into_objects(&self, objects: &ObjectFiles) -> Result<(), StoreError> {
        let mut touched: Vec<FileId> = Vec::new();
        let mut blocks =
            self.db.prepare("SELECT id, block, place, length FROM blocks ORDER BY id, block")?;
        let mut found = blocks.query([])?;
        while let Some(row) = found.next()? {
            let (id, block): (FileId, i64) = (row.get(0)?, row.get(1)?);
            let (place, length): (Option<i64>, i64) = (row.get(2)?, row.get(3)?);
            let offset = block as u64 * BLOCK_BYTES;
            crate::volume::step("half of the objects");
            match place {
                None => objects.zero(id, offset, length as u64)?,
                Some(place) => {
                    let mut bytes = vec![0; length as usize];
                    self.blocks
                        .read_exact_at(&mut bytes, place as u64)
                        .map_err(StoreError::on("read", self.dir.join("blocks")))?;
                    objects.write_at(id, offset, &bytes)?;
                }
            }
            if touched.last() != Some(&id) {
                touched.push(id);
            }
        }
        // After the blocks: one that an earlier attempt left may be longer than its file is now, and
        // what is past the end must not show when the file grows again.
        let mut files = self.db.prepare("SELECT id, size FROM nodes WHERE kind = 1 ORDER BY id")?;
        let mut found = files.query([])?;
        while let Some(row) = found.next()? {
            let (id, size): (FileId, i64) = (row.get(0)?, row.get(1)?);
            let before = objects.length(id)?;
            if before != Some(size as u64) {
                objects.set_size(id, size as u64)?;
                touched.push(id);
            }
        }
        if touched.len() > SYNC_ALL {
            return objects.sync_all();
        }
        touched.into_iter().try_for_each(|id| objects.sync(id))?;
        objects.sync_names()
    }

    /// Brings the index to where the delta leads, in one transaction. `try_only`: sees whether it
    /// could be, and changes nothing.
    ///
    /// # Errors
    /// What SQLite said, or rows that make no tree; nothing was changed.
    pub fn put_into_index(&self, index: &mut Index, try_only: bool) -> Result<(), StoreError> {
        let (to, whole, _) = self.target()?;
        let floor = if whole { to.floor } else { index.checkpoint()?.floor };
        let to = Checkpoint { floor, building: false, ..to };
        let db = index.connection();
        db.execute("ATTACH ? AS staged", [self.dir.join("rows.db").to_string_lossy()])?;
        let put = put(db, &to, whole, try_only);
        db.execute_batch("DETACH staged")?;
        put
    }
}

fn put(
    db: &mut Connection,
    to: &Checkpoint,
    whole: bool,
    try_only: bool,
) -> Result<(), StoreError> {
    let writing = db.transaction()?;
    if whole {
        replace_all(&writing)?
    } else {
        put_changes(&writing)?
    }
    for sql in [
        "DELETE FROM gone WHERE id IN (SELECT id FROM staged.nodes)",
        "DELETE FROM doomed WHERE id IN (SELECT id FROM staged.nodes)",
        "REPLACE INTO nodes SELECT * FROM staged.nodes",
        "REPLACE INTO entries SELECT * FROM staged.entries",
        "REPLACE INTO xattrs SELECT * FROM staged.xattrs",
        "REPLACE INTO chunks SELECT id, chunk, birth, NULL FROM staged.chunks",
        "REPLACE INTO gone SELECT * FROM staged.gone",
    ] {
        writing.execute(sql, [])?;
    }
    // A chunk that is fetched again may not keep the hash of what was there.
    writing.execute(
        "UPDATE chunks SET hash = NULL WHERE (id, chunk) IN \
         (SELECT n.id, n.first FROM staged.need n WHERE n.past = n.first + 1)",
        [],
    )?;
    makes_a_tree(&writing)?;
    index::move_checkpoint(&writing, to)?;
    if try_only {
        writing.rollback()?
    } else {
        writing.commit()?
    }
    Ok(())
}

/// The leader's rows are all that there are.
fn replace_all(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "REPLACE INTO doomed SELECT id FROM main.nodes m WHERE m.kind = 1 \
         AND NOT EXISTS (SELECT 1 FROM staged.nodes s WHERE s.id = m.id);
         DELETE FROM main.nodes; DELETE FROM main.entries;
         DELETE FROM main.xattrs; DELETE FROM main.gone;
         DELETE FROM main.chunks WHERE id NOT IN (SELECT id FROM staged.nodes)
            OR EXISTS (SELECT 1 FROM staged.absent a
                WHERE a.kind = 4 AND a.id = main.chunks.id AND a.chunk = main.chunks.chunk);",
    )
}

/// The leader's rows are what is different. Files that it does not have go, whether it had them
/// once (they are in `gone`) or never (`absent`).
fn put_changes(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TEMP TABLE lost AS SELECT id FROM staged.gone
            UNION SELECT id FROM staged.absent WHERE kind IN (1, 5);
         REPLACE INTO doomed SELECT id FROM lost WHERE id IN (SELECT id FROM main.nodes);
         DELETE FROM main.nodes WHERE id IN (SELECT id FROM lost);
         DELETE FROM main.xattrs WHERE id IN (SELECT id FROM lost);
         DELETE FROM main.chunks WHERE id IN (SELECT id FROM lost);
         DELETE FROM main.entries WHERE parent IN (SELECT id FROM lost);
         DELETE FROM main.gone WHERE id IN (SELECT id FROM lost);
         DROP TABLE lost;
         DELETE FROM main.entries WHERE EXISTS (SELECT 1 FROM staged.absent a
            WHERE a.kind = 2 AND a.id = main.entries.parent AND a.name = main.entries.name);
         DELETE FROM main.xattrs WHERE EXISTS (SELECT 1 FROM staged.absent a
            WHERE a.kind = 3 AND a.id = main.xattrs.id AND a.name = main.xattrs.name);
         DELETE FROM main.chunks WHERE EXISTS (SELECT 1 FROM staged.absent a
            WHERE a.kind = 4 AND a.id = main.chunks.id AND a.chunk = main.chunks.chunk);",
    )
}

/// A delta that leaves a name in nothing, or of nothing, is refused while the old volume is whole.
fn makes_a_tree(db: &Connection) -> Result<(), StoreError> {
    let sql = "SELECT e.parent, e.name FROM staged.entries e WHERE e.child IS NOT NULL AND ( \
               NOT EXISTS (SELECT 1 FROM main.nodes n WHERE n.id = e.child) OR NOT EXISTS \
               (SELECT 1 FROM main.nodes n WHERE n.id = e.parent AND n.kind = 2)) LIMIT 1";
    let found: Option<(FileId, Vec<u8>)> =
        db.query_row(sql, params![], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match found {
        None => Ok(()),
        Some((parent, name)) => {
            let name = String::from_utf8_lossy(&name).into_owned();
            Err(StoreError::Unsound(format!(
                "a delta that leaves {name:?} in directory {parent} without a file or a directory"
            )))
        }
    }
}
