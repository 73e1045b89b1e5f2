//! Calls to the coordinator, and the looking task.
//!
//! Mirrors `election/src/runner/calls.rs` (a call has one outcome, at the latest after a third of
//! the ttl; `sent` is read before it leaves) and `election/src/runner/look.rs` (a change that a
//! watch tells of is only a reason to read).

use std::sync::Arc;
use std::time::Duration;

use mainstay_election::coordinator::{
    Compare, CoordinatorError, LeaseId, Outcome, Revision, Write,
};
use mainstay_election::machine::{Event, Fate, Moment, Ticket};
use mainstay_election::values::keys;
use mainstay_election::view::View;

use super::look::Looker;
use super::world::{Happening, World};

/// `CALL_PARTS`, `RETRY_PARTS` and `POLL_PARTS` of the runner.
const CALL_PARTS: u32 = 3;
const RETRY_PARTS: u32 = 20;
const POLL_PARTS: u32 = 3;

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Everything.
    Read,
    /// A transaction.
    Transact(Ticket, Vec<Compare>, Vec<Write>),
    /// A lease; sent then.
    Grant(Duration, Moment),
    /// More of a lease; sent then.
    KeepAlive(LeaseId, Moment),
}

/// What comes of it.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Everything.
    Contents(Arc<View>),
    /// An answer for the machine.
    Event(Event),
    /// Nothing came in time; for the machine, this means that.
    Silence(Option<Event>),
}

impl World {
    /// A call leaves.
    pub fn call(&mut self, who: usize, request: Request) -> u64 {
        let (call, life) = (self.id(), self.life(who));
        if let Some(node) = self.nodes.get_mut(who)
            && let Some(process) = &mut node.process
        {
            process.calls.insert(call);
        }
        let silent = || "no answer in time".to_owned();
        let reply = Reply::Silence(match &request {
            Request::Read => None,
            Request::Transact(ticket, ..) => {
                Some(Event::Transacted(*ticket, Fate::Unknown(silent())))
            }
            Request::Grant(..) | Request::KeepAlive(..) => Some(Event::LeaseUnanswered(silent())),
        });
        let limit = self.settings.ttl / CALL_PARTS;
        self.later(limit, Happening::Answers { who, life, call, reply });
        if self.coordinator_cuts[who][0] <= self.now
            && let Some(delay) = self.delay()
        {
            if self.rng.chance(self.weather.twice) {
                let again = self.rng.ms(1, 3000);
                let request = request.clone();
                self.later(again, Happening::Arrives { who, life, call, request });
            }
            self.later(delay, Happening::Arrives { who, life, call, request });
        }
        call
    }

    fn life(&self, who: usize) -> u64 {
        self.nodes.get(who).map_or(0, |node| node.life)
    }

    fn delay(&mut self) -> Option<Duration> {
        let weather = self.weather;
        if self.rng.chance(weather.lost) {
            return None;
        }
        if self.rng.chance(weather.late) {
            return Some(self.rng.ms(1, 2 * self.plan.ttl_ms));
        }
        let most = weather.delay_ms * 1000;
        Some(Duration::from_micros(self.rng.between(100, most.max(101))))
    }

    /// A request is there. Its sender may be dead by now: what it asks for happens all the same.
    pub fn arrive(&mut self, who: usize, life: u64, call: u64, request: Request) {
        if self.now < self.coordinator.down_until || self.coordinator_cuts[who][0] > self.now {
            return;
        }
        self.coordinator.expire(self.now);
        let now = self.now;
        let reply = match request {
            Request::Read => Reply::Contents(self.coordinator.view()),
            Request::Transact(ticket, compares, writes) => {
                let outcome = self.coordinator.transact(&compares, &writes);
                self.say_written(who, &writes, &outcome);
                let fate = match outcome {
                    Ok(Outcome::Done(_)) => Fate::Done,
                    Ok(Outcome::Refused) => Fate::Refused,
                    Err(CoordinatorError::LeaseGone) => Fate::LeaseGone,
                    Err(error) => Fate::Unknown(error.to_string()),
                };
                Reply::Event(Event::Transacted(ticket, fate))
            }
            Request::Grant(ttl, sent) => {
                Reply::Event(Event::Granted { sent, grant: self.coordinator.grant(now, ttl) })
            }
            Request::KeepAlive(lease, sent) => {
                Reply::Event(match self.coordinator.keep_alive(now, lease) {
                    Ok(ttl) => Event::KeptAlive { sent, lease, ttl },
                    Err(_) => Event::LeaseGone(lease),
                })
            }
        };
        if self.coordinator_cuts[who][1] <= self.now
            && let Some(delay) = self.delay()
        {
            self.later(delay, Happening::Answers { who, life, call, reply });
        }
    }

    fn say_written(
        &mut self,
        who: usize,
        writes: &[Write],
        outcome: &Result<Outcome, CoordinatorError>,
    ) {
        let noise =
            |write: &Write| matches!(write, Write::Put(key, ..) if key.starts_with(keys::REPLICAS));
        if self.trace.is_none() || writes.iter().all(noise) {
            return;
        }
        let outcome = match outcome {
            Ok(Outcome::Done(revision)) => format!("done at {}", revision.0),
            Ok(Outcome::Refused) => "refused".to_owned(),
            Err(error) => error.to_string(),
        };
        let text = |write: &Write| match write {
            Write::Put(key, value, _) => format!("{key}={}", String::from_utf8_lossy(value)),
            Write::Delete(key) => format!("-{key}"),
        };
        let all: Vec<String> = writes.iter().filter(|write| !noise(write)).map(text).collect();
        self.tell(who, || format!("transaction {outcome}: {}", all.join(" ")));
    }

