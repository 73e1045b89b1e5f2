//! Network namespaces: made, entered by threads and by programs, and removed.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::shell::run;

/// A named network namespace, gone when dropped.
#[derive(Debug)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// Makes one with its loopback up.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn create(name: &str) -> Result<NetNs> {
        run("ip", &["netns", "add", name])?;
        let netns = NetNs { name: name.to_owned() };
        netns.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs a program in it to its end.
    pub(super) fn run(&self, command: &[&str]) -> Result<()> {
        self.run_with_input(command, "")
    }

    pub(super) fn run_with_input(&self, command: &[&str], input: &str) -> Result<()> {
        let mut arguments = vec!["netns", "exec", &self.name];
        arguments.extend(command);
        super::shell::run_with_input("ip", &arguments, input)
    }

    /// Moves the calling thread into it: sockets that it opens from now on, and programs that it
    /// starts, are of this namespace.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn enter(&self) -> Result<()> {
        let file = File::open(self.path()).with_context(|| format!("open {}", self.name))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter {}", self.name))
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

pub(super) fn remove(name: &str) {
    if let Err(error) = run("ip", &["netns", "del", name]) {
        tracing::warn!(%error, "a network namespace stays behind");
    }
}
