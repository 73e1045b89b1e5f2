//! Routing, pure: who is forwarded, held, refused or cut, and when.
//!
//! `(state, now, event) -> effects`, without sockets, clock or threads. The shell around it is
//! `router.rs`, which holds one [`Route`] behind a lock. Scenarios are in `testdata/`.
//!
//! Invariants:
//! - nobody is forwarded to a leader whose trust has run out, not even at the very moment;
//! - whenever the followed leader changes or is doubted, all that was forwarded before is cut;
//! - every client that arrives is answered: forwarded, refused, or both in that order; a held one
//!   within its time;
//! - news of an older epoch changes nothing.

mod leader;
mod upstreams;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::address::Address;
use crate::moment::Moment;
use leader::Leader;
pub use leader::{Attested, RouteState};
use upstreams::Upstreams;
pub use upstreams::{Order, Upstream};

/// A held client whose target refuses is tried again after this, and after more each time.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(250);

/// One client connection. Ids grow in the order of arrival and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// All that is forwarded between two cuts is one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Bounds of one route.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients that may wait at once.
    pub held_max: usize,
    /// How long one may wait, from its arrival.
    pub hold: Duration,
    /// Clients that may be forwarded at once; the next is held.
    pub open_max: Option<usize>,
}

/// What happens to a route.
#[derive(Clone, Debug)]
pub enum Event {
    /// The caller's newest word on the leader.
    Leader(RouteState),
    /// A health check of one upstream ended.
    Checked {
        /// Its place in the configured list.
        upstream: usize,
        /// It accepted a connection.
        passed: bool,
    },
    /// A new client.
    Arrive(ClientId),
    /// The target of a forwarded client could not be reached. Nothing was exchanged.
    Unreached(ClientId),
    /// A cut came before a forwarded client's target was reached. Nothing was exchanged.
    Overtaken(ClientId),
    /// The moment told in [`Effect::Hold`] has come.
    Wake(ClientId),
    /// The client is gone, whether held or forwarded.
    Left(ClientId),
    /// Time has passed (see [`Route::next_tick`]).
    Tick,
    /// Refuse all who wait or come.
    Stop,
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect the client.
    Forward {
        /// Who.
        client: ClientId,
        /// Where to.
        to: Address,
        /// Under which a [`Effect::Cut`] will speak of it.
        generation: Generation,
    },
    /// Let the client wait.
    Hold {
        /// Who.
        client: ClientId,
        /// Say [`Event::Wake`] then, if nothing else came.
        wake: Moment,
    },
    /// Reset the client.
    Refuse {
        /// Who.
        client: ClientId,
        /// For the log and the counters.
        reason: Refusal,
    },
    /// Reset all that was forwarded in this generation and before.
    Cut {
        /// The last generation to go.
        through: Generation,
    },
}

/// Why a client was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// As many as may wait are waiting.
    HoldFull,
    /// No target in its time.
    HoldTimeout,
    /// A target in its time, but it took no connection.
    Unreachable,
    /// The proxy or the route is ending.
    Stopping,
}

/// One route's state.
#[derive(Debug)]
pub struct Route {
    limits: Limits,
    targets: Targets,
    generation: Generation,
    held: BTreeMap<ClientId, Held>,
    forwarded: HashMap<ClientId, Forwarded>,
    stopping: bool,
}

#[derive(Debug)]
enum Targets {
    Leader(Leader),
    Upstreams(Upstreams),
}

#[derive(Debug)]
struct Held {
    deadline: Moment,
    /// Not forwarded before: its last attempt failed.
    not_before: Moment,
    attempts: u32,
    /// The upstream that it could not reach.
    avoid: Option<usize>,
}

#[derive(Debug)]
struct Forwarded {
    deadline: Moment,
    attempts: u32,
    upstream: Option<usize>,
}

impl Route {
    /// A route to a leader of whom nothing is known yet.
    pub fn to_leader(limits: Limits) -> Route {
        Route::new(limits, Targets::Leader(Leader::default()))
    }

