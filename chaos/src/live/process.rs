//! Process trees: who descends from whom, and ending all of them at once.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::place::Place;
use crate::world::Host;

/// A child whose whole tree ends with this value.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    host: Option<Arc<Host>>,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    ///
    /// # Errors
    /// The log or the program cannot be opened.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let output = fs::File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {name}: {:?}", command.get_program()))?;
        Ok(Process { name: name.to_owned(), child, host: None })
    }

    /// The same with a command of `place`, and a tree that is all that runs there.
    ///
    /// # Errors
    /// The log or the program cannot be opened.
    pub fn start_at(
        place: &Place,
        name: &str,
        command: &mut Command,
        log: &Path,
    ) -> Result<Process> {
        let mut process = Process::start(name, command, log)?;
        process.host = place.host().cloned();
        Ok(process)
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("pids are positive ints")
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends one signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Sends `signal` to the process and all its descendants, at once.
    pub fn signal_tree(&self, signal: Signal) {
        for pid in tree(self.pid()) {
            send(pid, signal);
        }
    }

    /// SIGKILLs the process and every descendant, as the loss of its machine would, and waits
    /// until none of them is left.
    pub fn kill_tree(&mut self) {
        if let Some(host) = &self.host {
            host.kill();
            let _ = self.child.wait();
            return;
        }
        let all = tree(self.pid());
        for pid in &all {
            send(*pid, Signal::KILL);
        }
        let _ = self.child.wait();
        wait_gone(&all, Duration::from_secs(30));
    }

    /// SIGTERM, and the end that follows.
    ///
    /// # Errors
    /// It did not end within `patience`.
    pub async fn stop(&mut self, patience: Duration) -> Result<std::process::ExitStatus> {
        self.signal(Signal::TERM);
        let what = format!("{} to stop on SIGTERM", self.name);
        let step = Duration::from_millis(20);
        super::until(&what, patience, step, async || self.child.try_wait().ok().flatten()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_tree();
    }
}

/// Sends a signal to a process, which may be gone.
pub fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// `root` and everything that descends from it, parents before children.
#[must_use]
pub fn tree(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut all = vec![root];
    let mut seen = HashSet::from([root]);
    let mut next = 0;
    while next < all.len() {
        for child in children.get(&all[next]).into_iter().flatten() {
            if seen.insert(*child) {
                all.push(*child);
            }
        }
        next += 1;
    }
    all
}

/// Whose child `pid` is.
#[must_use]
pub fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, also `)`.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn wait_gone(pids: &[i32], patience: Duration) {
    let start = Instant::now();
    while pids.iter().any(|pid| is_alive(*pid)) && start.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether `pid` runs (a zombie does not).
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(')')?.1.trim_start().chars().next()? != 'Z'))
        .unwrap_or(false)
}

/// Detaches whatever is mounted at `path`; nothing mounted is no error.
pub fn unmount(path: &Path) {
    let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
}
