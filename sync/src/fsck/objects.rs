//! The objects, against what the index says of them.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::namespace::Namespace;
use super::{Finding, Report};
use crate::op::Kind;
use crate::position::{FileId, Lineage};
use crate::quarantine::{Manifest, Quarantine};
use crate::store::index;
use crate::volume::{VolumeError, VolumeOptions};
use crate::vow::Vow;

/// Compares what is in `root` with the index.
///
/// With ops that are not applied only an object's absence tells something: those ops may have
/// made objects, and have cut or grown them.
pub(super) fn check(
    root: &Path,
    space: &Namespace,
    report: &mut Report,
) -> Result<(), VolumeError> {
    let mut found = HashMap::new();
    if root.exists() {
        walk(root, &mut found, report)?;
    }
    let settled = report.unapplied == 0;
    for (id, (path, length)) in &found {
        match space.nodes.get(id) {
            Some(of) if of.kind == Kind::File => {
                let (id, size, length) = (*id, of.size, *length);
                if settled && length > size {
                    report.add(Finding::Long { id, size, length });
                } else if settled && length < size {
                    report.add(Finding::Short { id, size, length });
                }
            }
            // A file that ended leaves its object to the next open.
            None if space.gone.contains(id) => {}
            None if !settled => {}
            _ => report.add(Finding::Foreign(path.clone())),
        }
    }
    for (id, of) in &space.nodes {
        if of.kind == Kind::File && of.size > 0 && !found.contains_key(id) {
            report.add(Finding::NoObject(*id));
        }
    }
    Ok(())
}

/// Every object by its id, with its length; what is none is reported.
fn walk(
    root: &Path,
    found: &mut HashMap<FileId, (PathBuf, u64)>,
    report: &mut Report,
) -> Result<(), VolumeError> {
    for entry in fs::read_dir(root).map_err(VolumeError::on("read", root))? {
        let directory = entry.map_err(VolumeError::on("read", root))?.path();
        let low = low_byte(&directory);
        let Some(low) = low.filter(|_| directory.is_dir()) else {
            report.add(Finding::Foreign(directory));
            continue;
        };
        for entry in fs::read_dir(&directory).map_err(VolumeError::on("read", &directory))? {
            let entry = entry.map_err(VolumeError::on("read", &directory))?;
            let metadata = entry.metadata().map_err(VolumeError::on("read", entry.path()))?;
            match id_of(&entry.path(), low).filter(|_| metadata.is_file()) {
                Some(id) => drop(found.insert(id, (entry.path(), metadata.len()))),
                None => report.add(Finding::Foreign(entry.path())),
            }
        }
    }
    Ok(())
}

fn low_byte(directory: &Path) -> Option<u64> {
    let name = directory.file_name()?.to_str()?;
    let low = u64::from_str_radix(name, 16).ok()?;
    (name == format!("{low:02x}") && low < 256).then_some(low)
}

fn id_of(path: &Path, low: u64) -> Option<FileId> {
    let name = path.file_name()?.to_str()?;
    let id: FileId = name.parse().ok()?;
    (name == format!("{:016x}", id.0) && id.0 & 0xff == low).then_some(id)
}

/// Mends what is safe to mend, and marks it.
pub(super) fn repair(state: &Path, report: &mut Report) -> Result<(), VolumeError> {
    let mut foreign = Vec::new();
    for problem in &mut report.problems {
        match &problem.what {
            Finding::Long { id, size, .. } => {
                let path = state
                    .join("objects")
                    .join(format!("{:02x}", id.0 & 0xff))
                    .join(format!("{:016x}", id.0));
                OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .and_then(|file| file.set_len(*size).and_then(|()| file.sync_all()))
                    .map_err(VolumeError::on("cut", &path))?;
                problem.repaired = true;
            }
            Finding::Foreign(path) => {
                foreign.push(path.clone());
                problem.repaired = true;
            }
            _ => {}
        }
    }
    if foreign.is_empty() {
        return Ok(());
    }
    let bound = VolumeOptions::default().quarantine_bytes_max;
    let quarantine = Quarantine::open(state, bound)?;
    let volume = Vow::load(state)?.map(|vow| vow.volume).unwrap_or_default();
    let lineage = index::reader(&state.join("meta.db"))
        .and_then(|db| index::checkpoint(&db))
        .map_or_else(|_| Lineage::default(), |at| at.lineage);
    let why = "fsck found these files in objects/, where no file of the volume has them";
    let manifest = Manifest::new(why, volume, report.checkpoint, lineage);
    quarantine.keep_files(&manifest, &foreign)?;
    Ok(())
}
