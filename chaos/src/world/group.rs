//! A cgroup that holds all processes of a host, so that none escapes a kill or a pause: not a
//! backend in a process group of its own, not one that is being forked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A cgroup (version 2, no controllers needed), gone when dropped, with what runs in it.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes one below the root of the hierarchy.
    ///
    /// # Errors
    /// There is no cgroup2 file system, or it cannot be written.
    pub(super) fn create(name: &str) -> Result<Group> {
        let path = root().context("no cgroup2 file system is mounted")?.join(name);
        fs::create_dir(&path).with_context(|| format!("make the cgroup {}", path.display()))?;
        Ok(Group { path })
    }

    /// Where a process writes its pid to join.
    #[must_use]
    pub fn door(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// SIGKILLs everything in it at once, and waits until nothing is left.
    pub fn kill(&self) {
        kill(&self.path);
    }

    /// Stops everything in it until [`Group::thaw`].
    ///
    /// # Errors
    /// The kernel refused.
    pub fn freeze(&self) -> Result<()> {
        self.write("cgroup.freeze", "1")
    }

    /// Lets everything go on.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn thaw(&self) -> Result<()> {
        self.write("cgroup.freeze", "0")
    }

    /// Who is in it, by pid.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.door()).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let file = self.path.join(file);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// The root of the hierarchy.
pub(super) fn root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut lines = mounts.lines().map(|line| line.split(' '));
    lines.find_map(|mut words| {
        let path = words.nth(1)?;
        (words.next()? == "cgroup2").then(|| path.into())
    })
}

fn kill(path: &Path) {
    // A frozen task does take its SIGKILL, but only a thawed group may be joined again.
    let _ = fs::write(path.join("cgroup.freeze"), "0");
    let start = Instant::now();
    while is_populated(path) && start.elapsed() < Duration::from_secs(30) {
        let _ = fs::write(path.join("cgroup.kill"), "1");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_populated(path: &Path) -> bool {
    let events = fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

/// Kills what is in a group and in those below it, and removes them.
pub(super) fn remove(path: &Path) {
    kill(path);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    if path.exists()
        && let Err(error) = fs::remove_dir(path)
    {
        tracing::warn!(%error, path = %path.display(), "a cgroup stays behind");
    }
}
