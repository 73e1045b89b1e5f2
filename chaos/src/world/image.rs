//! A disk of bounded size with a real file system on it, in a file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::faulty::{Layer, Trouble};
use super::shell::run;

/// An ext4 on a loop device; unmounted when dropped. The file goes with its folder.
#[derive(Debug)]
pub struct Image {
    point: PathBuf,
    file: PathBuf,
    /// What the loop device stands on goes after it.
    layer: Option<Layer>,
}

impl Image {
    /// Makes a disk of `mib` MiB in `file` and mounts it at `point`, which is made. One that
    /// `can_fail` has a layer of ours below it, which costs time.
    ///
    /// # Errors
    /// What `mkfs.ext4` or `mount` said.
    pub fn mount(file: &Path, point: &Path, mib: u64, can_fail: bool) -> Result<Image> {
        std::fs::create_dir_all(point)?;
        std::fs::File::create(file)?.set_len(mib << 20)?;
        // No blocks held back for root: root is whom the daemon runs as.
        let options = "lazy_itable_init=1,nodiscard";
        run("mkfs.ext4", &["-q", "-m", "0", "-E", options, text(file)?])?;
        let layer = match can_fail {
            true => Some(Layer::mount(file, &file.with_extension("layer"))?),
            false => None,
        };
        let image = Image { point: point.to_owned(), file: file.to_owned(), layer };
        image.attach()?;
        Ok(image)
    }

    fn attach(&self) -> Result<()> {
        let device = self.layer.as_ref().map_or_else(|| self.file.clone(), Layer::file);
        run("mount", &["-o", "loop,noatime", text(&device)?, text(&self.point)?])
    }

    /// Where it is mounted.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// What can be made wrong with it.
    ///
    /// # Errors
    /// It is not one that can fail.
    pub fn trouble(&self) -> Result<&Trouble> {
        Ok(self.layer.as_ref().context("this disk has no layer that can fail")?.trouble())
    }

    /// Does what an operator does after errors: checks the file system, and mounts it again. Nobody
    /// may use it.
    ///
    /// # Errors
    /// What `e2fsck` or `mount` said.
    pub fn mend(&self) -> Result<()> {
        run("umount", &[text(&self.point)?])?;
        let device = self.layer.as_ref().map_or_else(|| self.file.clone(), Layer::file);
        // 1: errors were corrected.
        let check = format!("e2fsck -fy '{}'; [ $? -le 1 ]", device.display());
        run("sh", &["-c", &check])?;
        self.attach()
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
        // Whatever it still has to write must get through.
        if let Some(layer) = &self.layer {
            layer.trouble().fail(false);
            layer.trouble().slow_down(std::time::Duration::ZERO);
        }
        // The loop device goes with its last user.
        crate::live::process::unmount(&self.point);
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}
