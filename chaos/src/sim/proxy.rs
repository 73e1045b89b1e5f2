//! Ambassadors: the real routing machine, fed as `src/proxy/routes.rs` feeds it, with views and with
//! leaders' own attestations.

use std::time::Duration;

use mainstay_ambassador::route::{ClientId, Event, Limits, Route};
use mainstay_ambassador::{Address, Attested, Moment, RouteState};

use super::clock::Clock;
use super::look::Looker;
use super::world::{Happening, World};

/// So many in a world.
pub const PROXIES: usize = 1;
/// A client comes so often.
const CLIENT_EVERY: Duration = Duration::from_millis(700);

/// The leader is asked when the coordinator has been silent for this part of the ttl.
const DOUBT_PARTS: u32 = 2;
/// How long one question may take, and the next comes after as much again.
const ASK_PARTS: u32 = 8;
/// A leader whose key is gone may answer within this before its clients are cut.
const KEY_GONE: Duration = Duration::from_millis(300);

/// One ambassador.
#[derive(Debug)]
pub struct Proxy {
    /// Its routing.
    pub route: Route,
    /// What it knows of the coordinator.
    pub looker: Looker,
    /// Its boot clock.
    pub clock: Clock,
    tick_at: Option<Duration>,
    state: RouteState,
    /// Who can attest that it leads on without the coordinator, and in which epoch.
    witness: Option<(usize, u64)>,
    /// The coordinator lost the leader's key, but nobody took over.
    orphaned: bool,
    /// Just orphaned, and not asked yet.
    hesitates: bool,
    /// Counts what was observed: questions of before are dropped.
    asks: u64,
}

impl Proxy {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Proxy {
        let limits = Limits { held_max: 8, hold: Duration::from_secs(10), open_max: None };
        Proxy {
            route: Route::to_leader(limits),
            looker: Looker::default(),
            clock,
            tick_at: None,
            state: RouteState::unknown(),
            witness: None,
            orphaned: false,
            hesitates: false,
            asks: 0,
        }
    }
}

impl World {
    fn proxy_moment(&self, proxy: usize) -> Moment {
        Moment::from_boot(self.proxies[proxy].clock.show(self.now))
    }

    /// `Route::see`: a view is trusted for one ttl from when its read was sent.
    pub fn proxy_learns(&mut self, proxy: usize) {
        let ttl = self.settings.ttl;
        let at = &mut self.proxies[proxy];
        let Some(view) = at.looker.view.clone() else { return };
        let fresh_at = Moment::from_boot(at.looker.fresh_at.since_boot());
        let epoch = view.epoch.as_ref().map_or(0, |stored| stored.value.epoch.0);
        let is_sync = view.config.as_ref().is_some_and(|config| config.value.is_sync());
        at.asks += 1;
        let may_lead_on = at.witness.is_some_and(|(_, asked)| asked == epoch);
        if view.leader.is_none() && may_lead_on && is_sync {
            at.hesitates |= !at.orphaned;
            at.orphaned = true;
            return self.ask_witness_in(proxy, Duration::ZERO);
        }
        (at.orphaned, at.hesitates) = (false, false);
        let leader = view.leader.as_ref().map(|stored| &stored.value);
        let node =
            leader.and_then(|leader| self.nodes.iter().position(|node| node.name == leader.node));
        at.witness = node.zip(leader.map(|leader| leader.epoch.0)).filter(|_| is_sync);
        let address: Option<Address> =
            leader.and_then(|leader| leader.service.as_deref()?.parse().ok());
        at.state = RouteState {
            epoch: leader.map_or(epoch, |leader| leader.epoch.0),
            ready: address.is_some() && leader.is_some_and(|leader| leader.ready),
            leader: address,
            trusted_until: fresh_at + ttl,
            attested: at.state.attested,
            version: u64::try_from(view.revision.0).unwrap_or(0),
        };
        let state = at.state.clone();
        self.proxy_step(proxy, Event::Leader(state));
        let doubt = (fresh_at + ttl / DOUBT_PARTS).since(self.proxy_moment(proxy));
        self.ask_witness_in(proxy, doubt);
    }

    fn ask_witness_in(&mut self, proxy: usize, pause: Duration) {
        let asks = self.proxies[proxy].asks;
        if self.proxies[proxy].witness.is_some() {
            self.later(pause, Happening::Ask { proxy, asks });
        }
    }

