//! Everything that happens, in order of time, out of one seed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use mainstay_ambassador as ambassador;
use mainstay_election::coordinator::Revision;
use mainstay_election::machine::Settings;
use mainstay_election::values::{Config, ConfigMark};
use mainstay_election::view::View;
use mainstay_sync::position::Epoch;

use super::calls::{Reply, Request};
use super::checks::Checks;
use super::coordinator::Coordinator;
use super::node::Node;
use super::plan::{Cue, Plan, Planned};
use super::proxy::Proxy;
use super::rng::Rng;
use super::session::Session;

/// A run in which more happens than this goes round in circles.
const STEPS_MAX: u64 = 1_000_000;

/// What may happen. `node` and `life` say to whom: an older process' matters are nobody's.
#[derive(Debug)]
pub enum Happening {
    /// A request reaches the coordinator.
    Arrives { who: usize, life: u64, call: u64, request: Request },
    /// An answer, or the end of waiting for one.
    Answers { who: usize, life: u64, call: u64, reply: Reply },
    /// A looker's pause or its wait is over.
    Look { who: usize, life: u64, chain: u64 },
    /// A watch tells of a change.
    Told { who: usize, life: u64, revision: Revision },
    /// Leases run out.
    Expire,
    /// Time passes for a machine.
    Tick { node: usize, life: u64, at: Duration },
    /// A report is due.
    Report { node: usize, life: u64 },
    /// A sync ended.
    Synced { node: usize, life: u64 },
    /// A vow is stored.
    Vowed { node: usize, life: u64, through: Epoch },
    /// A config is on the disk.
    Stored { node: usize, life: u64, config: Arc<Config> },
    /// A promise that could not be made is tried again.
    Promise { node: usize, life: u64, through: Epoch },
    /// The applier runs.
    Apply { node: usize, life: u64 },
    /// A checkpoint is due.
    Checkpoint { node: usize, life: u64 },
    /// The replica looks at its directive.
    TakeUp { node: usize, life: u64 },
    /// A leadership is wound up.
    WoundUp { node: usize, life: u64, epoch: Epoch },
    /// The service answers.
    Ready { node: usize, life: u64, epoch: Epoch },
    /// The service writes.
    Write { node: usize, life: u64, epoch: Epoch },
    /// The leader looks at who may take over.
    Eligible { node: usize, life: u64, epoch: Epoch },
    /// The leader's terms are looked at.
    Quorum { node: usize, life: u64, epoch: Epoch },
    /// A switchover's time is over.
    HandedOver { node: usize, life: u64, epoch: Epoch },
    /// An operator looks whether anything is to be done.
    Operator,
    /// A follower calls its leader.
    Dial { node: usize, life: u64, epoch: Epoch },
    /// The oldest message of a pipe arrives.
    Deliver { session: u64, up: bool },
    /// The end of a session says that it lives, and looks whether the other does.
    Beat { session: u64, up: bool },
    /// Records go out.
    Send { session: u64 },
    /// The next piece of a copy is read.
    ReadPiece { session: u64 },
    /// A follower's volume goes over to a delta.
    Switch { session: u64 },
    /// A process starts.
    Boot { node: usize, life: u64 },
    /// The plan's next fault.
    Fault(usize),
    /// What a fault waited for has happened, to that node.
    Ambush { index: usize, node: usize },
    /// A wait of an ambassador's is over.
    Proxy { proxy: usize, at: Duration },
    /// An ambassador asks the leader itself.
    Ask { proxy: usize, asks: u64 },
    /// The question reaches the leader.
    Attest { proxy: usize, asks: u64, node: usize, epoch: u64, sent: ambassador::Moment },
    /// Its answer, or the end of waiting for one.
    Attested { proxy: usize, asks: u64, answer: Option<ambassador::Attested> },
    /// A client comes to an ambassador.
    Client { proxy: usize },
}

struct Entry {
    at: Duration,
    order: u64,
    what: Happening,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Entry {}

/// How the network to the coordinator is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Out of a thousand messages so many are lost.
    pub lost: u32,
    /// So many are very late.
    pub late: u32,
    /// So many requests arrive twice.
    pub twice: u32,
    /// The others take up to this many milliseconds.
    pub delay_ms: u64,
}

