//! The running proxy: its threads, its listeners, its routes, and how they change.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use crate::address::Address;
use crate::config::{RouteConfig, Settings, Source, StartError};
use crate::front::{Front, FrontKey, Shared, accept, front_key};
use crate::health;
use crate::listen::{Bound, Door, Inherited, bind};
use crate::route::RouteState;
use crate::router::{Router, follow};
use crate::stats::{Counters, Histogram, RouteStats, Stats, Tally};
use crate::worker::Worker;

/// Descriptors that are not clients': the daemon's own, listeners, event loops, pipes.
const DESCRIPTORS_RESERVED: u64 = 256;
/// How often an ending proxy looks whether its clients are gone.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// How long reset connections may take to be closed.
const CUT_MAX: Duration = Duration::from_secs(5);

/// A running proxy. Dropping it closes everything at once; [`Ambassador::shutdown`] is kinder.
pub struct Ambassador {
    shared: Arc<Shared>,
    state: Mutex<State>,
    workers: Vec<Worker>,
    /// Followers and health checks, apart so that bulk data never delays a cut.
    control: Worker,
}

#[derive(Default)]
struct State {
    fronts: HashMap<FrontKey, Arc<Front>>,
    routes: HashMap<String, Arc<Router>>,
    /// Routes that only finish what they have.
    retired: Vec<Weak<Router>>,
    /// By the route's name, of those too that are gone: a total must not fall at a reload.
    counters: HashMap<String, Arc<Counters>>,
    ended: bool,
}

/// How far the routes that follow one source have come; see [`Ambassador::standing`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Each route acts by the source's word of this version ([`RouteState::version`]), or a later.
    pub version: u64,
    /// A client that arrives, or waits, would be forwarded.
    pub forwards: bool,
    /// Clients connected to the target, or being so.
    pub open: usize,
    /// Routes that follow the source, those too that only finish what they have.
    pub routes: usize,
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had not ended in time and were reset.
    pub cut: usize,
}

impl Ambassador {
    /// Listens and forwards from here on.
    pub fn start(settings: Settings, routes: Vec<RouteConfig>) -> Result<Ambassador, StartError> {
        Ambassador::start_with(settings, routes, Inherited::default())
    }

    /// Like [`Ambassador::start`], on the listening sockets of one that is about to end, so that
    /// no client in their queues is lost.
    pub fn start_with(
        settings: Settings,
        routes: Vec<RouteConfig>,
        inherited: Inherited,
    ) -> Result<Ambassador, StartError> {
        let start = |name: String| Worker::start(name).map_err(StartError::Thread);
        let control = start("ambassador-ctl".into())?;
        let workers: Vec<_> = (0..settings.threads.max(1))
            .map(|n| start(format!("ambassador-{n}")))
            .collect::<Result<_, _>>()?;
        let connections_max = settings.connections_max.clamp(1, descriptors_allow());
        let shared = Shared {
            settings,
            connections: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            paused: Arc::default(),
            next_client: AtomicU64::new(1),
            seats: workers.iter().map(Worker::seat).collect(),
        };
        let ambassador =
            Ambassador { shared: Arc::new(shared), state: Mutex::default(), workers, control };
        ambassador.change(routes, inherited)?;
        Ok(ambassador)
    }

    /// Takes these routes in place of the present ones: all or, on an error, none.
    ///
    /// Unchanged routes notice nothing. Connections of a removed or changed route go on under
    /// its old configuration (and are still cut when their leader changes); clients that a
    /// removed route holds are refused. A listener stays open if any route still uses it.
    pub fn reload(&self, routes: Vec<RouteConfig>) -> Result<(), StartError> {
        self.reload_with(routes, Inherited::default())
    }

    /// Like [`Ambassador::reload`], on inherited listening sockets where there are some.
    pub fn reload_with(
        &self,
        routes: Vec<RouteConfig>,
        inherited: Inherited,
    ) -> Result<(), StartError> {
        self.change(routes, inherited)
    }

    /// Where the route really listens.
    pub fn address(&self, route: &str) -> Option<Address> {
        self.state().routes.get(route).map(|router| router.address.clone())
    }

    /// Copies of all listening sockets, for [`Inherited`] in the proxy that takes over, each with
    /// the address to configure there: `listen` as it stands here, or the port that was taken for
    /// port 0. Once that proxy runs, say so with [`Ambassador::hand_over`].
    pub fn listeners(&self) -> io::Result<Vec<(Address, OwnedFd)>> {
        let state = self.state();
        let mut listeners = Vec::new();
        for ((listen, own), front) in &state.fronts {
            let known_by = if own.is_some() { &front.address } else { listen };
            for socket in front.sockets().iter() {
                listeners.push((known_by.clone(), socket.try_clone()?));
            }
        }
        Ok(listeners)
    }

