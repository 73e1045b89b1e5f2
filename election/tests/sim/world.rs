//! Everything that happens, in order of time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_election::coordinator::{
    Compare, Contents, CoordinatorError, LeaseId, Outcome, Revision, Write,
};
use mainstay_election::machine::{Directive, Effect, Event, Fate, Moment, Settings, Ticket};
use mainstay_election::values::{Config, Durability, Epoch, Member, UnixMs, decode, encode, keys};
use mainstay_election::view::View;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::checks::Checks;
use super::model::Model;
use super::node::Node;

/// What the network and the processes may do. All of it is within what the machine must survive:
/// messages are delayed, lost and late; clocks do not drift; a process may stop at any time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hazards {
    /// Out of a thousand messages so many are lost.
    pub lost: u32,
    /// Out of a thousand messages so many take up to twice the ttl.
    pub late: u32,
    /// The others take up to this.
    pub delay: Duration,
}

#[derive(Clone, Debug)]
pub enum Request {
    Read(u64),
    Transact(Ticket, Vec<Compare>, Vec<Write>),
    Grant(Duration),
    KeepAlive(LeaseId),
}

#[derive(Debug)]
pub enum Reply {
    Contents(u64, Moment, Contents),
    Outcome(Ticket, Result<Outcome, CoordinatorError>),
    Event(Event),
    /// Nothing came in time.
    Silence(Request),
}

#[derive(Debug)]
pub enum Happening {
    Arrives { call: u64, sent: Moment, request: Request },
    Answers { call: u64, reply: Reply },
    Look(u64),
    Tick,
    Promise(Epoch),
    TakeUp(Directive),
    Ready(Epoch),
    Beat(Epoch),
}

/// How often a leader speaks to its followers.
pub const BEAT: Duration = Duration::from_millis(200);

pub struct World {
    pub now: Duration,
    pub model: Model,
    pub nodes: BTreeMap<String, Node>,
    pub settings: Settings,
    pub hazards: Hazards,
    pub checks: Checks,
    pub trace: Vec<String>,
    /// The next bid of this node reaches the coordinator, its answer does not come back.
    pub lose_answer_of: Option<String>,
    /// The next bid of this node takes so long to reach the coordinator.
    pub late_bid_of: Option<(String, Duration)>,
    rng: SmallRng,
    queue: BTreeMap<(Duration, u64), (String, u64, Happening)>,
    counter: u64,
    open_calls: BTreeSet<u64>,
    looks: BTreeMap<String, u64>,
    seen: BTreeMap<String, Revision>,
}

