//! The live tree: every file's attributes, entries and extended attributes, in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::image::Image;
use crate::op::{Attributes, Change, Kind};
use crate::position::FileId;

/// An image that no sequence of ops can have made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The first row that is missing.
    #[error("the volume has no root directory; it is damaged: rebuild it from another replica")]
    NoRoot,
    /// An entry or attribute of a file that does not exist, or of one that cannot have it.
    #[error(
        "{what} of file {id:x} has nothing to belong to; the volume is damaged: rebuild it from \
         another replica"
    )]
    Stray {
        /// What it is: an entry, an extended attribute.
        what: &'static str,
        /// The file that is missing or no directory.
        id: u64,
    },
}

/// One entry as a listing of its directory gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where a listing goes on after this entry.
    pub cookie: u64,
    /// What it names.
    pub child: FileId,
    /// Its name.
    pub name: Arc<[u8]>,
}

/// Cookies 1 and 2 are `.` and `..`.
const COOKIE_FIRST: u64 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Directory {
    /// The directory that names this one; itself for the root.
    parent: FileId,
    by_name: BTreeMap<Arc<[u8]>, (FileId, u64)>,
    /// A name keeps its cookie for as long as it exists, and a new one gets a higher cookie than
    /// all before. So a listing that goes on at a cookie neither skips nor repeats a name,
    /// whatever came and went in between.
    by_cookie: BTreeMap<u64, Arc<[u8]>>,
    cookie_next: u64,
}

impl Directory {
    fn new(parent: FileId) -> Directory {
        Directory {
            parent,
            by_name: BTreeMap::new(),
            by_cookie: BTreeMap::new(),
            cookie_next: COOKIE_FIRST,
        }
    }

    fn set(&mut self, name: &[u8], child: FileId) {
        if let Some(slot) = self.by_name.get_mut(name) {
            slot.0 = child;
            return;
        }
        let name: Arc<[u8]> = name.into();
        self.by_name.insert(name.clone(), (child, self.cookie_next));
        self.by_cookie.insert(self.cookie_next, name);
        self.cookie_next += 1;
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some((_, cookie)) = self.by_name.remove(name) {
            self.by_cookie.remove(&cookie);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    attributes: Attributes,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    directory: Option<Box<Directory>>,
}

impl Node {
    fn new(id: FileId, attributes: Attributes) -> Node {
        // A directory's parent is learnt from the entry that names it, recorded with it.
        let directory = (attributes.kind == Kind::Directory).then(|| Box::new(Directory::new(id)));
        Node { attributes, xattrs: BTreeMap::new(), directory }
    }
}

/// Every file of the volume, after every op that was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: HashMap<FileId, Node>,
}

impl Tree {
    /// The tree that `image` describes.
    ///
    /// # Errors
    /// The image contradicts itself.
    pub fn load(image: Image) -> Result<Tree, TreeError> {
        let mut tree = Tree { nodes: HashMap::with_capacity(image.nodes.len()) };
        for (id, attributes) in image.nodes {
            tree.nodes.insert(id, Node::new(id, attributes));
        }
        let root = tree.nodes.get(&FileId::ROOT);
        if root.is_none_or(|root| root.directory.is_none()) {
            return Err(TreeError::NoRoot);
        }
        for (parent, name, child) in image.entries {
            let stray = |id: FileId| TreeError::Stray { what: "an entry", id: id.0 };
            if !tree.nodes.contains_key(&child) {
                return Err(stray(child));
            }
            if !tree.is_directory(parent) {
                return Err(stray(parent));
            }
            tree.set_entry(parent, &name, Some(child));
        }
        for (id, name, value) in image.xattrs {
            let stray = TreeError::Stray { what: "an extended attribute", id: id.0 };
            tree.nodes.get_mut(&id).ok_or(stray)?.xattrs.insert(name, value);
        }
        Ok(tree)
    }

