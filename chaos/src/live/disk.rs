//! A disk of a bounded size that can be filled, and that can grow.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount, mount_remount};

use super::process::unmount;

/// A small file system in memory; gone when dropped.
#[derive(Debug)]
pub(super) struct SmallDisk {
    point: PathBuf,
}

impl SmallDisk {
    /// Mounts one on `point`, which is made.
    pub fn mount(point: &Path, mib: u64) -> Result<SmallDisk> {
        std::fs::create_dir_all(point)?;
        mount("small", point, "tmpfs", MountFlags::empty(), size(mib).as_c_str())
            .with_context(|| format!("mount a tmpfs on {}", point.display()))?;
        Ok(SmallDisk { point: point.to_owned() })
    }

    /// Changes its size; what it holds stays.
    pub fn resize(&self, mib: u64) -> Result<()> {
        mount_remount(&self.point, MountFlags::empty(), size(mib).as_c_str())
            .with_context(|| format!("resize {}", self.point.display()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.point);
    }
}

fn size(mib: u64) -> std::ffi::CString {
    std::ffi::CString::new(format!("size={mib}m")).expect("a number holds no zero byte")
}