    /// Leaves the files of Unix sockets to the proxy that has taken the listeners over.
    pub fn hand_over(&self) {
        for front in self.state().fronts.values() {
            front.hand_over();
        }
    }

    /// How far the routes that follow `source` have come. A source without a route forwards
    /// nobody and acts by any word.
    pub fn standing(&self, source: &watch::Receiver<RouteState>) -> Standing {
        let state = self.state();
        let retired = state.retired.iter().filter_map(Weak::upgrade);
        let all = state.routes.values().cloned().chain(retired);
        let mut standing = Standing { version: u64::MAX, ..Standing::default() };
        for router in all.filter(|router| router.follows(source)) {
            let one = router.standing();
            standing.version = standing.version.min(one.version);
            standing.forwards |= one.forwards;
            standing.open += one.open;
            standing.routes += 1;
        }
        standing
    }

    /// The counts of this moment. Those of a route go on over reloads, by its name.
    pub fn stats(&self) -> Stats {
        let mut state = self.state();
        state.retired.retain(|router| router.strong_count() > 0);
        let mut total = Tally::default();
        let (mut hold_time, mut connect_time) = (Histogram::default(), Histogram::default());
        for counters in state.counters.values() {
            total.add(&counters.tally(0, 0));
            hold_time.add(&counters.hold_time.snapshot());
            connect_time.add(&counters.connect_time.snapshot());
        }
        let mut routes: Vec<RouteStats> =
            state.routes.values().map(|router| router.stats()).collect();
        for old in state.retired.iter().filter_map(Weak::upgrade) {
            let old = old.stats();
            match routes.iter_mut().find(|route| route.name == old.name) {
                // Their counters are the same; only who is there now comes on top.
                Some(route) => route.tally.add_now(&old.tally),
                None => routes.push(old),
            }
        }
        drop(state);
        routes.sort_by(|a, b| a.name.cmp(&b.name));
        for route in &routes {
            total.add_now(&route.tally);
        }
        Stats {
            routes,
            total,
            hold_time,
            connect_time,
            connections_max: self.shared.connections_max,
            accept_paused: self.shared.paused.load(Relaxed),
        }
    }

