//! What killed runs left on this machine, and its end.
//!
//! Only names that begin with our prefix and the pid of a process that is gone are touched.

use std::fs;
use std::path::{Path, PathBuf};

use super::{PREFIX, group, netns};
use crate::live::process::{is_alive, unmount};

/// Takes away what dead processes of ours left: processes first, then mounts, networks, folders.
pub fn clear() {
    for name in group::root().into_iter().flat_map(|root| dead_in(&root)) {
        group::remove(&name);
    }
    let folders = dead_in(&std::env::temp_dir());
    for folder in &folders {
        unmount_below(folder);
    }
    for path in dead_in(Path::new("/run/netns")) {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            netns::remove(name);
        }
    }
    for folder in folders {
        tracing::info!(folder = %folder.display(), "cleared what a killed run left");
        let _ = fs::remove_dir_all(folder);
    }
}

/// Entries of `folder` that are ours and whose maker is gone.
fn dead_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str().and_then(maker).is_some_and(|pid| !is_alive(pid))
    });
    names.map(|entry| entry.path()).collect()
}

/// The pid in a name of ours.
fn maker(name: &str) -> Option<i32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Detaches everything that is mounted below `folder`, the innermost first.
pub(super) fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(folder)).collect();
    points.sort();
    for point in points.into_iter().rev() {
        unmount(point);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_have_a_maker() {
        assert_eq!(maker("mainstay-chaos-123-0-a"), Some(123));
        assert_eq!(maker("mainstay-chaos-x-0"), None);
        assert_eq!(maker("mainstay-123"), None);
    }
}