/// One run.
pub struct World {
    /// What is to befall it.
    pub plan: Plan,
    /// Where every chance comes from.
    pub rng: Rng,
    /// The world's time.
    pub now: Duration,
    /// When the plan begins.
    pub storm_from: Duration,
    /// No more faults after this.
    pub calm: bool,
    /// The true state of the coordinator.
    pub coordinator: Coordinator,
    /// The replicas.
    pub nodes: Vec<Node>,
    /// The ambassadors.
    pub proxies: Vec<Proxy>,
    /// Sessions between replicas.
    pub sessions: BTreeMap<u64, Session>,
    /// Nothing passes from one node to another until then.
    pub cuts: Vec<Vec<Duration>>,
    /// Nothing passes to, and from, the coordinator until then.
    pub coordinator_cuts: Vec<[Duration; 2]>,
    /// The network to the coordinator.
    pub weather: Weather,
    /// Watches lag by up to this many milliseconds.
    pub watch_lag_ms: u64,
    /// The times that machines go by.
    pub settings: Settings,
    /// The judge.
    pub checks: Checks,
    /// What happened, if anybody wants to read it.
    pub trace: Option<Vec<String>>,
    /// How many things happened.
    pub steps: u64,
    /// Ids of calls, sessions, ops and clients.
    pub ids: u64,
    /// Faults that lie in wait, and for what.
    pub waiting: Vec<(Cue, usize)>,
    looked_at: Revision,
    ruled: (u64, Option<ConfigMark>),
    restored: u32,
    queue: BinaryHeap<Entry>,
    order: u64,
    expire_at: Option<Duration>,
}

impl World {
    /// The world of a plan, before anything happened.
    #[must_use]
    pub fn new(plan: Plan, trace: bool) -> World {
        let rng = Rng::new(plan.seed);
        let settings = super::boot::settings(&plan);
        let all = plan.nodes + super::proxy::PROXIES;
        World {
            rng,
            now: Duration::from_secs(1),
            storm_from: Duration::MAX,
            calm: false,
            coordinator: Coordinator::default(),
            nodes: Vec::new(),
            proxies: Vec::new(),
            sessions: BTreeMap::new(),
            cuts: vec![vec![Duration::ZERO; plan.nodes]; plan.nodes],
            coordinator_cuts: vec![[Duration::ZERO; 2]; all],
            weather: Weather { lost: 0, late: 0, twice: 0, delay_ms: 3 },
            watch_lag_ms: 2,
            settings,
            checks: Checks::new(plan.sync, plan.bound_ops),
            trace: trace.then(Vec::new),
            steps: 0,
            ids: 0,
            waiting: Vec::new(),
            looked_at: Revision(0),
            ruled: (0, None),
            restored: 0,
            queue: BinaryHeap::new(),
            order: 0,
            expire_at: None,
            plan,
        }
    }