    /// A route to upstreams, taken for alive until checks say otherwise.
    pub fn to_upstreams(
        limits: Limits,
        addresses: Vec<Address>,
        order: Order,
        rise: u32,
        fall: u32,
    ) -> Route {
        Route::new(limits, Targets::Upstreams(Upstreams::new(addresses, order, rise, fall)))
    }

    fn new(limits: Limits, targets: Targets) -> Route {
        Route {
            limits,
            targets,
            generation: Generation(1),
            held: BTreeMap::new(),
            forwarded: HashMap::new(),
            stopping: false,
        }
    }

    /// Takes one event and returns what is to be done, in order.
    pub fn step(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match &event {
            Event::Leader(news) => self.learn(news),
            Event::Checked { upstream, passed } => {
                if let Targets::Upstreams(upstreams) = &mut self.targets {
                    upstreams.checked(*upstream, *passed);
                }
            }
            Event::Stop => self.stopping = true,
            Event::Left(client) => {
                self.held.remove(client);
                self.unforward(*client);
            }
            Event::Arrive(_)
            | Event::Unreached(_)
            | Event::Overtaken(_)
            | Event::Wake(_)
            | Event::Tick => {}
        }
        // Before anyone is forwarded: the target may be doubted by now.
        self.doubt(now, &mut effects);
        match event {
            Event::Arrive(client) => {
                let deadline = now + self.limits.hold;
                let waiting = Held { deadline, not_before: now, attempts: 0, avoid: None };
                self.place(now, client, waiting, &mut effects);
            }
            Event::Unreached(client) => self.again(now, client, true, &mut effects),
            Event::Overtaken(client) => self.again(now, client, false, &mut effects),
            _ => {}
        }
        self.release(now, &mut effects);
        if let Event::Wake(client) = event
            && let Some(held) = self.held.get(&client)
        {
            effects.push(Effect::Hold { client, wake: held.wake(now) });
        }
        effects
    }

    /// When to say [`Event::Tick`] at the latest. Held clients wake by themselves.
    pub fn next_tick(&self) -> Option<Moment> {
        match &self.targets {
            Targets::Leader(leader) => leader.trusted_until(),
            Targets::Upstreams(_) => None,
        }
    }

    /// Clients that wait.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Clients forwarded, those whose target is still being connected to included.
    pub fn forwarded(&self) -> usize {
        self.forwarded.len()
    }

    /// The caller's newest word, if this route follows a leader.
    pub fn leader(&self) -> Option<&RouteState> {
        match &self.targets {
            Targets::Leader(leader) => Some(leader.news()),
            Targets::Upstreams(_) => None,
        }
    }

    /// Whether an arriving client would be forwarded now, but for `open_max`.
    pub fn is_forwarding(&self, now: Moment) -> bool {
        !self.stopping && self.target(now, None).is_some()
    }

    /// Every upstream, if this route has any.
    pub fn upstreams(&self) -> &[Upstream] {
        match &self.targets {
            Targets::Leader(_) => &[],
            Targets::Upstreams(upstreams) => upstreams.all(),
        }
    }

    fn learn(&mut self, news: &RouteState) {
        if let Targets::Leader(leader) = &mut self.targets {
            leader.learn(news.clone());
        }
    }

    /// Cuts if the leader followed until now is not the one to follow at `now`.
    fn doubt(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if let Targets::Leader(leader) = &mut self.targets
            && leader.turn(now)
        {
            effects.push(Effect::Cut { through: self.generation });
            self.generation.0 += 1;
            // A pause is for the target that could not be reached; the next one deserves none.
            for held in self.held.values_mut() {
                held.not_before = now;
                held.attempts = 0;
            }
        }
    }

