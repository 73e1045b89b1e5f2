//! What only this replica had: kept as plain files before it is overwritten.

use std::collections::{HashMap, HashSet};

use super::running::Running;
use super::{Volume, VolumeError};
use crate::export::tree::Content;
use crate::image::Image;
use crate::op::Kind;
use crate::position::{FileId, Position};
use crate::quarantine::{Manifest, Quarantine, list};
use crate::store::born::Born;
use crate::store::image;
use crate::store::rows::Row;

const ROWS: usize = 4096;

/// Names that lost and are told of, at most; what is in the log beyond them is counted.
const NAMES_MAX: usize = 1000;

/// Keeps every file that changed after `base`, as it is now, under `quarantine/`.
pub(super) fn keep(
    volume: &Volume,
    running: &Running,
    from: Position,
    base: Position,
) -> Result<(), VolumeError> {
    let bytes_max = volume.inner.options.quarantine_bytes_max;
    let quarantine = Quarantine::open(volume.state_dir(), bytes_max)?;
    let earlier = list(volume.state_dir())?;
    // A kill between this and the switch brings us here again with the same content.
    if earlier.iter().any(|kept| {
        kept.manifest.volume == volume.id()
            && kept.manifest.position == from
            && kept.manifest.base == Some(base)
    }) {
        return Ok(());
    }
    let reader = running.reader()?;
    let (at, deltas) = running.live().view(&reader)?;
    let (changed, removed) = changed_since(&reader, base)?;
    let whole = image::read(&reader, &deltas, at.position)?;
    let why = format!(
        "diverged: the last op in common is {base}, this volume had applied up to {from}; these \
         are the files that it changed since, as it had them"
    );
    let mut manifest = Manifest::new(&why, volume.id(), from, running.lineage());
    manifest.base = Some(base);
    manifest.removed = removed;
    let path = quarantine.keep_tree(
        &manifest,
        &part(whole, &changed),
        &Content::Copied(&running.objects),
    )?;
    tracing::warn!(kept = %path.display(), "what only this replica had is in quarantine");
    quarantine.keep_bound()?;
    Ok(())
}

/// The files that changed after `base`, and names that were taken away.
fn changed_since(
    db: &rusqlite::Connection,
    base: Position,
) -> Result<(HashSet<FileId>, Vec<String>), VolumeError> {
    let (mut changed, mut removed) = (HashSet::new(), Vec::new());
    let mut walk = Born::after(base.seq);
    loop {
        let rows = walk.next(db, ROWS)?;
        if rows.is_empty() {
            return Ok((changed, removed));
        }
        for row in rows {
            match row {
                Row::Node { id, .. } | Row::Xattr { id, .. } | Row::Chunk { id, .. } => {
                    changed.insert(id);
                }
                Row::Entry { child: Some(child), .. } => {
                    changed.insert(child);
                }
                Row::Entry { parent, name, child: None, .. } => {
                    if removed.len() < NAMES_MAX {
                        let name = String::from_utf8_lossy(&name).into_owned();
                        removed.push(format!("{name} in directory {parent}"));
                    }
                }
                Row::Gone { .. } => {}
            }
        }
    }
}

/// Of `whole` only the files in `changed`, under the directories that lead to them. A directory
/// counts as changed for what is in it.
fn part(whole: Image, changed: &HashSet<FileId>) -> Image {
    let directories: HashSet<FileId> = whole
        .nodes
        .iter()
        .filter(|(_, of)| of.kind == Kind::Directory)
        .map(|(id, _)| *id)
        .collect();
    let parent_of: HashMap<FileId, FileId> = whole
        .entries
        .iter()
        .filter(|(_, _, child)| directories.contains(child))
        .map(|(parent, _, child)| (*child, *parent))
        .collect();
    let mut kept: HashSet<FileId> = HashSet::from([FileId::ROOT]);
    let mut keep_up = |mut id: FileId| {
        while kept.insert(id) {
            match parent_of.get(&id) {
                Some(parent) => id = *parent,
                None => break,
            }
        }
    };
    for (parent, _, child) in &whole.entries {
        if changed.contains(child) {
            keep_up(*parent);
            keep_up(*child);
        }
    }
    let entries = whole
        .entries
        .into_iter()
        .filter(|(parent, _, child)| kept.contains(child) && kept.contains(parent));
    Image {
        position: whole.position,
        entries: entries.collect(),
        nodes: whole.nodes.into_iter().filter(|(id, _)| kept.contains(id)).collect(),
        xattrs: whole.xattrs.into_iter().filter(|(id, _, _)| kept.contains(id)).collect(),
    }
}
