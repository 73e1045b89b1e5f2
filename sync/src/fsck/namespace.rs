//! Names and links, against one another.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::{Finding, Report};
use crate::op::{Attributes, Kind};
use crate::position::FileId;
use crate::store::StoreError;
use crate::store::rows::{Cursor, Row};

/// The index's rows that say what there is.
#[derive(Default)]
pub(super) struct Namespace {
    pub(super) nodes: HashMap<FileId, Attributes>,
    entries: Vec<(FileId, Vec<u8>, FileId)>,
    /// Files that are gone, and whose objects may be there still.
    pub(super) gone: HashSet<FileId>,
}

impl Namespace {
    pub(super) fn read(db: &Connection) -> Result<Namespace, StoreError> {
        let mut space = Namespace::default();
        let mut cursor = Cursor::default();
        loop {
            let page = cursor.next(db, 4096)?;
            if page.is_empty() {
                break;
            }
            for row in page {
                match row {
                    Row::Node { id, attributes, .. } => drop(space.nodes.insert(id, attributes)),
                    Row::Entry { parent, name, child: Some(child), .. } => {
                        space.entries.push((parent, name, child));
                    }
                    Row::Gone { id, .. } => drop(space.gone.insert(id)),
                    Row::Entry { .. } | Row::Xattr { .. } | Row::Chunk { .. } => {}
                }
            }
        }
        let mut doomed = db.prepare("SELECT id FROM doomed")?;
        for id in doomed.query_map([], |row| row.get(0))? {
            space.gone.insert(id?);
        }
        Ok(space)
    }

    pub(super) fn check(&self, report: &mut Report) {
        if !self.is_directory(FileId::ROOT) {
            report.add(Finding::NoRoot);
        }
        let mut links: HashMap<FileId, u32> = HashMap::new();
        for (parent, name, child) in &self.entries {
            if !self.is_directory(*parent) || !self.nodes.contains_key(child) {
                let name = String::from_utf8_lossy(name).into_owned();
                report.add(Finding::Dangling { parent: *parent, name, child: *child });
            }
            *links.entry(*child).or_default() += 1;
            if self.is_directory(*child) {
                // Its `..` is one more of its parent's.
                *links.entry(*parent).or_default() += 1;
            }
        }
        for (id, of) in &self.nodes {
            // A directory has its own `.` besides, and the root no name but `..`.
            let own = u32::from(of.kind == Kind::Directory) + u32::from(*id == FileId::ROOT);
            let named = links.get(id).copied().unwrap_or(0);
            let counted = if named == 0 && of.nlink == 0 { 0 } else { named + own };
            if named == 0 && of.nlink > 0 && *id != FileId::ROOT {
                report.add(Finding::Unnamed(*id));
            } else if counted != of.nlink {
                report.add(Finding::Links { id: *id, says: of.nlink, counted });
            }
        }
    }

    fn is_directory(&self, id: FileId) -> bool {
        self.nodes.get(&id).is_some_and(|of| of.kind == Kind::Directory)
    }
}