    /// Notes a line of the trace.
    pub fn say(&mut self, who: &dyn std::fmt::Display, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let ms = self.now.as_micros();
            let mut line = String::new();
            let _ = write!(line, "{:>4}.{:06} {who}: ", ms / 1_000_000, ms % 1_000_000);
            line.push_str(&what());
            trace.push(line);
        }
    }

    /// As [`World::say`], of a node.
    pub fn tell(&mut self, node: usize, what: impl FnOnce() -> String) {
        if self.trace.is_some() {
            let name = self.nodes[node].name.clone();
            self.say(&name, what);
        }
    }

    /// A number that was not given before.
    pub fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Lets something happen after `pause`.
    pub fn later(&mut self, pause: Duration, what: Happening) {
        self.at(self.now + pause, what);
    }

    /// Lets something happen then.
    pub fn at(&mut self, at: Duration, what: Happening) {
        self.order += 1;
        self.queue.push(Entry { at, order: self.order, what });
    }

    /// Lets the next thing happen, if it is before `end`; false if there is none.
    pub fn step(&mut self, end: Duration) -> bool {
        let Some(next) = self.queue.peek().filter(|next| next.at <= end) else {
            self.now = self.now.max(end);
            return false;
        };
        self.now = self.now.max(next.at);
        let Some(Entry { what, .. }) = self.queue.pop() else { return false };
        self.steps += 1;
        if self.steps == STEPS_MAX {
            self.checks.broken("a run comes to an end", format!("{:?}: {what:?}", self.now));
        }
        self.happen(what);
        self.look_after();
        true
    }

    /// After everything that happens.
    fn look_after(&mut self) {
        let revision = self.coordinator.revision();
        if revision != self.looked_at || self.coordinator.restored != self.restored {
            self.looked_at = revision;
            self.restored = self.coordinator.restored;
            let view = self.coordinator.view();
            self.checks.coordinator(self.now, &view, self.restored, &self.nodes);
            self.tell_watches(revision);
            self.cue_rules(&view);
            self.coordinator.back_up(self.now);
        }
        let up = self.coordinator.down_until.max(self.now);
        if let Some(next) = self.coordinator.next_end().map(|next| next.max(up))
            && self.expire_at.is_none_or(|at| next < at)
        {
            self.expire_at = Some(next);
            self.at(next, Happening::Expire);
        }
        if self.steps.is_multiple_of(64) && !self.nodes.is_empty() {
            let node = usize::try_from(self.steps / 64).unwrap_or(0) % self.nodes.len();
            self.checks.volume(&self.nodes[node]);
        }
        if self.plan.sync && self.steps.is_multiple_of(8) {
            // A frozen clock does not see its gate's time come.
            for node in self.nodes.iter().filter(|node| !node.frozen) {
                let bound = self.settings.ttl.mul_f64(1.1);
                self.checks.gate_is_young(self.now, node, bound);
            }
        }
        self.check_proxies();
    }

    /// Whoever lies in wait for the coordinator's changes.
    fn cue_rules(&mut self, view: &View) {
        let epoch = view.epoch.as_ref().map_or(0, |taken| taken.value.epoch.0);
        let rules = view.config.as_ref().map(|config| config.value.mark());
        let before = std::mem::replace(&mut self.ruled, (epoch, rules));
        let leader = view.leader.as_ref().map(|leader| &leader.value.node);
        let at = self.nodes.iter().position(|node| Some(&node.name) == leader);
        let Some(node) = at.filter(|_| !self.waiting.is_empty()) else { return };
        if epoch > before.0 {
            self.cue(Cue::Elected, node);
        } else if rules != before.1 {
            self.cue(Cue::Ruled, node);
        }
    }

    fn happen(&mut self, what: Happening) {
        let what = match self.postponed(what) {
            Some(what) => what,
            None => return,
        };
        match what {
            Happening::Arrives { who, life, call, request } => {
                self.arrive(who, life, call, request);
            }
            Happening::Answers { who, call, reply, .. } => self.answer(who, call, reply),
            Happening::Look { who, chain, .. } => self.look_on(who, chain),
            Happening::Told { who, revision, .. } => self.told(who, revision),
            Happening::Expire => {
                self.expire_at = None;
                self.coordinator.expire(self.now);
            }
            Happening::Tick { node, at, .. } => self.tick(node, at),
            Happening::Report { node, .. } => self.report_now(node),
            Happening::Synced { node, .. } => self.synced(node),
            Happening::Vowed { node, through, .. } => self.vowed(node, through),
            Happening::Stored { node, config, .. } => self.stored(node, config),
            Happening::Promise { node, through, .. } => self.promise(node, through),
            Happening::Apply { node, .. } => self.apply(node),
            Happening::Checkpoint { node, .. } => self.checkpoint(node),
            Happening::TakeUp { node, .. } => self.take_up(node),
            Happening::WoundUp { node, epoch, .. } => self.wound_up(node, epoch),
            Happening::Ready { node, epoch, .. } => self.ready(node, epoch),
            Happening::Write { node, epoch, .. } => self.service_writes(node, epoch),
            Happening::Eligible { node, epoch, .. } => self.keep_eligible(node, epoch),
            Happening::Quorum { node, epoch, .. } => self.keep_quorum(node, epoch),
            Happening::HandedOver { node, epoch, .. } => self.not_handed_over(node, epoch),
            Happening::Operator => self.operator_looks(),
            Happening::Dial { node, epoch, .. } => self.dial(node, epoch),
            Happening::Deliver { session, up } => self.deliver(session, up),
            Happening::Beat { session, up } => self.beat(session, up),
            Happening::Send { session } => self.send_records(session),
            Happening::ReadPiece { session } => self.read_piece(session),
            Happening::Switch { session } => self.switch(session),
            Happening::Boot { node, life } => {
                // Of several reasons to come back the first one counts.
                if self.nodes[node].life == life {
                    self.boot(node);
                }
            }
            Happening::Fault(index) => self.fault(index),
            Happening::Ambush { index, node } => self.befall(index, Some(node)),
            Happening::Proxy { proxy, at } => self.proxy_tick(proxy, at),
            Happening::Ask { proxy, asks } => self.ask_witness(proxy, asks),
            Happening::Attest { proxy, asks, node, epoch, sent } => {
                self.attest(proxy, asks, node, epoch, sent);
            }
            Happening::Attested { proxy, asks, answer } => self.attested(proxy, asks, answer),
            Happening::Client { proxy } => self.client_comes(proxy),
        }
    }

    /// Nothing happens to a process that is gone, and to one that is paused it happens later.
    fn postponed(&mut self, what: Happening) -> Option<Happening> {
        let (node, life) = match &what {
            Happening::Answers { who, life, .. }
            | Happening::Look { who, life, .. }
            | Happening::Told { who, life, .. } => (*who, *life),
            Happening::Tick { node, life, .. }
            | Happening::Report { node, life }
            | Happening::Synced { node, life }
            | Happening::Vowed { node, life, .. }
            | Happening::Stored { node, life, .. }
            | Happening::Promise { node, life, .. }
            | Happening::Apply { node, life }
            | Happening::Checkpoint { node, life }
            | Happening::TakeUp { node, life }
            | Happening::WoundUp { node, life, .. }
            | Happening::Ready { node, life, .. }
            | Happening::Write { node, life, .. }
            | Happening::Eligible { node, life, .. }
            | Happening::HandedOver { node, life, .. }
            | Happening::Quorum { node, life, .. }
            | Happening::Dial { node, life, .. } => (*node, *life),
            Happening::Deliver { session, up } | Happening::Beat { session, up } => {
                let session = self.sessions.get(session)?;
                // A message is its receiver's matter, a beat its sender's.
                let at_leader = *up == matches!(what, Happening::Deliver { .. });
                let node = if at_leader { session.leader } else { session.follower.0 };
                (node, self.nodes[node].life)
            }
            Happening::Switch { session } => {
                let node = self.sessions.get(session)?.follower.0;
                (node, self.nodes[node].life)
            }
            Happening::Send { session } | Happening::ReadPiece { session } => {
                let node = self.sessions.get(session)?.leader;
                (node, self.nodes[node].life)
            }
            _ => return Some(what),
        };
        let Some(node) = self.nodes.get(node) else { return Some(what) };
        let to_wire = matches!(what, Happening::Deliver { .. });
        if !to_wire && (node.life != life || node.process.is_none()) {
            return None;
        }
        if node.process.is_some() && node.paused_until > self.now {
            self.at(node.paused_until, what);
            return None;
        }
        Some(what)
    }

    /// Who leads now by what it does: the newest leadership of a process that runs.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let epoch = |node: &Node| node.leadership().map(|leading| leading.epoch);
        (0..self.nodes.len())
            .filter_map(|at| Some((epoch(&self.nodes[at])?, at)))
            .max()
            .map(|(_, at)| at)
    }

    /// The plan's fault.
    #[must_use]
    pub fn planned(&self, index: usize) -> Option<Planned> {
        self.plan.faults.get(index).cloned()
    }
}
