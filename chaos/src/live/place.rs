//! Where processes of a cluster run and listen: all on this machine's loopback, or each node on a
//! host of its own.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::Result;

use super::ports;
use crate::world::Host;

/// A place for a node, a member of etcd or an ambassador.
#[derive(Clone, Debug)]
pub enum Place {
    /// Loopback, together with everything else.
    Loopback,
    /// A host of a world.
    Host(Arc<Host>),
}

impl Place {
    /// Where to listen.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        match self {
            Place::Loopback => Ipv4Addr::LOCALHOST,
            Place::Host(host) => host.address,
        }
    }

    /// A port to listen on: the usual one where nobody else is.
    ///
    /// # Errors
    /// No port is free.
    pub fn port(&self, usual: u16) -> Result<u16> {
        match self {
            Place::Loopback => ports::free(),
            Place::Host(_) => Ok(usual),
        }
    }

    /// A command that will run there.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        match self {
            Place::Loopback => Command::new(program),
            Place::Host(host) => host.command(program),
        }
    }

    /// The host, if it is one.
    #[must_use]
    pub fn host(&self) -> Option<&Arc<Host>> {
        match self {
            Place::Loopback => None,
            Place::Host(host) => Some(host),
        }
    }
}
