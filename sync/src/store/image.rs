//! Reads a whole namespace: the index with the deltas laid over it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rusqlite::Connection;

use super::StoreError;
use super::delta::Delta;
use super::rows::{Cursor, Row};
use crate::image::Image;
use crate::op::{Attributes, Kind};
use crate::position::{FileId, Position};

const PAGE: usize = 4096;

/// Everything by key, while the deltas are laid over.
#[derive(Default)]
struct Namespace {
    nodes: HashMap<FileId, Attributes>,
    entries: HashMap<FileId, BTreeMap<Vec<u8>, FileId>>,
    xattrs: HashMap<FileId, BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// The namespace at `position`: what `reader`'s transaction sees, with `deltas` over it in order.
///
/// # Errors
/// What SQLite said, or a tree that is not whole.
pub fn read(
    reader: &Connection,
    deltas: &[Arc<Delta>],
    position: Position,
) -> Result<Image, StoreError> {
    let mut space = Namespace::default();
    let mut cursor = Cursor::default();
    loop {
        let page = cursor.next(reader, PAGE)?;
        if page.is_empty() {
            break;
        }
        page.into_iter().for_each(|row| space.take(row));
    }
    deltas.iter().for_each(|delta| space.lay_over(delta));
    let image = space.image(position);
    whole(&image)?;
    Ok(image)
}

impl Namespace {
    fn take(&mut self, row: Row) {
        match row {
            Row::Node { id, attributes, .. } => {
                self.nodes.insert(id, attributes);
            }
            Row::Entry { parent, name, child: Some(child), .. } => {
                self.entries.entry(parent).or_default().insert(name, child);
            }
            Row::Xattr { id, name, value: Some(value), .. } => {
                self.xattrs.entry(id).or_default().insert(name, value);
            }
            Row::Entry { .. } | Row::Xattr { .. } | Row::Chunk { .. } | Row::Gone { .. } => {}
        }
    }

    fn lay_over(&mut self, delta: &Delta) {
        for (id, node) in &delta.nodes {
            match &node.value {
                Some(attributes) => {
                    self.nodes.insert(*id, attributes.clone());
                }
                None => {
                    self.nodes.remove(id);
                    self.entries.remove(id);
                    self.xattrs.remove(id);
                }
            }
        }
        lay_names_over(&mut self.entries, &delta.entries);
        lay_names_over(&mut self.xattrs, &delta.xattrs);
    }

    fn image(self, position: Position) -> Image {
        let flat = |(of, names): (FileId, BTreeMap<Vec<u8>, FileId>)| {
            names.into_iter().map(move |(name, child)| (of, name, child))
        };
        let flat_values = |(of, names): (FileId, BTreeMap<Vec<u8>, Vec<u8>>)| {
            names.into_iter().map(move |(name, value)| (of, name, value))
        };
        Image {
            position,
            nodes: self.nodes.into_iter().collect(),
            entries: self.entries.into_iter().flat_map(flat).collect(),
            xattrs: self.xattrs.into_iter().flat_map(flat_values).collect(),
        }
    }
}

fn lay_names_over<T: Clone>(
    under: &mut HashMap<FileId, BTreeMap<Vec<u8>, T>>,
    over: &HashMap<FileId, BTreeMap<Vec<u8>, super::delta::Born<Option<T>>>>,
) {
    for (of, names) in over {
        let under = under.entry(*of).or_default();
        for (name, now) in names {
            match &now.value {
                Some(value) => {
                    under.insert(name.clone(), value.clone());
                }
                None => {
                    under.remove(name);
                }
            }
        }
    }
}

/// A mount must not meet a name that leads nowhere in the middle of an answer: better refused
/// here, while another replica can still be chosen.
fn whole(image: &Image) -> Result<(), StoreError> {
    let kinds: HashMap<FileId, bool> = image
        .nodes
        .iter()
        .map(|(id, attributes)| (*id, attributes.kind == Kind::Directory))
        .collect();
    if kinds.is_empty() {
        return Ok(());
    }
    if kinds.get(&FileId::ROOT) != Some(&true) {
        return Err(StoreError::Damaged("it has no root directory".into()));
    }
    let mut named: HashSet<FileId> = HashSet::from([FileId::ROOT]);
    for (parent, name, child) in &image.entries {
        let name = String::from_utf8_lossy(name);
        if kinds.get(parent) != Some(&true) {
            let what = format!("{name:?} is in {parent}, which is no directory");
            return Err(StoreError::Damaged(what));
        }
        if !kinds.contains_key(child) {
            let what = format!("{name:?} in directory {parent} names {child}, which is not there");
            return Err(StoreError::Damaged(what));
        }
        named.insert(*child);
    }
    match image.nodes.iter().find(|(id, of)| of.nlink > 0 && !named.contains(id)) {
        Some((id, _)) => Err(StoreError::Damaged(format!("file {id} has links and no name"))),
        None => Ok(()),
    }
}
