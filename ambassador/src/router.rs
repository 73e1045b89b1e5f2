//! The shell of one route's state machine: a lock, the clients who wait, and the cut signal.
//!
//! Sessions ask it; the follower of the leader and the health checks tell it. The lock is held
//! for one step and never across an await.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use crate::address::Address;
use crate::ambassador::Standing;
use crate::config::{RouteConfig, Source};
use crate::conn::Conn;
use crate::moment::Moment;
use crate::route::{ClientId, Effect, Event, Generation, Refusal, Route, RouteState};
use crate::stats::{Counters, RouteStats, RouteTarget, UpstreamStats};

/// Longest sleep of a follower. Timers stand still in a suspended machine, trust does not; so a
/// machine that wakes up must not sleep on.
const TICK_MAX: Duration = Duration::from_millis(250);

/// One route in service.
pub(crate) struct Router {
    pub(crate) config: RouteConfig,
    /// Where it really listens.
    pub(crate) address: Address,
    pub(crate) counters: Arc<Counters>,
    state: Mutex<State>,
    /// The last generation that is cut.
    cut: watch::Sender<Generation>,
    retired: AtomicBool,
}

struct State {
    route: Route,
    waiting: HashMap<ClientId, oneshot::Sender<Verdict>>,
}

/// The answer to a client.
#[derive(Debug)]
pub(crate) enum Verdict {
    Forward { to: Address, generation: Generation },
    Refuse(Refusal),
}

/// What a step says to the one who asked.
enum Answer {
    Verdict(Verdict),
    Wait { wake: Moment, verdict: Option<oneshot::Receiver<Verdict>> },
    Nothing,
}

impl Router {
    pub(crate) fn new(config: RouteConfig, address: Address, counters: Arc<Counters>) -> Router {
        let route = match &config.source {
            Source::Leader(_) => Route::to_leader(config.limits()),
            Source::Upstreams(upstreams) => Route::to_upstreams(
                config.limits(),
                upstreams.addresses.clone(),
                upstreams.order,
                upstreams.rise,
                upstreams.fall,
            ),
        };
        Router {
            config,
            address,
            counters,
            state: Mutex::new(State { route, waiting: HashMap::new() }),
            cut: watch::Sender::new(Generation(0)),
            retired: AtomicBool::new(false),
        }
    }

    /// Asks for a client until there is a verdict, and says whether it had to wait. No verdict:
    /// the client left first.
    pub(crate) async fn admit(
        &self,
        client: ClientId,
        conn: &Conn,
        event: Event,
    ) -> (Option<Verdict>, bool) {
        let (mut wake, mut verdict) = match self.step(event, Some(client)) {
            Answer::Verdict(verdict) => return (Some(verdict), false),
            Answer::Wait { wake, verdict: Some(verdict) } => (wake, verdict),
            Answer::Wait { verdict: None, .. } | Answer::Nothing => return (None, false),
        };
        let mut gone = pin!(conn.gone());
        loop {
            tokio::select! {
                biased;
                verdict = &mut verdict => return (verdict.ok(), true),
                () = &mut gone => return (None, true),
                () = sleep(wake.since(Moment::now())) => {
                    // Any verdict comes through the channel.
                    if let Answer::Wait { wake: next, .. } =
                        self.step(Event::Wake(client), Some(client))
                    {
                        wake = next;
                    }
                }
            }
        }
    }

    /// Waits until what was forwarded in `generation` is to be cut.
    pub(crate) async fn cut(&self, generation: Generation) {
        let mut cut = self.cut.subscribe();
        if cut.wait_for(|through| *through >= generation).await.is_err() {
            unreachable!("the sender lives as long as `self`");
        }
    }

    /// A client's connection ended, or will never be.
    pub(crate) fn left(&self, client: ClientId) {
        self.lock().waiting.remove(&client);
        self.step(Event::Left(client), None);
    }

    /// A health check's outcome.
    pub(crate) fn checked(&self, upstream: usize, passed: bool) {
        self.step(Event::Checked { upstream, passed }, None);
    }

