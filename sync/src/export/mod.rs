//! Plain files out of a replica that is not running.

pub mod tree;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::image::Image;
use crate::op::Kind;
use crate::store::objects::ObjectFiles;
use crate::volume::{Volume, VolumeError, VolumeOptions};
use tree::{Content, Told, TreeError};

/// Why an export did not happen. The target is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The volume could not be opened, or is not fit to be read.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A plain file could not be written.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The target has something in it.
    #[error("{} is not empty; choose an empty or a new directory", .0.display())]
    NotEmpty(PathBuf),
    /// The target is part of the volume.
    #[error("{} is inside the state directory; choose a directory outside of it", .0.display())]
    Inside(PathBuf),
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The last op that the files hold.
    pub position: crate::position::Position,
    /// How many files and directories.
    pub files: usize,
}

/// Writes the volume in `state_dir` into `target` as plain files, as of the end of its log.
///
/// The volume is opened as a daemon would open it, so a tail of the log that was not applied yet
/// is applied first; it must not be in use. `options` are what the replica runs with.
///
/// # Errors
/// See [`ExportError`].
pub fn export(
    state_dir: &Path,
    options: &VolumeOptions,
    target: &Path,
) -> Result<Exported, ExportError> {
    export_telling(state_dir, options, target, &mut |_, _| ())
}

/// As [`export`], and tells how far it is.
///
/// # Errors
/// See [`ExportError`].
pub fn export_telling(
    state_dir: &Path,
    options: &VolumeOptions,
    target: &Path,
    told: Told<'_>,
) -> Result<Exported, ExportError> {
    if !state_dir.join("vow").exists() {
        let missing = io::Error::new(io::ErrorKind::NotFound, "there is no volume");
        return Err(VolumeError::on("open", state_dir)(missing).into());
    }
    let made = prepare(target, state_dir)?;
    let exported = read_out(state_dir, options, target, told);
    if exported.is_err() && made {
        // What cannot be removed is an empty directory.
        let _ = fs::remove_dir(target);
    }
    exported
}

fn read_out(
    state_dir: &Path,
    options: &VolumeOptions,
    target: &Path,
    told: Told<'_>,
) -> Result<Exported, ExportError> {
    let volume = Volume::open(state_dir, options.clone())?;
    if volume.building() {
        return Err(VolumeError::Building.into());
    }
    volume.wait_applied(volume.head().seq)?;
    let image = volume.image()?;
    if image.nodes.is_empty() {
        return Err(VolumeError::Blank.into());
    }
    let objects = volume.object_files();
    whole(&image, &objects)?;
    tree::write_telling(&image, &Content::Copied(&objects), target, told)?;
    volume.close()?;
    Ok(Exported { position: image.position, files: image.nodes.len() })
}

/// What an object lacks would be read as zeros, and nobody would see that it was lost.
fn whole(image: &Image, objects: &ObjectFiles) -> Result<(), ExportError> {
    for (id, of) in image.nodes.iter().filter(|(_, of)| of.kind == Kind::File && of.size > 0) {
        let length = objects.length(*id).map_err(VolumeError::from)?;
        if length.is_some_and(|length| length >= of.size) {
            continue;
        }
        let has = length.map_or("it is missing".to_owned(), |length| format!("it has {length}"));
        let why = format!(
            "{has} where the file has {} bytes; take another replica's copy, and see `mainstay fsck`",
            of.size
        );
        let lost = io::Error::new(io::ErrorKind::InvalidData, why);
        return Err(VolumeError::on("read", objects.path(*id))(lost).into());
    }
    Ok(())
}

/// Checks the target, and makes it if it is not there (then `true`).
pub(crate) fn prepare(target: &Path, state_dir: &Path) -> Result<bool, ExportError> {
    let made = match fs::read_dir(target) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(ExportError::NotEmpty(target.to_owned()));
            }
            false
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            fs::create_dir(target).map_err(TreeError::on("create", target))?;
            true
        }
        Err(cause) => return Err(TreeError::on("read", target)(cause).into()),
    };
    let real = |path: &Path| fs::canonicalize(path).map_err(TreeError::on("find", path));
    if real(target)?.starts_with(real(state_dir)?) {
        if made {
            let _ = fs::remove_dir(target);
        }
        return Err(ExportError::Inside(target.to_owned()));
    }
    Ok(made)
}