    /// Stops listening, lets clients finish for `drain`, resets those that have not.
    ///
    /// Clients in the listeners' queues are served; held ones may still find their leader. Nothing
    /// can be loaded afterwards.
    pub async fn shutdown(&self, drain: Duration) -> Drained {
        let fronts: Vec<_> = {
            let mut state = self.state();
            state.ended = true;
            state.fronts.drain().map(|(_, front)| front).collect()
        };
        let accepting: Vec<_> = fronts.iter().map(Arc::downgrade).collect();
        for front in fronts {
            front.close();
        }
        let idle = || {
            self.shared.connections.available_permits() == self.shared.connections_max
                && accepting.iter().all(|front| front.strong_count() == 0)
        };
        let until = Instant::now() + drain;
        while !idle() && Instant::now() < until {
            sleep(DRAIN_LOOK).await;
        }
        let cut = self.shared.connections_max - self.shared.connections.available_permits();
        let routers: Vec<_> = {
            let state = self.state();
            let retired = state.retired.iter().filter_map(Weak::upgrade);
            state.routes.values().cloned().chain(retired).collect()
        };
        for router in routers {
            router.stop();
            router.cut_all();
        }
        let until = Instant::now() + CUT_MAX;
        while !idle() && Instant::now() < until {
            sleep(DRAIN_LOOK).await;
        }
        Drained { cut }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(
        &self,
        configs: Vec<RouteConfig>,
        mut inherited: Inherited,
    ) -> Result<(), StartError> {
        validate(&configs)?;
        let mut state = self.state();
        if state.ended {
            return Err(StartError::Ended);
        }
        // All that can fail comes first.
        let mut new_fronts = HashMap::new();
        for config in &configs {
            let key = front_key(config);
            if !state.fronts.contains_key(&key) {
                let opened = self.listen(config, &mut inherited);
                let opened = opened.map_err(|source| StartError::Listen {
                    route: config.name.clone(),
                    address: config.listen.clone(),
                    source,
                })?;
                new_fronts.insert(key, opened);
            }
        }
        let mut routes = HashMap::new();
        for config in configs {
            let key = front_key(&config);
            let name = config.name.clone();
            let before = state.routes.get(&name).filter(|was| was.config.same(&config)).cloned();
            let opened = new_fronts.remove(&key);
            let counters = state.counters.entry(name.clone()).or_default().clone();
            let router = match (before, &opened) {
                (Some(router), _) => router,
                (None, Some((bound, _))) => self.route(config, bound.address.clone(), counters),
                (None, None) => self.route(config, state.fronts[&key].address.clone(), counters),
            };
            match opened {
                Some((bound, doors)) => {
                    let front = self.open(key.0.clone(), bound, doors, router.clone());
                    state.fronts.insert(key, front);
                }
                None => state.fronts[&key].lead_to(router.clone()),
            }
            routes.insert(name, router);
        }
        let old = std::mem::replace(&mut state.routes, routes);
        let kept: HashSet<FrontKey> =
            state.routes.values().map(|router| front_key(&router.config)).collect();
        for (_, front) in state.fronts.extract_if(|key, _| !kept.contains(key)) {
            front.close();
        }
        for (name, router) in old {
            if state.routes.get(&name).is_some_and(|now| Arc::ptr_eq(now, &router)) {
                continue;
            }
            router.retire();
            if !state.routes.contains_key(&name) {
                router.stop();
            }
            state.retired.push(Arc::downgrade(&router));
        }
        Ok(())
    }

    /// Makes a route and starts what tells it of its targets.
    fn route(&self, config: RouteConfig, address: Address, counters: Arc<Counters>) -> Arc<Router> {
        let source = config.source.clone();
        let router = Arc::new(Router::new(config, address, counters));
        match source {
            Source::Leader(news) => {
                self.control.spawn(follow(Arc::downgrade(&router), news));
            }
            Source::Upstreams(upstreams) => {
                for index in 0..upstreams.addresses.len() {
                    let router = Arc::downgrade(&router);
                    self.control.spawn(health::check(router, upstreams.clone(), index));
                }
            }
        }
        router
    }

    /// The route's sockets, each in the event loop of the thread that will accept from it.
    fn listen(
        &self,
        config: &RouteConfig,
        inherited: &mut Inherited,
    ) -> io::Result<(Bound, Vec<Door>)> {
        let bound = bind(&config.listen, self.workers.len(), config.keepalive, inherited)?;
        let unix = matches!(config.listen, Address::Unix(_));
        let doors =
            bound.sockets.iter().zip(self.workers.iter().cycle()).map(|(socket, worker)| {
                let _inside = worker.enter();
                Door::open(socket.try_clone()?, unix)
            });
        let doors = doors.collect::<io::Result<_>>()?;
        Ok((bound, doors))
    }

    /// Starts accepting.
    fn open(
        &self,
        listen: Address,
        bound: Bound,
        doors: Vec<Door>,
        router: Arc<Router>,
    ) -> Arc<Front> {
        let front = Arc::new(Front::new(listen, bound, router));
        for (door, (seat, worker)) in doors.into_iter().zip(self.workers.iter().enumerate().cycle())
        {
            worker.spawn(accept(front.clone(), door, self.shared.clone(), seat));
        }
        front
    }
}

fn validate(configs: &[RouteConfig]) -> Result<(), StartError> {
    let mut names = HashSet::new();
    let mut fronts: HashMap<FrontKey, &str> = HashMap::new();
    for config in configs {
        if !names.insert(&config.name) {
            return Err(StartError::NameTwice(config.name.clone()));
        }
        if let Some(other) = fronts.insert(front_key(config), &config.name) {
            let (other, name) = (other.to_owned(), config.name.clone());
            return Err(StartError::ListenTwice(other, name, config.listen.clone()));
        }
        let upstreams = match &config.source {
            Source::Upstreams(upstreams) => Some(upstreams),
            Source::Leader(_) => None,
        };
        let fault = if config.open_max == Some(0) {
            "`open_max` is 0, which lets nobody through: leave it out or raise it"
        } else if config.connect_timeout.is_zero() {
            "`connect_timeout` is 0, which reaches nobody: raise it"
        } else if config.idle_timeout.is_some_and(|timeout| timeout.is_zero()) {
            "`idle_timeout` is 0, which ends every connection: leave it out or raise it"
        } else if config.keepalive.idle.as_secs() == 0 || config.keepalive.interval.as_secs() == 0 {
            "`keepalive` counts whole seconds: make both times at least 1 s"
        } else if upstreams.is_some_and(|upstreams| upstreams.addresses.is_empty()) {
            "it has no upstream: name at least one"
        } else if upstreams.is_some_and(|upstreams| upstreams.check_interval.is_zero()) {
            "`check_interval` is 0, which checks without end: raise it"
        } else {
            continue;
        };
        return Err(StartError::Route { route: config.name.clone(), fault });
    }
    Ok(())
}

/// Clients that the limit of open files leaves room for, at two descriptors each.
fn descriptors_allow() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let clients = limit.current.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_RESERVED) / 2;
    usize::try_from(clients).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}