    /// Refuses whoever waits or comes from here on.
    pub(crate) fn stop(&self) {
        self.step(Event::Stop, None);
    }

    /// Resets whatever is open, and whatever will be.
    pub(crate) fn cut_all(&self) {
        self.cut.send_replace(Generation(u64::MAX));
    }

    /// Marks the route as one that only finishes what it has.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    fn step(&self, event: Event, asker: Option<ClientId>) -> Answer {
        let mut state = self.lock();
        let mut answer = Answer::Nothing;
        for effect in state.route.step(Moment::now(), event) {
            let (client, verdict) = match effect {
                Effect::Cut { through } => {
                    tracing::info!(route = self.config.name, "cutting: its leader is not trusted");
                    self.cut.send_if_modified(|cut| {
                        let later = through > *cut;
                        *cut = through.max(*cut);
                        later
                    });
                    continue;
                }
                Effect::Hold { client, wake } => {
                    let mut verdict = None;
                    state.waiting.entry(client).or_insert_with(|| {
                        let (told, hears) = oneshot::channel();
                        verdict = Some(hears);
                        told
                    });
                    answer = Answer::Wait { wake, verdict };
                    continue;
                }
                Effect::Forward { client, to, generation } => {
                    (client, Verdict::Forward { to, generation })
                }
                Effect::Refuse { client, reason } => (client, Verdict::Refuse(reason)),
            };
            match state.waiting.remove(&client) {
                // One who has just left says so itself.
                Some(told) => drop(told.send(verdict)),
                None if Some(client) == asker => answer = Answer::Verdict(verdict),
                None => {}
            }
        }
        answer
    }

    fn learn(&self, news: RouteState) -> Option<Moment> {
        self.step(Event::Leader(news), None);
        self.lock().route.next_tick()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A step that panicked changed one client at most; the others must go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it takes its leader from there.
    pub(crate) fn follows(&self, source: &watch::Receiver<RouteState>) -> bool {
        matches!(&self.config.source, Source::Leader(ours) if ours.same_channel(source))
    }

    pub(crate) fn standing(&self) -> Standing {
        let now = Moment::now();
        let state = self.lock();
        Standing {
            version: state.route.leader().map_or(u64::MAX, |news| news.version),
            forwards: state.route.is_forwarding(now),
            open: state.route.forwarded(),
            routes: 1,
        }
    }

    pub(crate) fn stats(&self) -> RouteStats {
        let now = Moment::now();
        let state = self.lock();
        let route = &state.route;
        let target = match route.leader() {
            Some(news) => RouteTarget::Leader {
                epoch: news.epoch,
                leader: news.leader.clone(),
                ready: news.ready,
                trusted_ms: u64::try_from(news.until().since(now).as_millis()).unwrap_or(u64::MAX),
            },
            None => {
                RouteTarget::Upstreams(route.upstreams().iter().map(UpstreamStats::of).collect())
            }
        };
        RouteStats {
            name: self.config.name.clone(),
            listen: self.address.clone(),
            retired: self.retired.load(Relaxed),
            forwarding: route.is_forwarding(now),
            target,
            tally: self.counters.tally(route.forwarded(), route.held()),
            hold_time: self.counters.hold_time.snapshot(),
            connect_time: self.counters.connect_time.snapshot(),
        }
    }
}

/// Tells a route of its leader for as long as the route lives.
pub(crate) async fn follow(router: Weak<Router>, mut news: watch::Receiver<RouteState>) {
    let mut told = true;
    loop {
        let state = news.borrow_and_update().clone();
        let Some(tick) = router.upgrade().map(|router| router.learn(state)) else { return };
        let until_tick = tick.map_or(TICK_MAX, |tick| tick.since(Moment::now()).min(TICK_MAX));
        tokio::select! {
            changed = news.changed(), if told => told = changed.is_ok(),
            () = sleep(until_tick) => {}
        }
    }
}
