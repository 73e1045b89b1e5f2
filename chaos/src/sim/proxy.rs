//! Ambassadors: the real routing machine, fed as `src/replica/routes.rs` feeds it.

use std::time::Duration;

use mainstay_ambassador::route::{ClientId, Event, Limits, Route};
use mainstay_ambassador::{Address, Moment, RouteState};

use super::clock::Clock;
use super::look::Looker;
use super::world::{Happening, World};

/// So many in a world.
pub const PROXIES: usize = 1;
/// A client comes so often.
const CLIENT_EVERY: Duration = Duration::from_millis(700);

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
}

impl Proxy {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Proxy {
        let limits = Limits { held_max: 8, hold: Duration::from_secs(10), open_max: None };
        Proxy { route: Route::to_leader(limits), looker: Looker::default(), clock, tick_at: None }
    }
}

impl World {
    fn proxy_moment(&self, proxy: usize) -> Moment {
        Moment::from_boot(self.proxies[proxy].clock.show(self.now))
    }

    /// `routes::state`: a view is trusted for one ttl from when its read was sent.
    pub fn proxy_learns(&mut self, proxy: usize) {
        let ttl = self.settings.ttl;
        let looker = &self.proxies[proxy].looker;
        let Some(view) = &looker.view else { return };
        let leader = view.leader.as_ref().map(|stored| &stored.value);
        let address: Option<Address> =
            leader.and_then(|leader| leader.service.as_deref()?.parse().ok());
        let epoch = view.epoch.as_ref().map_or(0, |stored| stored.value.epoch.0);
        let state = RouteState {
            epoch: leader.map_or(epoch, |leader| leader.epoch.0),
            ready: address.is_some() && leader.is_some_and(|leader| leader.ready),
            leader: address,
            trusted_until: Moment::from_boot(looker.fresh_at.since_boot()) + ttl,
            attested: None,
            version: u64::try_from(view.revision.0).unwrap_or(0),
        };
        self.proxy_step(proxy, Event::Leader(state));
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
                self.checks.forwarding(self.now, epoch, bound);
            }
        }
    }
}
