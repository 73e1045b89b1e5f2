//! What lost, kept for people: `quarantine/<epoch>-<seq>/`.
//!
//! Each holds a `manifest.json` that says what it is and why it is here, and either `tree/`, a
//! whole volume as plain files, or `records`, ops that were never applied. Bounded: the oldest go
//! first, and whoever asked for room is told which.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::export::tree::{self, Content, TreeError};
use crate::export::{self, ExportError};
use crate::image::Image;
use crate::import::scan;
use crate::log::LogError;
use crate::position::{Lineage, Position, VolumeId};

const PARTIAL: &str = ".partial-";
const MANIFEST: &str = "manifest.json";
const TREE: &str = "tree";
const RECORDS: &str = "records";

/// Why something could not be set aside, or read or dropped again.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// A plain file could not be written.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The records could not be read.
    #[error(transparent)]
    Log(LogError),
    /// A manifest that does not say what it should.
    #[error("{}: {cause}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
    /// There is none of that name.
    #[error("nothing in quarantine is named {0:?}; `mainstay quarantine list` shows what is")]
    Unknown(String),
    /// It holds records and no files.
    #[error(
        "{0} holds no tree: records that were never applied, or single chunks and objects, as \
        `mainstay quarantine show` says; they lie in quarantine/{0} of the state directory"
    )]
    NoTree(String),
}

impl QuarantineError {
    /// For `map_err`: what was being done to which path.
    pub(crate) fn on(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> QuarantineError {
        let path = path.into();
        move |cause| QuarantineError::Tree(TreeError { action, path, cause })
    }
}

/// What was set aside, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// For people: what it lost against.
    pub why: String,
    /// Seconds since 1970.
    pub at_s: u64,
    /// Which copy it was.
    pub volume: VolumeId,
    /// How far it reached.
    pub position: Position,
    /// Which epochs led there.
    pub lineage: Lineage,
    /// Only what changed after this op is kept, since the rest was not lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Position>,
    /// Names that were taken away after `base`, the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

impl Manifest {
    /// For content that is set aside now.
    #[must_use]
    pub fn new(why: &str, volume: VolumeId, position: Position, lineage: Lineage) -> Manifest {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Manifest {
            why: why.to_owned(),
            at_s: since.as_secs(),
            volume,
            position,
            lineage,
            base: None,
            removed: Vec::new(),
        }
    }
}

/// One thing in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its directory's name.
    pub name: String,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Bytes that it takes on disk.
    pub bytes: u64,
}

/// A volume's quarantine.
pub struct Quarantine {
    root: PathBuf,
    bytes_max: u64,
}

impl Quarantine {
    /// The one of `state_dir`, made if it is not there. For the volume's owner: what a kill left
    /// half written is removed.
    pub(crate) fn open(state_dir: &Path, bytes_max: u64) -> Result<Quarantine, QuarantineError> {
        let root = state_dir.join("quarantine");
        fs::create_dir_all(&root).map_err(QuarantineError::on("create", &root))?;
        let quarantine = Quarantine { root, bytes_max };
        quarantine.tidy()?;
        Ok(quarantine)
    }

