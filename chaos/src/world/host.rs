//! One host: an address, a folder, and everything that runs there.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use super::clock::{Clock, ClockLibrary};
use super::group::Group;
use super::netns::NetNs;

/// Joins the group `$1` and the network `$2`, then becomes the program that follows. The pid stays
/// the same all the way.
const JOIN: &str = r#"echo $$ >"$1" && net=$2 && shift 2 && exec nsenter --net="$net" -- "$@""#;

/// A host of a [`super::World`].
#[derive(Debug)]
pub struct Host {
    /// Its name in the world.
    pub name: String,
    /// Its only address.
    pub address: Ipv4Addr,
    // The processes must go before the network that they use.
    group: Group,
    netns: NetNs,
    folder: PathBuf,
    clock: OnceLock<Clock>,
}

impl Host {
    pub(super) fn new(
        name: &str,
        address: Ipv4Addr,
        netns: NetNs,
        group: Group,
        folder: PathBuf,
    ) -> Host {
        let (name, clock) = (name.to_owned(), OnceLock::new());
        Host { name, address, group, netns, folder, clock }
    }

    /// A command that will run on this host. Keys typed at the terminal do not reach it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", JOIN, "join"]).arg(self.group.door()).arg(self.netns.path());
        command.arg(program.as_ref()).process_group(0);
        if let Some(clock) = self.clock.get() {
            clock.govern(&mut command);
        }
        command
    }

    /// Gives the host a clock of its own, for what is started from now on.
    ///
    /// # Errors
    /// Its file cannot be made.
    pub fn give_clock(&self, library: &ClockLibrary) -> Result<()> {
        let clock = Clock::create(library, &self.folder)?;
        let _ = self.clock.set(clock);
        Ok(())
    }

    /// Its own clock.
    ///
    /// # Errors
    /// It has none.
    pub fn clock(&self) -> Result<&Clock> {
        self.clock.get().with_context(|| format!("{} has no clock of its own", self.name))
    }

    /// SIGKILLs everything that runs here, at once, as a loss of power would.
    pub fn kill(&self) {
        self.group.kill();
    }

    /// Stops everything that runs here, as a hypervisor stops a virtual machine.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn freeze(&self) -> Result<()> {
        self.group.freeze()
    }

    /// Undoes [`Host::freeze`].
    ///
    /// # Errors
    /// The kernel refused.
    pub fn thaw(&self) -> Result<()> {
        self.group.thaw()
    }

    /// Who runs here, by pid.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        self.group.pids()
    }

    /// Its network.
    #[must_use]
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Its part of the disk, which is not bounded; see [`super::image::Image`].
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
