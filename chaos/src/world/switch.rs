//! The switch that joins the hosts: every packet between two of them passes its table, where it can
//! be dropped, always or by chance, and its ports, where it can be slowed down.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use anyhow::{Context, Result};

use super::netns::NetNs;

/// Drops what is cut, and a part of what is flaky. The family `bridge` sees frames between ports.
const TABLE: &str = "\
table bridge links {
  set cut { type ipv4_addr . ipv4_addr; }
  set flaky { type ipv4_addr . ipv4_addr; }
  chain forward {
    type filter hook forward priority 0; policy accept;
    ip saddr . ip daddr @cut counter drop
    ip saddr . ip daddr @flaky numgen random mod 100 < 30 counter drop
  }
}
";

/// One direction between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    /// Who sends.
    pub from: Ipv4Addr,
    /// Who receives.
    pub to: Ipv4Addr,
}

impl Link {
    /// Both directions between two hosts.
    #[must_use]
    pub fn both(one: Ipv4Addr, other: Ipv4Addr) -> [Link; 2] {
        [Link { from: one, to: other }, Link { from: other, to: one }]
    }
}

/// The switch. Faults may overlap: a link is whole again when everything that cut it was undone.
#[derive(Debug)]
pub struct Switch {
    netns: NetNs,
    /// How many faults hold each link, by set.
    held: Mutex<std::collections::BTreeMap<(&'static str, Link), u32>>,
}

impl Switch {
    pub(super) fn create(name: &str) -> Result<Switch> {
        let netns = NetNs::create(name)?;
        netns.run(&["ip", "link", "add", "switch", "type", "bridge"])?;
        netns.run(&["ip", "link", "set", "switch", "up"])?;
        netns.run_with_input(&["nft", "-f", "-"], TABLE).context("is nftables installed?")?;
        Ok(Switch { netns, held: Mutex::default() })
    }

    /// Joins a host to it: `eth0` there, a port of the host's name here.
    pub(super) fn plug(&self, host: &NetNs, name: &str, address: Ipv4Addr) -> Result<()> {
        let peer = ["peer", "name", "eth0", "netns", host.name()];
        let mut add = vec!["ip", "link", "add", "name", name, "type", "veth"];
        add.extend(peer);
        self.netns.run(&add)?;
        self.netns.run(&["ip", "link", "set", "dev", name, "master", "switch", "up"])?;
        host.run(&["ip", "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        host.run(&["ip", "link", "set", "eth0", "up"])
    }

    /// Nothing passes these links any more; connections stay open and silent.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn cut(&self, links: &[Link]) -> Result<()> {
        self.hold("cut", links)
    }

    /// Undoes one [`Switch::cut`] of the same links.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn join(&self, links: &[Link]) -> Result<()> {
        self.release("cut", links)
    }

    /// Three in ten packets on these links are lost.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn make_flaky(&self, links: &[Link]) -> Result<()> {
        self.hold("flaky", links)
    }

    /// Undoes one [`Switch::make_flaky`] of the same links.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn make_steady(&self, links: &[Link]) -> Result<()> {
        self.release("flaky", links)
    }

    /// What goes to and from `host` shares `rate` (as `tc` writes it, such as `4mbit`) each way.
    ///
    /// # Errors
    /// What `tc` said.
    pub fn slow_down(&self, host: &super::Host, rate: &str) -> Result<()> {
        let shape = |device| {
            let queue = ["tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate];
            let mut command = queue.to_vec();
            command.extend(["burst", "16kb", "latency", "300ms"]);
            command
        };
        self.netns.run(&shape(&host.name))?;
        host.netns().run(&shape("eth0"))
    }

    /// Undoes [`Switch::slow_down`].
    ///
    /// # Errors
    /// What `tc` said.
    pub fn speed_up(&self, host: &super::Host) -> Result<()> {
        self.netns.run(&["tc", "qdisc", "del", "dev", &host.name, "root"])?;
        host.netns().run(&["tc", "qdisc", "del", "dev", "eth0", "root"])
    }

    fn hold(&self, set: &'static str, links: &[Link]) -> Result<()> {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut script = String::new();
        for link in links {
            let count = held.entry((set, *link)).or_default();
            *count += 1;
            if *count == 1 {
                script.push_str(&element("add", set, *link));
            }
        }
        self.netns.run_with_input(&["nft", "-f", "-"], &script)
    }

    fn release(&self, set: &'static str, links: &[Link]) -> Result<()> {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut script = String::new();
        for link in links {
            let Some(count) = held.get_mut(&(set, *link)) else { continue };
            *count -= 1;
            if *count == 0 {
                held.remove(&(set, *link));
                script.push_str(&element("delete", set, *link));
            }
        }
        self.netns.run_with_input(&["nft", "-f", "-"], &script)
    }
}

fn element(verb: &str, set: &str, link: Link) -> String {
    format!("{verb} element bridge links {set} {{ {} . {} }}\n", link.from, link.to)
}