impl World {
    pub fn new(seed: u64, ttl: Duration) -> World {
        World {
            now: Duration::from_secs(1),
            model: Model::default(),
            nodes: BTreeMap::new(),
            settings: Settings::for_ttl(ttl),
            hazards: Hazards { delay: Duration::from_millis(1), ..Hazards::default() },
            checks: Checks::new(ttl),
            trace: Vec::new(),
            lose_answer_of: None,
            late_bid_of: None,
            rng: SmallRng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            counter: 0,
            open_calls: BTreeSet::new(),
            looks: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    pub fn chance(&mut self, below: u64) -> u64 {
        self.rng.random_range(0..below)
    }

    pub fn say(&mut self, node: &str, what: &str) {
        let ms = self.now.as_millis();
        self.trace.push(format!("{:>3}.{:03} {node}: {what}", ms / 1000, ms % 1000));
    }

    /// Lets `length` pass.
    pub fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some(entry) = self.queue.first_entry().filter(|next| next.key().0 <= end) {
            let ((at, _), (node, life, what)) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(&node, life, what);
            self.check();
        }
        self.now = end;
        self.check();
    }

    pub fn check(&mut self) {
        self.expire();
        self.checks.all(self.now, self.settings.patience, &self.model, &self.nodes);
    }

    fn expire(&mut self) {
        let before = self.model.revision();
        self.model.expire(self.now);
        self.changed(before);
    }

    /// Something changed in the coordinator since `before`: watches tell of it.
    pub fn changed(&mut self, before: Revision) {
        if self.model.revision() != before {
            let alive: Vec<String> = self.nodes.keys().cloned().collect();
            for node in alive {
                self.look_in(&node, self.hazards.delay);
            }
        }
    }

    fn look_in(&mut self, node: &str, pause: Duration) {
        let chain = self.looks.entry(node.to_owned()).or_default();
        *chain += 1;
        let look = Happening::Look(*chain);
        self.later(node, pause, look);
    }

    pub fn later(&mut self, node: &str, pause: Duration, what: Happening) {
        self.counter += 1;
        let life = self.nodes[node].life;
        self.queue.insert((self.now + pause, self.counter), (node.to_owned(), life, what));
    }

    fn delay(&mut self) -> Option<Duration> {
        let Hazards { lost, late, delay } = self.hazards;
        let draw = self.rng.random_range(0..1000);
        if draw < lost {
            return None;
        }
        let most = if draw < lost + late { self.settings.ttl * 2 } else { delay };
        if lost == 0 && late == 0 {
            return Some(most);
        }
        Some(most.mul_f64(self.rng.random_range(0.01..1.0)))
    }

    pub fn start(&mut self, node: Node) {
        let name = node.name.clone();
        self.nodes.insert(name.clone(), node);
        self.restart(&name);
    }

    pub fn restart(&mut self, name: &str) {
        let settings = self.settings.clone();
        self.node(name).boot(&settings);
        self.step(name, Event::Tick);
        self.report(name);
        self.look_in(name, Duration::ZERO);
    }

    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).expect("a node of this world")
    }

    pub fn report(&mut self, name: &str) {
        let report = self.node(name).report();
        self.step(name, Event::Report(Box::new(report)));
    }

    /// The leader writes, and only `followers` hear of it.
    pub fn write(&mut self, name: &str, ops: u64, followers: &[String]) {
        let now = self.now;
        let node = self.node(name);
        if node.leading.is_none() || !node.gate_open(now) || node.paused_until > now {
            return;
        }
        node.write(ops);
        self.report(name);
        for follower in followers {
            self.stream(follower, name);
        }
        let leader = &self.nodes[name];
        if let Some(terms) = &leader.terms {
            self.checks.wrote(leader.disk.position, terms, &self.nodes);
        }
    }

    /// From now on a sync cluster with these voters, by the hand of the test. They must hold the
    /// same: whoever is let in has caught up.
    pub fn rule_by_quorum(&mut self, names: &[&str], write_quorum: u32) {
        let entry = self.model.get(keys::CONFIG).expect("a founded cluster");
        let before: Config = decode(keys::CONFIG, &entry.value).expect("readable");
        let voters: Vec<Member> = names.iter().map(|name| self.member(name)).collect();
        let at = self.nodes[names[0]].disk.position;
        assert!(names.iter().all(|name| self.nodes[*name].disk.position == at), "not caught up");
        let config = Config { voters, write_quorum, durability: Durability::Sync, ..before };
        let write = Write::Put(keys::CONFIG.to_owned(), encode(&config), None);
        let before = self.model.revision();
        self.model.transact(&[], &[write]).expect("no lease is asked for");
        self.changed(before);
        self.check();
    }

    /// `follower` takes everything that `leader` has, if it is allowed to.
    pub fn stream(&mut self, follower: &str, leader: &str) -> bool {
        let from = &self.nodes[leader];
        let (Some(epoch), now) = (from.leading, self.now) else { return false };
        let (disk, reachable) = (from.disk.clone(), !from.cut && from.paused_until <= now);
        let node = self.node(follower);
        let follows =
            matches!(&node.directive, Some(Directive::Follow { epoch: to, .. }) if *to == epoch);
        let able = node.machine.is_some() && !node.cut && node.paused_until <= now;
        if !(reachable && follows && able && node.leading.is_none() && node.disk.promised < epoch) {
            return false;
        }
        node.disk.position = disk.position;
        node.disk.lineage = disk.lineage;
        node.disk.cluster = disk.cluster;
        node.disk.building = false;
        let volume = node.disk.volume;
        self.report(follower);
        let node = follower.parse().expect("a name");
        self.step(leader, Event::Eligible { node, volume, eligible: true });
        true
    }

    pub fn step(&mut self, name: &str, event: Event) {
        let now = self.now;
        let node = self.nodes.get_mut(name).expect("a node of this world");
        let local = node.local(now);
        let Some(machine) = &mut node.machine else { return };
        let effects = machine.step(local, UnixMs(0), event);
        let wake = machine.wake();
        for effect in effects {
            self.carry_out(name, effect);
        }
        let node = self.node(name);
        let at = wake.since_boot().saturating_sub(node.clock).max(now);
        if node.tick != Some(at) {
            node.tick = Some(at);
            self.later(name, at.saturating_sub(now), Happening::Tick);
        }
    }

    fn carry_out(&mut self, name: &str, effect: Effect) {
        let sent = self.nodes[name].local(self.now);
        match effect {
            Effect::Gate(deadline) => {
                let was_open = self.nodes[name].gate != Moment::NEVER;
                self.node(name).gate = deadline;
                if was_open != (deadline != Moment::NEVER) {
                    self.say(name, if was_open { "gate shut" } else { "gate open" });
                }
            }
            Effect::Terms(terms) => self.node(name).terms = Some(terms),
            Effect::Direct(directive) => {
                self.say(name, &describe(&directive));
                self.node(name).directive = Some(directive.clone());
                self.later(name, Duration::from_millis(2), Happening::TakeUp(directive));
            }
            Effect::Promise(through) => {
                self.later(name, Duration::from_millis(2), Happening::Promise(through));
            }
            Effect::Read => self.begin_read(name),
            Effect::Transact(ticket, compares, writes) => {
                let seen = self.seen.get(name).copied().unwrap_or_default();
                self.checks.decided.insert(name.to_owned(), (seen, self.now));
                self.send(name, sent, Request::Transact(ticket, compares, writes));
            }
            Effect::Grant(ttl) => self.send(name, sent, Request::Grant(ttl)),
            Effect::KeepAlive(lease) => self.send(name, sent, Request::KeepAlive(lease)),
        }
    }

    fn begin_read(&mut self, name: &str) {
        let node = self.node(name);
        node.reads += 1;
        let read = node.reads;
        let sent = self.nodes[name].local(self.now);
        self.send(name, sent, Request::Read(read));
    }

    fn send(&mut self, name: &str, sent: Moment, request: Request) {
        self.counter += 1;
        let call = self.counter;
        self.open_calls.insert(call);
        let silence = Reply::Silence(request.clone());
        let limit = self.settings.ttl / 3;
        self.later(name, limit, Happening::Answers { call, reply: silence });
        let mut delay = self.delay().filter(|_| !self.nodes[name].cut);
        if matches!(&request, Request::Transact(_, _, writes) if is_bid(writes))
            && let Some((_, late)) = self.late_bid_of.take_if(|(of, _)| of == name)
        {
            delay = Some(late);
        }
        if let Some(delay) = delay {
            self.later(name, delay, Happening::Arrives { call, sent, request });
        }
    }

    fn happen(&mut self, name: &str, life: u64, what: Happening) {
        // A message on its way arrives whatever has become of its sender.
        if let Happening::Arrives { call, sent, request } = what {
            return self.arrive(name, life, call, sent, request);
        }
        let node = &self.nodes[name];
        if node.life != life || node.machine.is_none() {
            return;
        }
        if node.paused_until > self.now {
            let pause = node.paused_until - self.now;
            return self.later(name, pause, what);
        }
        match what {
            Happening::Arrives { .. } => {}
            Happening::Tick => {
                if self.nodes[name].tick.is_some_and(|due| due <= self.now) {
                    self.node(name).tick = None;
                    self.step(name, Event::Tick);
                }
            }
            Happening::Look(chain) => {
                if self.looks.get(name) == Some(&chain) {
                    self.begin_read(name);
                    self.look_in(name, self.settings.ttl / 3);
                }
            }
            Happening::Answers { call, reply } => {
                if self.open_calls.remove(&call) {
                    self.answer(name, reply);
                }
            }
            Happening::Promise(through) => self.promise(name, through),
            Happening::TakeUp(directive) => self.take_up(name, directive),
            Happening::Beat(epoch) => self.beat(name, epoch),
            Happening::Ready(epoch) => {
                if self.nodes[name].leading == Some(epoch) {
                    self.node(name).ready = true;
                    self.report(name);
                }
            }
        }
    }

    fn arrive(&mut self, name: &str, life: u64, call: u64, sent: Moment, request: Request) {
        if self.nodes[name].cut {
            return;
        }
        self.expire();
        let before = self.model.revision();
        let now = self.now;
        let mut lost = false;
        let reply = match request {
            Request::Read(read) => Reply::Contents(read, sent, self.model.contents()),
            Request::Transact(ticket, compares, writes) => {
                let outcome = self.model.transact(&compares, &writes);
                self.say_written(name, &writes, &outcome);
                let takes = writes
                    .iter()
                    .any(|write| matches!(write, Write::Put(key, ..) if key == keys::EPOCH));
                lost = takes && self.lose_answer_of.take_if(|of| of == name).is_some();
                Reply::Outcome(ticket, outcome)
            }
            Request::Grant(ttl) => {
                Reply::Event(Event::Granted { sent, grant: self.model.grant(now, ttl) })
            }
            Request::KeepAlive(lease) => Reply::Event(match self.model.keep_alive(now, lease) {
                Ok(ttl) => Event::KeptAlive { sent, lease, ttl },
                Err(_) => Event::LeaseGone(lease),
            }),
        };
        self.changed(before);
        let delay = self.delay().filter(|_| !lost);
        if self.nodes[name].life == life
            && let Some(delay) = delay
        {
            self.later(name, delay, Happening::Answers { call, reply });
        }
    }

    fn say_written(
        &mut self,
        name: &str,
        writes: &[Write],
        outcome: &Result<Outcome, CoordinatorError>,
    ) {
        let keys: Vec<String> = writes
            .iter()
            .map(|write| match write {
                Write::Put(key, _, _) => key.clone(),
                Write::Delete(key) => format!("-{key}"),
            })
            .collect();
        if keys.iter().all(|key| key.starts_with(keys::REPLICAS)) {
            return; // the background noise of every scenario
        }
        let outcome = match outcome {
            Ok(Outcome::Done(_)) => "done".to_owned(),
            Ok(Outcome::Refused) => "refused".to_owned(),
            Err(error) => error.to_string(),
        };
        self.say(name, &format!("writes {}: {outcome}", keys.join(" ")));
    }

    fn answer(&mut self, name: &str, reply: Reply) {
        let node = &self.nodes[name];
        let event = match reply {
            Reply::Contents(read, sent, contents) if read == node.reads => {
                match View::parse(&contents) {
                    Ok(view) => {
                        self.seen.insert(name.to_owned(), view.revision);
                        self.store(name, &view);
                        Event::Viewed { sent, view: Arc::new(view) }
                    }
                    Err(bad) => Event::Unreadable(bad.to_string()),
                }
            }
            Reply::Silence(Request::Read(read)) if read == node.reads => {
                // Asked again at the reader's own pace.
                self.look_in(name, self.settings.ttl / 20);
                Event::Unreadable("no answer in time".to_owned())
            }
            Reply::Contents(..) | Reply::Silence(Request::Read(_)) => return,
            Reply::Outcome(ticket, outcome) => {
                let fate = match outcome {
                    Ok(Outcome::Done(_)) => Fate::Done,
                    Ok(Outcome::Refused) => Fate::Refused,
                    Err(CoordinatorError::LeaseGone) => Fate::LeaseGone,
                    Err(error) => Fate::Unknown(error.to_string()),
                };
                Event::Transacted(ticket, fate)
            }
            Reply::Silence(Request::Transact(ticket, ..)) => {
                Event::Transacted(ticket, Fate::Unknown("no answer in time".to_owned()))
            }
            Reply::Silence(Request::Grant(_) | Request::KeepAlive(_)) => {
                Event::LeaseUnanswered("no answer in time".to_owned())
            }
            Reply::Event(event) => event,
        };
        self.step(name, event);
    }

    fn promise(&mut self, name: &str, through: Epoch) {
        let node = self.node(name);
        if node.hushed {
            return;
        }
        if node.leading.is_some() {
            return self.later(name, Duration::from_millis(5), Happening::Promise(through));
        }
        node.disk.promised = node.disk.promised.max(through);
        let event = Event::Promised {
            volume: node.disk.volume,
            through,
            position: node.disk.position,
            lineage: node.disk.lineage.clone(),
        };
        self.report(name);
        self.step(name, event);
    }

    /// The replica does what it is told, unless it has been told something else since.
    fn take_up(&mut self, name: &str, directive: Directive) {
        let node = self.node(name);
        if node.directive.as_ref() != Some(&directive) {
            return;
        }
        match (&directive, node.leading) {
            (Directive::Lead { epoch, .. }, Some(led)) if *epoch == led => {}
            // Another epoch for the leadership that goes on.
            (Directive::Lead { epoch, cluster }, Some(_)) if node.terms.is_some() => {
                let epoch = *epoch;
                let ready = node.ready;
                node.begin_epoch(epoch, *cluster);
                node.ready = ready;
                self.report(name);
                self.later(name, BEAT, Happening::Beat(epoch));
            }
            (Directive::Lead { epoch, cluster }, None) => {
                let epoch = *epoch;
                let disk = node.disk.clone();
                self.checks.nothing_is_lost(name, &disk, &self.model);
                self.node(name).begin_epoch(epoch, *cluster);
                self.report(name);
                self.later(name, BEAT, Happening::Beat(epoch));
                self.later(name, Duration::from_millis(300), Happening::Ready(epoch));
            }
            (_, Some(_)) => {
                node.leading = None;
                node.ready = false;
                self.report(name);
                self.later(name, Duration::ZERO, Happening::TakeUp(directive));
            }
            (Directive::Follow { leader, cluster, .. }, None) => {
                if node.disk.position.seq.0 == 0 && !node.disk.building {
                    node.disk.building = true;
                    node.disk.cluster = Some(*cluster);
                    self.report(name);
                }
                let leader = leader.to_string();
                if !self.stream(name, &leader) {
                    let retry = self.settings.ttl / 10;
                    self.later(name, retry, Happening::TakeUp(directive));
                }
            }
            _ => {}
        }
    }

    /// Whoever would answer clients now.
    pub fn leaders(&self) -> Vec<String> {
        let open = |node: &&Node| node.gate_open(self.now) && node.ready;
        self.nodes.values().filter(open).map(|node| node.name.clone()).collect()
    }

    pub fn member(&self, name: &str) -> Member {
        Member { node: name.parse().expect("a name"), volume: self.nodes[name].disk.volume }
    }
}

fn is_bid(writes: &[Write]) -> bool {
    writes.iter().any(|write| matches!(write, Write::Put(key, ..) if key == keys::EPOCH))
}

fn describe(directive: &Directive) -> String {
    match directive {
        Directive::Lead { epoch, .. } => format!("LEAD {epoch}"),
        Directive::Follow { leader, epoch, .. } => format!("follow {leader} in {epoch}"),
        Directive::Freeze(waiting) => format!("freeze: {waiting}"),
        Directive::StepDown { epoch, why } => format!("STEP DOWN from {epoch}: {why}"),
        Directive::Blocked(blocked) => format!("blocked: {blocked}"),
    }
}