    /// An answer is there, or the time for one is over.
    pub fn answer(&mut self, who: usize, call: u64, reply: Reply) {
        let Some(looker) = self.looker(who) else { return };
        if looker.reading == Some(call) {
            return self.read_ended(who, reply);
        }
        let Some(process) = self.nodes.get_mut(who).and_then(|node| node.process.as_mut()) else {
            return;
        };
        if process.calls.remove(&call)
            && let Reply::Event(mut event) | Reply::Silence(Some(mut event)) = reply
        {
            if mutant!("deadline-counted-from-receipt")
                && let Event::KeptAlive { sent, .. } = &mut event
            {
                *sent = self.nodes[who].local(self.now);
            }
            self.machine(who, event);
        }
    }

    fn looker(&mut self, who: usize) -> Option<&mut Looker> {
        match who.checked_sub(self.nodes.len()) {
            None => Some(&mut self.nodes[who].process.as_mut()?.looker),
            Some(proxy) => Some(&mut self.proxies.get_mut(proxy)?.looker),
        }
    }

    /// Begins to read; a read under way is dropped.
    pub fn begin_read(&mut self, who: usize) {
        let call = self.call(who, Request::Read);
        let sent = self.local(who);
        let Some(looker) = self.looker(who) else { return };
        looker.reading = Some(call);
        looker.reading_for = looker.asks;
        looker.sent = sent;
        looker.pausing = false;
        looker.chain += 1;
    }

    fn local(&self, who: usize) -> Moment {
        match who.checked_sub(self.nodes.len()) {
            None => self.nodes[who].local(self.now),
            Some(proxy) => Moment::new(self.proxies[proxy].clock.show(self.now)),
        }
    }

    /// `Effect::Read`: what was being read was asked for too early.
    pub fn look_again(&mut self, who: usize) {
        let Some(looker) = self.looker(who) else { return };
        looker.asks += 1;
        if !looker.pausing {
            self.begin_read(who);
        }
    }

    fn read_ended(&mut self, who: usize, reply: Reply) {
        let revision = self.coordinator.revision();
        let (ttl, local) = (self.settings.ttl, self.local(who));
        let Some(looker) = self.looker(who) else { return };
        looker.reading = None;
        match reply {
            Reply::Contents(view) => {
                looker.view = Some(view);
                looker.fresh_at = looker.sent;
                if mutant!("view-fresh-from-receipt") {
                    looker.fresh_at = local;
                }
                looker.answers = looker.reading_for;
                let seen = looker.seen();
                // A watch that begins after what was read tells of all that came since.
                if !looker.watching {
                    looker.watching = true;
                    looker.told = revision;
                }
                looker.chain += 1;
                let (chain, missed) = (looker.chain, looker.told > seen);
                let latest = looker.is_latest();
                let pause = if missed { Duration::from_micros(50) } else { ttl / POLL_PARTS };
                self.look_later(who, chain, pause);
                if latest {
                    self.viewed(who);
                }
            }
            _ => {
                looker.pausing = true;
                looker.watching = false;
                looker.chain += 1;
                let (chain, latest) = (looker.chain, looker.is_latest());
                self.look_later(who, chain, ttl / RETRY_PARTS);
                if latest && who < self.nodes.len() {
                    self.machine(who, Event::Unreadable("no answer in time".to_owned()));
                }
            }
        }
    }

    fn look_later(&mut self, who: usize, chain: u64, pause: Duration) {
        let life = self.life(who);
        self.later(pause, Happening::Look { who, life, chain });
    }

    fn viewed(&mut self, who: usize) {
        if who >= self.nodes.len() {
            return self.proxy_learns(who - self.nodes.len());
        }
        let Some(looker) = self.looker(who) else { return };
        let (sent, Some(view)) = (looker.fresh_at, looker.view.clone()) else { return };
        self.remember_config(who, &view);
        let seen = Arc::clone(&view);
        self.machine(who, Event::Viewed { sent, view });
        self.keep_heirs(who);
        self.look_for_orders(who, &seen);
    }

    /// A wait is over.
    pub fn look_on(&mut self, who: usize, chain: u64) {
        if self.looker(who).is_some_and(|looker| looker.chain == chain) {
            self.begin_read(who);
        }
    }

    /// Every watch will tell of what changed.
    pub fn tell_watches(&mut self, revision: Revision) {
        for who in 0..self.nodes.len() + self.proxies.len() {
            let cut = self.coordinator_cuts[who][1] > self.now;
            if cut || !self.looker(who).is_some_and(|looker| looker.watching) {
                continue;
            }
            let lag = Duration::from_micros(self.rng.between(200, self.watch_lag_ms * 1000));
            let life = self.life(who);
            self.later(lag, Happening::Told { who, life, revision });
        }
    }

    /// A watch tells of a change.
    pub fn told(&mut self, who: usize, revision: Revision) {
        let Some(looker) = self.looker(who) else { return };
        if !looker.watching {
            return;
        }
        looker.told = looker.told.max(revision);
        let idle = looker.reading.is_none() && !looker.pausing;
        if idle && looker.told > looker.seen() {
            self.begin_read(who);
        }
    }

    /// All watches break; what they had not told of stays untold.
    pub fn break_watches(&mut self) {
        let pause = self.settings.ttl / RETRY_PARTS;
        for who in 0..self.nodes.len() + self.proxies.len() {
            let Some(looker) = self.looker(who) else { continue };
            looker.watching = false;
            if looker.reading.is_none() && !looker.pausing {
                looker.pausing = true;
                looker.chain += 1;
                let chain = looker.chain;
                self.look_later(who, chain, pause);
            }
        }
    }
}
