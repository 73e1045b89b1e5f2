//! Static upstreams: which are alive, and which one is next.

use serde::{Deserialize, Serialize};

use crate::address::Address;

/// How one of the living is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The one with the fewest clients; the earlier listed of two.
    LeastConnections,
    /// The earliest listed.
    FirstAlive,
}

/// One upstream as the route sees it.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where it is.
    pub address: Address,
    /// By its checks.
    pub alive: bool,
    /// Clients forwarded to it now.
    pub open: usize,
    /// Checks in a row that contradict `alive`.
    contrary: u32,
}

#[derive(Debug)]
pub(super) struct Upstreams {
    all: Vec<Upstream>,
    order: Order,
    rise: u32,
    fall: u32,
}

impl Upstreams {
    pub(super) fn new(addresses: Vec<Address>, order: Order, rise: u32, fall: u32) -> Upstreams {
        let new = |address| Upstream { address, alive: true, open: 0, contrary: 0 };
        Upstreams { all: addresses.into_iter().map(new).collect(), order, rise, fall }
    }

    pub(super) fn all(&self) -> &[Upstream] {
        &self.all
    }

    pub(super) fn checked(&mut self, index: usize, passed: bool) {
        let Some(upstream) = self.all.get_mut(index) else { return };
        if passed == upstream.alive {
            upstream.contrary = 0;
            return;
        }
        upstream.contrary += 1;
        let needed = if passed { self.rise } else { self.fall };
        if upstream.contrary >= needed {
            upstream.alive = passed;
            upstream.contrary = 0;
        }
    }

    pub(super) fn opened(&mut self, index: usize) {
        self.all[index].open += 1;
    }

    pub(super) fn closed(&mut self, index: usize) {
        self.all[index].open -= 1;
    }

    /// The next to take a client; `avoid` only if nobody else is alive.
    pub(super) fn pick(&self, avoid: Option<usize>) -> Option<(usize, &Address)> {
        let alive = || self.all.iter().enumerate().filter(|(_, upstream)| upstream.alive);
        let pick = |others: &mut dyn Iterator<Item = (usize, &'_ Upstream)>| match self.order {
            Order::FirstAlive => others.next().map(|(index, _)| index),
            Order::LeastConnections => others
                .min_by_key(|(index, upstream)| (upstream.open, *index))
                .map(|(index, _)| index),
        };
        let index = pick(&mut alive().filter(|(index, _)| Some(*index) != avoid))
            .or_else(|| pick(&mut alive()))?;
        Some((index, &self.all[index].address))
    }
}
