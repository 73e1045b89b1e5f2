//! A disk of bounded size with a real file system on it, in a file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::shell::run;

/// An ext4 on a loop device; unmounted when dropped. The file goes with its folder.
#[derive(Debug)]
pub struct Image {
    point: PathBuf,
}

impl Image {
    /// Makes a disk of `mib` MiB in `file` and mounts it at `point`, which is made.
    ///
    /// # Errors
    /// What `mkfs.ext4` or `mount` said.
    pub fn mount(file: &Path, point: &Path, mib: u64) -> Result<Image> {
        std::fs::create_dir_all(point)?;
        std::fs::File::create(file)?.set_len(mib << 20)?;
        let file = file.to_str().context("a path that is text")?;
        // No blocks held back for root: root is whom the daemon runs as.
        run("mkfs.ext4", &["-q", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", file])?;
        let target = point.to_str().context("a path that is text")?;
        run("mount", &["-o", "loop,noatime", file, target])?;
        Ok(Image { point: point.to_owned() })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Fills it but for `left` bytes. A file of no use to anyone holds the space.
    ///
    /// # Errors
    /// What the file system said.
    pub fn fill(&self, left: u64) -> Result<()> {
        let room = rustix::fs::statvfs(&self.point)?;
        let free = (room.f_bavail * room.f_frsize).saturating_sub(left);
        let ballast = std::fs::File::create(self.ballast())?;
        let flags = rustix::fs::FallocateFlags::empty();
        if free > 0 {
            rustix::fs::fallocate(&ballast, flags, 0, free).context("fill a disk")?;
        }
        Ok(())
    }

    /// Undoes [`Image::fill`].
    ///
    /// # Errors
    /// What the file system said.
    pub fn empty(&self) -> Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.point.join("ballast")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // The loop device goes with its last user.
        crate::live::process::unmount(&self.point);
    }
}