    /// A forwarded client comes back without having exchanged a byte.
    fn again(&mut self, now: Moment, client: ClientId, failed: bool, effects: &mut Vec<Effect>) {
        let Some(was) = self.unforward(client) else { return };
        if failed && was.deadline <= now {
            effects.push(Effect::Refuse { client, reason: Refusal::Unreachable });
            return;
        }
        let attempts = was.attempts + u32::from(failed);
        // Each other upstream may be tried at once; after that, targets get some time.
        let elsewhere = (attempts as usize) < self.upstreams().len();
        let pause = if failed && !elsewhere {
            RETRY_MIN.saturating_mul(1 << attempts.min(5)).min(RETRY_MAX)
        } else {
            Duration::ZERO
        };
        let not_before = now + pause;
        let avoid = was.upstream.filter(|_| failed);
        let waiting = Held { deadline: was.deadline, not_before, attempts, avoid };
        self.place(now, client, waiting, effects);
    }

    /// Forwards, holds or refuses one client.
    fn place(&mut self, now: Moment, client: ClientId, waiting: Held, effects: &mut Vec<Effect>) {
        if self.stopping {
            effects.push(Effect::Refuse { client, reason: Refusal::Stopping });
        } else if let Some(effect) = self.forward(now, client, &waiting) {
            effects.push(effect);
        } else if self.held.len() >= self.limits.held_max {
            effects.push(Effect::Refuse { client, reason: Refusal::HoldFull });
        } else {
            effects.push(Effect::Hold { client, wake: waiting.wake(now) });
            self.held.insert(client, waiting);
        }
    }

    /// Refuses whose time is over and forwards, in the order of arrival, all who can be.
    fn release(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        while let Some(first) = self.held.first_entry() {
            let client = *first.key();
            let reason = match first.get() {
                _ if self.stopping => Refusal::Stopping,
                held if held.deadline > now => break,
                held if held.attempts > 0 => Refusal::Unreachable,
                _ => Refusal::HoldTimeout,
            };
            first.remove();
            effects.push(Effect::Refuse { client, reason });
        }
        if self.held.is_empty() || self.target(now, None).is_none() {
            return;
        }
        let ripe = self.held.iter().filter(|(_, held)| held.not_before <= now);
        let ripe: Vec<ClientId> = ripe.map(|(client, _)| *client).collect();
        for client in ripe {
            let Some(waiting) = self.held.remove(&client) else { continue };
            match self.forward(now, client, &waiting) {
                Some(effect) => effects.push(effect),
                None => {
                    self.held.insert(client, waiting);
                    return; // `open_max`: nobody else fits either
                }
            }
        }
    }

    fn forward(&mut self, now: Moment, client: ClientId, waiting: &Held) -> Option<Effect> {
        if waiting.not_before > now
            || self.limits.open_max.is_some_and(|max| self.forwarded.len() >= max)
        {
            return None;
        }
        let (to, upstream) = self.target(now, waiting.avoid)?;
        let to = to.clone();
        if let (Targets::Upstreams(upstreams), Some(upstream)) = (&mut self.targets, upstream) {
            upstreams.opened(upstream);
        }
        let Held { deadline, attempts, .. } = *waiting;
        self.forwarded.insert(client, Forwarded { deadline, attempts, upstream });
        Some(Effect::Forward { client, to, generation: self.generation })
    }

    fn unforward(&mut self, client: ClientId) -> Option<Forwarded> {
        let was = self.forwarded.remove(&client)?;
        if let (Targets::Upstreams(upstreams), Some(upstream)) = (&mut self.targets, was.upstream) {
            upstreams.closed(upstream);
        }
        Some(was)
    }

    fn target(&self, now: Moment, avoid: Option<usize>) -> Option<(&Address, Option<usize>)> {
        match &self.targets {
            Targets::Leader(leader) => leader.target(now).map(|to| (to, None)),
            Targets::Upstreams(upstreams) => {
                upstreams.pick(avoid).map(|(index, to)| (to, Some(index)))
            }
        }
    }
}

impl Held {
    fn wake(&self, now: Moment) -> Moment {
        if self.not_before > now { self.not_before.min(self.deadline) } else { self.deadline }
    }
}