    fn tidy(&self) -> Result<(), QuarantineError> {
        let root = &self.root;
        for entry in fs::read_dir(root).map_err(QuarantineError::on("read", root))? {
            let path = entry.map_err(QuarantineError::on("read", root))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(PARTIAL) {
                fs::remove_dir_all(&path).map_err(QuarantineError::on("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Keeps a volume or a part of one, its bytes from `content`.
    pub(crate) fn keep_tree(
        &self,
        manifest: &Manifest,
        image: &Image,
        content: &Content<'_>,
    ) -> Result<PathBuf, QuarantineError> {
        self.keep(manifest, |partial| {
            let target = partial.join(TREE);
            fs::create_dir(&target).map_err(QuarantineError::on("create", &target))?;
            Ok(tree::write(image, content, &target)?)
        })
    }

    /// Keeps records that `write` writes.
    pub(crate) fn keep_records(
        &self,
        manifest: &Manifest,
        write: impl FnOnce(&mut File) -> Result<(), QuarantineError>,
    ) -> Result<PathBuf, QuarantineError> {
        self.keep(manifest, |partial| {
            let path = partial.join(RECORDS);
            let mut file = File::create_new(&path).map_err(QuarantineError::on("create", &path))?;
            write(&mut file)?;
            file.sync_all().map_err(QuarantineError::on("sync", &path))
        })
    }

    /// Keeps a few bytes, in a file of that name.
    pub(crate) fn keep_bytes(
        &self,
        manifest: &Manifest,
        name: &str,
        bytes: &[u8],
    ) -> Result<PathBuf, QuarantineError> {
        self.keep(manifest, |partial| {
            let path = partial.join(name);
            fs::write(&path, bytes).map_err(QuarantineError::on("write", &path))?;
            sync(&path)
        })
    }

    /// Moves files here, under the names that they have.
    pub(crate) fn keep_files(
        &self,
        manifest: &Manifest,
        files: &[PathBuf],
    ) -> Result<PathBuf, QuarantineError> {
        self.keep(manifest, |partial| {
            for (number, path) in files.iter().enumerate() {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let to = partial.join(format!("{number}-{name}"));
                fs::rename(path, &to).map_err(QuarantineError::on("move", path))?;
            }
            Ok(())
        })
    }

    /// Its name comes last, and durably: either all of it is here or nothing.
    fn keep(
        &self,
        manifest: &Manifest,
        fill: impl FnOnce(&Path) -> Result<(), QuarantineError>,
    ) -> Result<PathBuf, QuarantineError> {
        let name = self.free_name(manifest.position);
        let partial = self.root.join(format!("{PARTIAL}{name}"));
        fs::create_dir(&partial).map_err(QuarantineError::on("create", &partial))?;
        let filled = fill(&partial).and_then(|()| write_manifest(&partial, manifest));
        if let Err(error) = filled {
            if let Err(left) = fs::remove_dir_all(&partial) {
                tracing::warn!("{} is left half written: {left}", partial.display());
            }
            return Err(error);
        }
        let path = self.root.join(name);
        fs::rename(&partial, &path).map_err(QuarantineError::on("rename", &partial))?;
        sync(&self.root)?;
        Ok(path)
    }

    /// One position may lose twice.
    fn free_name(&self, position: Position) -> String {
        let name = format!("{}-{}", position.epoch, position.seq);
        let numbered = (2..).map(|number| format!("{name}.{number}"));
        std::iter::once(name.clone())
            .chain(numbered)
            .find(|name| !self.root.join(name).exists())
            .unwrap_or(name)
    }

    /// Drops the oldest until the rest is within the bound, and says which; the newest stays.
    pub(crate) fn keep_bound(&self) -> Result<Vec<String>, QuarantineError> {
        let mut kept = list_in(&self.root)?;
        let mut held: u64 = kept.iter().map(|one| one.bytes).sum();
        let mut dropped = Vec::new();
        while held > self.bytes_max && kept.len() > 1 {
            let oldest = kept.remove(0);
            drop_in(&self.root, &oldest.name)?;
            tracing::warn!("dropped {} from quarantine to keep the bound", oldest.name);
            held -= oldest.bytes;
            dropped.push(oldest.name);
        }
        Ok(dropped)
    }
}

/// What is in the quarantine of `state_dir`, oldest first.
///
/// # Errors
/// What the disk said, or a manifest that cannot be read.
pub fn list(state_dir: &Path) -> Result<Vec<Kept>, QuarantineError> {
    list_in(&state_dir.join("quarantine"))
}

/// What one thing says of itself.
///
/// # Errors
/// There is none of that name.
pub fn show(state_dir: &Path, name: &str) -> Result<Kept, QuarantineError> {
    let found = list(state_dir)?.into_iter().find(|kept| kept.name == name);
    found.ok_or_else(|| QuarantineError::Unknown(name.to_owned()))
}

/// Copies one thing's files to `target`, an empty or a new directory.
///
/// # Errors
/// There is none of that name, it holds no files, or they could not be copied.
pub fn export(state_dir: &Path, name: &str, target: &Path) -> Result<(), ExportError> {
    let kept = show(state_dir, name).map_err(crate::volume::VolumeError::from)?;
    let source = state_dir.join("quarantine").join(&kept.name).join(TREE);
    if !source.exists() {
        return Err(crate::volume::VolumeError::from(QuarantineError::NoTree(kept.name)).into());
    }
    let made = export::prepare(target, state_dir)?;
    let written = scan::scan(&source)
        .and_then(|scanned| tree::write(&scanned.image, &Content::Files(&scanned.paths), target));
    if written.is_err() && made {
        // What cannot be removed is an empty directory.
        let _ = fs::remove_dir(target);
    }
    Ok(written?)
}

/// Removes one thing for good.
///
/// # Errors
/// There is none of that name, or it could not be removed.
pub fn drop_kept(state_dir: &Path, name: &str) -> Result<(), QuarantineError> {
    let kept = show(state_dir, name)?;
    drop_in(&state_dir.join("quarantine"), &kept.name)
}

/// Out of sight first, so that a kill leaves it whole or not listed.
fn drop_in(root: &Path, name: &str) -> Result<(), QuarantineError> {
    let (path, partial) = (root.join(name), root.join(format!("{PARTIAL}{name}")));
    fs::rename(&path, &partial).map_err(QuarantineError::on("rename", &path))?;
    fs::remove_dir_all(&partial).map_err(QuarantineError::on("remove", &partial))?;
    sync(root)
}

fn list_in(root: &Path) -> Result<Vec<Kept>, QuarantineError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(QuarantineError::on("read", root)(cause)),
    };
    let mut kept = Vec::new();
    for entry in entries {
        let path = entry.map_err(QuarantineError::on("read", root))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(PARTIAL) {
            continue;
        }
        let file = path.join(MANIFEST);
        let text = fs::read(&file).map_err(QuarantineError::on("read", &file))?;
        let manifest = serde_json::from_slice(&text)
            .map_err(|cause| QuarantineError::Manifest { path: file, cause })?;
        let bytes = bytes_in(&path).map_err(QuarantineError::on("read", &path))?;
        kept.push(Kept { name, manifest, bytes });
    }
    kept.sort_by_key(|one| (one.manifest.at_s, one.manifest.position));
    Ok(kept)
}

fn write_manifest(partial: &Path, manifest: &Manifest) -> Result<(), QuarantineError> {
    let path = partial.join(MANIFEST);
    let text = serde_json::to_vec_pretty(manifest)
        .map_err(|cause| QuarantineError::Manifest { path: path.clone(), cause })?;
    fs::write(&path, text).map_err(QuarantineError::on("write", &path))?;
    sync(&path)?;
    sync(partial)
}

fn sync(path: &Path) -> Result<(), QuarantineError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(QuarantineError::on("sync", path))
}

/// Bytes on disk below `path`, counting a file with several names several times.
fn bytes_in(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut left = vec![path.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(bytes)
}
