//! What a follower keeps of the records: rows, as a store has them, and nothing of the tree that
//! the mount has.

use std::collections::BTreeMap;

use mainstay_sync::image::Image;
use mainstay_sync::op::{Attributes, Change};
use mainstay_sync::position::{FileId, Position};

#[derive(Default)]
pub struct Rows {
    nodes: BTreeMap<FileId, Attributes>,
    entries: BTreeMap<(FileId, Vec<u8>), FileId>,
    xattrs: BTreeMap<(FileId, Vec<u8>), Vec<u8>>,
}

impl Rows {
    pub fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Node { id, attributes } => drop(self.nodes.insert(id, attributes)),
            Change::Gone { id } => {
                self.nodes.remove(&id);
                self.xattrs.retain(|(whose, _), _| *whose != id);
            }
            Change::Entry { parent, name, child: Some(child) } => {
                self.entries.insert((parent, name), child);
            }
            Change::Entry { parent, name, child: None } => {
                self.entries.remove(&(parent, name));
            }
            Change::Xattr { id, name, value: Some(value) } => {
                self.xattrs.insert((id, name), value);
            }
            Change::Xattr { id, name, value: None } => drop(self.xattrs.remove(&(id, name))),
            _ => {}
        }
    }

    pub fn orphans(&self) -> usize {
        self.nodes.values().filter(|row| row.nlink == 0).count()
    }

    pub fn image(&self) -> Image {
        let entry = |((parent, name), child): (&(FileId, Vec<u8>), &FileId)| {
            (*parent, name.clone(), *child)
        };
        let xattr = |((id, name), value): (&(FileId, Vec<u8>), &Vec<u8>)| {
            (*id, name.clone(), value.clone())
        };
        Image {
            position: Position::default(),
            nodes: self.nodes.iter().map(|(id, row)| (*id, row.clone())).collect(),
            entries: self.entries.iter().map(entry).collect(),
            xattrs: self.xattrs.iter().map(xattr).collect(),
        }
    }
}
