//! A small world of hosts for a cluster to live in: each with a network namespace and an address of
//! its own, joined by a switch whose links can be cut, with a group that holds all of its
//! processes, and with disks that can be filled.
//!
//! Made by [`crate::run`] and the tests. Nothing in it reaches the machine's own network.
//!
//! Hazard: it needs root, and it makes things that outlive a process that is killed: namespaces,
//! cgroups, mounts. All of them carry this process' pid in their names. Dropping a [`World`] takes
//! them away; what a killed process left is taken away by the next one that starts, or by `chaos sweep`.

pub mod clock;
pub mod faulty;
pub mod group;
pub mod host;
pub mod image;
mod leftovers;
pub mod netns;
mod shell;
pub mod switch;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use tempfile::TempDir;

use group::Group;
pub use host::Host;
pub use leftovers::clear as clear_leftovers;
use netns::NetNs;
pub use switch::{Link, Switch};

/// What every name begins with that a world makes outside of itself; the pid follows.
pub(crate) const PREFIX: &str = "mainstay-chaos-";

/// Hosts on a switch.
#[derive(Debug)]
pub struct World {
    hosts: Vec<Arc<Host>>,
    switch: Arc<Switch>,
    /// Above the hosts' groups, which must go first.
    _group: Group,
    folder: TempDir,
}

impl World {
    /// Makes a world with these hosts; first of all clears what dead processes left of theirs.
    ///
    /// # Errors
    /// Not root, or the machine lacks a tool or a feature; the error names it.
    pub fn create(hosts: &[&str]) -> Result<World> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        anyhow::ensure!(rustix::process::geteuid().is_root(), "a world needs root; use sudo -E");
        for what in clear_leftovers() {
            tracing::info!(what, "cleared what a killed run left");
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}", std::process::id());
        let folder = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir()?;
        // The service's user must get through to its mount.
        open_to_all(folder.path())?;
        let group = Group::create(&name)?;
        let switch = Arc::new(Switch::create(&format!("{name}-switch"))?);
        let mut world = World { hosts: Vec::new(), switch, _group: group, folder };
        for host in hosts {
            world.add(&name, host).with_context(|| format!("make the host {host}"))?;
        }
        Ok(world)
    }

    fn add(&mut self, world: &str, name: &str) -> Result<()> {
        let number = u8::try_from(self.hosts.len() + 11).context("too many hosts")?;
        let address = Ipv4Addr::new(10, 77, 0, number);
        let netns = NetNs::create(&format!("{world}-{name}"))?;
        self.switch.plug(&netns, name, address)?;
        let group = Group::create(&format!("{world}/{name}"))?;
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder)?;
        open_to_all(&folder)?;
        self.hosts.push(Arc::new(Host::new(name, address, netns, group, folder)));
        Ok(())
    }

    /// The host of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn host(&self, name: &str) -> Result<&Arc<Host>> {
        let found = self.hosts.iter().find(|host| host.name == name);
        found.with_context(|| format!("no host is called {name}"))
    }

    /// All hosts, in the order of their making.
    #[must_use]
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// What joins them.
    #[must_use]
    pub fn switch(&self) -> &Arc<Switch> {
        &self.switch
    }

    /// Where everything of this world is on disk.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Frozen processes, or ones that wait for each other's mounts, must not outlive this.
        for host in &self.hosts {
            host.kill();
        }
        leftovers::unmount_below(self.folder.path());
    }
}

/// Lets every user look into `folder`.
pub(crate) fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