    /// `attest::ask`: what a leader answers was true when it was asked, or later.
    pub fn ask_witness(&mut self, proxy: usize, asks: u64) {
        let at = &self.proxies[proxy];
        let Some((node, epoch)) = at.witness.filter(|_| at.asks == asks) else { return };
        let sent = self.proxy_moment(proxy);
        let within = self.settings.ttl / ASK_PARTS;
        let within = if self.proxies[proxy].hesitates { within.min(KEY_GONE) } else { within };
        let there = self.rng.ms(0, 2 + self.weather.delay_ms);
        let lost = self.rng.chance(self.weather.lost);
        self.later(within, Happening::Attested { proxy, asks, answer: None });
        if !lost {
            self.later(there, Happening::Attest { proxy, asks, node, epoch, sent });
        }
    }

    /// `publish::attestation`, at the leader.
    pub fn attest(&mut self, proxy: usize, asks: u64, node: usize, epoch: u64, sent: Moment) {
        let at = &self.nodes[node];
        let Some(process) = at.process.as_ref().filter(|it| it.ready) else { return };
        let standing = &process.standing;
        let leads = process.leading.is_some_and(|led| led.0 == epoch);
        if at.paused_until > self.now || !leads || standing.covered.is_none() {
            return;
        }
        let (ttl, now) = (self.settings.ttl, at.local(self.now));
        let heard = if mutant!("attests-without-a-quorum") { now } else { standing.quorum_heard };
        let fresh = (heard + ttl.saturating_sub(self.settings.kill_margin)).since(now).min(ttl);
        if !fresh.is_zero() {
            let from = match mutant!("attestation-counts-from-receipt") {
                true => self.proxy_moment(proxy) + ttl,
                false => sent,
            };
            let answer = Some(Attested { epoch, until: from + fresh });
            let back = self.rng.ms(0, 2 + self.weather.delay_ms);
            self.later(back, Happening::Attested { proxy, asks, answer });
        }
    }

    /// `Route::attest`: the leader's answer, or that there was none in time.
    pub fn attested(&mut self, proxy: usize, asks: u64, answer: Option<Attested>) {
        let at = &mut self.proxies[proxy];
        if at.asks != asks {
            return;
        }
        at.asks += 1;
        at.state.attested = answer.or(at.state.attested);
        if std::mem::take(&mut at.hesitates) {
            at.state.trusted_until = Moment::BOOT;
        }
        let state = at.state.clone();
        self.proxy_step(proxy, Event::Leader(state));
        let pause = self.settings.ttl / ASK_PARTS;
        self.ask_witness_in(proxy, pause);
    }

    fn proxy_step(&mut self, proxy: usize, event: Event) {
        let moment = self.proxy_moment(proxy);
        let at = &mut self.proxies[proxy];
        let _effects = at.route.step(moment, event);
        let Some(tick) = at.route.next_tick() else { return };
        let due = at.clock.when(tick.since(Moment::BOOT), self.now);
        if due > self.now && at.tick_at.is_none_or(|planned| due < planned || planned < self.now) {
            at.tick_at = Some(due);
            self.at(due, Happening::Proxy { proxy, at: due });
        }
    }

    /// The time that the route asked for has come.
    pub fn proxy_tick(&mut self, proxy: usize, at: Duration) {
        if self.proxies[proxy].tick_at == Some(at) {
            self.proxies[proxy].tick_at = None;
            self.proxy_step(proxy, Event::Tick);
        }
    }

    /// A client comes, and has left by the time of the next one.
    pub fn client_comes(&mut self, proxy: usize) {
        let client = ClientId(self.id());
        self.proxy_step(proxy, Event::Left(ClientId(client.0.saturating_sub(1))));
        self.proxy_step(proxy, Event::Arrive(client));
        self.proxy_step(proxy, Event::Left(client));
        self.later(CLIENT_EVERY, Happening::Client { proxy });
    }

    /// Whom an ambassador forwards to, by epoch.
    #[must_use]
    pub fn forwards_to(&self, proxy: usize) -> Option<u64> {
        let route = &self.proxies[proxy].route;
        let forwarding = route.is_forwarding(self.proxy_moment(proxy));
        route.leader().filter(|_| forwarding).map(|leader| leader.epoch)
    }

    /// Looked at after every step.
    pub fn check_proxies(&mut self) {
        for proxy in 0..self.proxies.len() {
            if let Some(epoch) = self.forwards_to(proxy) {
                // Its clock may be slower than ours by what clocks may drift.
                let bound = self.settings.ttl + Duration::from_millis(5);
                self.checks.forwarding(self.now, epoch, bound, &self.nodes);
            }
        }
    }
}