    /// Brings the tree past one outcome. Outcomes about files that do not exist are without
    /// effect, as they are for a replica that replays an old record over a newer state.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Node { id, attributes } => match self.nodes.get_mut(id) {
                Some(node) => node.attributes = attributes.clone(),
                None => {
                    self.nodes.insert(*id, Node::new(*id, attributes.clone()));
                }
            },
            Change::Gone { id } => {
                self.nodes.remove(id);
            }
            Change::Entry { parent, name, child } => self.set_entry(*parent, name, *child),
            Change::Xattr { id, name, value } => {
                let Some(node) = self.nodes.get_mut(id) else { return };
                match value {
                    Some(value) => node.xattrs.insert(name.clone(), value.clone()),
                    None => node.xattrs.remove(name),
                };
            }
            // Bytes are the objects' business; the size comes with a Node.
            Change::Write { .. }
            | Change::Zero { .. }
            | Change::Reserve { .. }
            | Change::EpochStart { .. } => {}
        }
    }

    fn set_entry(&mut self, parent: FileId, name: &[u8], child: Option<FileId>) {
        if let Some(child) = child
            && let Some(moved) = self.nodes.get_mut(&child)
            && let Some(directory) = moved.directory.as_mut()
        {
            directory.parent = parent;
        }
        let Some(node) = self.nodes.get_mut(&parent) else { return };
        let Some(directory) = node.directory.as_mut() else { return };
        match child {
            Some(child) => directory.set(name, child),
            None => directory.remove(name),
        }
    }

    /// `id`'s attributes, if there is such a file.
    #[must_use]
    pub fn attributes(&self, id: FileId) -> Option<&Attributes> {
        self.nodes.get(&id).map(|node| &node.attributes)
    }

    /// What `name` in `parent` names.
    #[must_use]
    pub fn child(&self, parent: FileId, name: &[u8]) -> Option<FileId> {
        self.directory(parent)?.by_name.get(name).map(|(child, _)| *child)
    }

    /// The directory that names the directory `id`; the root's is the root.
    #[must_use]
    pub fn parent(&self, id: FileId) -> Option<FileId> {
        self.directory(id).map(|directory| directory.parent)
    }

    /// The entries of `id` after `cookie` in a listing's order (0: from the start), without `.`
    /// and `..`.
    pub fn list(&self, id: FileId, cookie: u64) -> impl Iterator<Item = Listed> + '_ {
        let directory = self.directory(id);
        directory.into_iter().flat_map(move |directory| {
            directory.by_cookie.range(cookie.saturating_add(1)..).filter_map(|(cookie, name)| {
                let (child, _) = directory.by_name.get(name)?;
                Some(Listed { cookie: *cookie, child: *child, name: name.clone() })
            })
        })
    }

    /// Whether the directory `id` has no entries.
    #[must_use]
    pub fn is_childless(&self, id: FileId) -> bool {
        self.directory(id).is_none_or(|directory| directory.by_name.is_empty())
    }

    /// The extended attribute `name` of `id`.
    #[must_use]
    pub fn xattr(&self, id: FileId, name: &[u8]) -> Option<&[u8]> {
        self.nodes.get(&id)?.xattrs.get(name).map(Vec::as_slice)
    }

    /// The names of `id`'s extended attributes.
    pub fn xattr_names(&self, id: FileId) -> impl Iterator<Item = &[u8]> {
        self.nodes.get(&id).into_iter().flat_map(|node| node.xattrs.keys().map(Vec::as_slice))
    }

    /// Files without a name: the open, unlinked ones of a leader that died.
    pub fn orphans(&self) -> impl Iterator<Item = FileId> {
        self.nodes.iter().filter(|(_, node)| node.attributes.nlink == 0).map(|(id, _)| *id)
    }

    /// Every file's id, in no order.
    pub fn ids(&self) -> impl Iterator<Item = FileId> {
        self.nodes.keys().copied()
    }

    /// How many files there are.
    #[must_use]
    pub fn files(&self) -> usize {
        self.nodes.len()
    }

    /// Whether `id` is `ancestor` or lies somewhere beneath it.
    #[must_use]
    pub fn is_within(&self, id: FileId, ancestor: FileId) -> bool {
        let mut at = id;
        // The tree has no cycles, but a loop over stored parents should not rest on that alone.
        for _ in 0..=self.nodes.len() {
            if at == ancestor {
                return true;
            }
            match self.parent(at) {
                Some(parent) if parent != at => at = parent,
                _ => return false,
            }
        }
        false
    }

    fn is_directory(&self, id: FileId) -> bool {
        self.directory(id).is_some()
    }

    fn directory(&self, id: FileId) -> Option<&Directory> {
        self.nodes.get(&id)?.directory.as_deref()
    }
}
