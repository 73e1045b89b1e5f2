//! What killed runs left on this machine, and its end.
//!
//! Only what carries our prefix and the pid of a process that is gone is touched: cgroups, mounts,
//! loop devices, network namespaces, folders, and processes whose arguments name such a folder
//! (clusters on loopback have no group that would hold theirs).

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::shell::run;
use super::{PREFIX, group, netns};
use crate::live::process::{is_alive, send, unmount};

/// Takes away what dead processes of ours left, and says what that was: processes first, then
/// mounts and what they stood on, networks, folders.
pub fn clear() -> Vec<String> {
    let mut cleared = Vec::new();
    for path in group::root().into_iter().flat_map(|root| dead_in(&root)) {
        group::remove(&path);
        cleared.push(format!("the cgroup {}", path.display()));
    }
    let folders = dead_in(&std::env::temp_dir());
    for pid in processes_of(&folders) {
        send(pid, Signal::KILL);
        cleared.push(format!("the process {pid}"));
    }
    for folder in &folders {
        unmount_below(folder);
    }
    // One whose file system is still in use somewhere goes with its last user.
    for (device, file) in loops_on(&folders) {
        let _ = run("losetup", &["--detach", &device]);
        cleared.push(format!("the loop device {device} on {}", file.display()));
    }
    for path in dead_in(Path::new("/run/netns")) {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            netns::remove(name);
            cleared.push(format!("the network namespace {name}"));
        }
    }
    for folder in folders {
        match fs::remove_dir_all(&folder) {
            Ok(()) => cleared.push(format!("the folder {}", folder.display())),
            Err(error) => tracing::warn!(%error, folder = %folder.display(), "it stays behind"),
        }
    }
    cleared
}

/// Processes with a path below one of `folders` among their arguments.
fn processes_of(folders: &[PathBuf]) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        // With the slash: one folder's name may begin another's.
        if folders.iter().any(|folder| line.contains(&format!("{}/", folder.display()))) {
            found.push(pid);
        }
    }
    found
}

/// Loop devices that stand on a file below one of `folders`.
fn loops_on(folders: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let loops = devices.filter_map(|device| {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        let file = PathBuf::from(file.trim_end().trim_end_matches(" (deleted)"));
        let is_ours = folders.iter().any(|folder| file.starts_with(folder));
        is_ours.then(|| (format!("/dev/{}", device.file_name().to_string_lossy()), file))
    });
    loops.collect()
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
