//! Carries out what a machine wants. Mirrors `election/src/runner/mod.rs`: one step, then its
//! effects in order; the machine is ticked when it asks for it and ten times a ttl in any case.

use std::time::Duration;

use mainstay_election::machine::{Directive, Effect, Event, Report};
use mainstay_election::values::{self, Lag, UnixMs};

use super::calls::Request;
use super::convert;
use super::terms::Standing;
use super::world::{Happening, World};

/// `TICK_PARTS` of the runner.
const TICK_PARTS: u32 = 10;
/// A report that only says how far the log is comes after this (`src/replica/run.rs`, `report`).
const REPORT_EVERY: Duration = Duration::from_millis(100);

impl World {
    /// Steps the machine of `node`.
    pub fn machine(&mut self, node: usize, event: Event) {
        let now = self.now;
        let at = &mut self.nodes[node];
        let (local, wall) = (at.local(now), wall(now, at.wall_ms));
        let Some(process) = &mut at.process else { return };
        let effects = process.machine.step(local, wall, event);
        for effect in effects {
            self.carry_out(node, effect);
        }
        self.schedule_tick(node);
    }

    fn schedule_tick(&mut self, node: usize) {
        let (now, most) = (self.now, self.settings.ttl / TICK_PARTS);
        let at = &mut self.nodes[node];
        let life = at.life;
        let Some(process) = &mut at.process else { return };
        let wake = at.clock.when(process.machine.wake().since_boot(), now);
        let due = wake.min(now + most).max(now + Duration::from_micros(1));
        if process.tick_at.is_none_or(|planned| due < planned) {
            process.tick_at = Some(due);
            self.at(due, Happening::Tick { node, life, at: due });
        }
    }

    /// The time that was asked for has come.
    pub fn tick(&mut self, node: usize, at: Duration) {
        if let Some(process) = &mut self.nodes[node].process
            && process.tick_at == Some(at)
        {
            process.tick_at = None;
            self.machine(node, Event::Tick);
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        let (life, sent) = (self.nodes[node].life, self.nodes[node].local(self.now));
        match effect {
            Effect::Gate(deadline) => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.gate = deadline;
                }
            }
            Effect::Terms(terms) => {
                self.tell(node, || format!("acknowledges by {terms:?}"));
                if let Some(process) = &mut self.nodes[node].process {
                    process.wanted = Some(terms);
                }
            }
            Effect::Direct(directive) => {
                self.tell(node, || describe(&directive));
                if let Some(process) = &mut self.nodes[node].process {
                    process.directive = Some(directive);
                }
                // Ending a role waits for writes in progress, and so for a disk.
                let slow = Some(self.nodes[node].slow).filter(|slow| self.now < slow.1);
                let most = match slow {
                    Some((ms, _)) if self.rng.chance(500) => ms * 1000,
                    _ if self.rng.chance(150) => 120_000,
                    _ => 2000,
                };
                let pause = Duration::from_micros(self.rng.between(20, most));
                self.later(pause, Happening::TakeUp { node, life });
            }
            Effect::Promise(through) => {
                let through = convert::to_log_epoch(through);
                self.tell(node, || format!("is to promise away epoch {through}"));
                let pause = Duration::from_micros(self.rng.between(20, 1000));
                self.later(pause, Happening::Promise { node, life, through });
            }
            Effect::Read => self.look_again(node),
            Effect::Transact(ticket, compares, writes) => {
                self.call(node, Request::Transact(ticket, compares, writes));
            }
            Effect::Grant(ttl) => {
                self.call(node, Request::Grant(ttl, sent));
            }
            Effect::KeepAlive(lease) => {
                self.call(node, Request::KeepAlive(lease, sent));
            }
        }
    }

    /// The situation changed: it is reported at once.
    pub fn report(&mut self, node: usize) {
        self.report_within(node, Duration::from_micros(20));
    }

    /// Positions moved: they are reported soon.
    pub fn report_soon(&mut self, node: usize) {
        self.report_within(node, REPORT_EVERY);
    }

    fn report_within(&mut self, node: usize, pause: Duration) {
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return };
        let soon = pause < REPORT_EVERY;
        if soon || !std::mem::replace(&mut process.reporting, true) {
            self.later(pause, Happening::Report { node, life });
        }
    }

    /// A report as `src/replica/situation.rs` makes it.
    pub fn report_now(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        let disk = &at.disk;
        let Some(process) = &mut at.process else { return };
        process.reporting = false;
        let standing = match process.leading {
            Some(_) => process.standing.clone(),
            None => Standing::default(),
        };
        let report = Report {
            volume: convert::volume(disk.volume),
            cluster: disk.cluster.map(convert::cluster),
            position: convert::position(disk.durable()),
            applied: convert::seq(process.applied),
            head: convert::seq(disk.head().seq),
            promised: convert::epoch(disk.promised),
            building: disk.building,
            leading: process.leading.map(convert::epoch),
            ready: process.ready,
            service: Some(format!("10.0.0.{}:5432", node + 1)),
            unfit: None,
            lag: Lag::default(),
            heard: process.heard.map(|(epoch, at)| (convert::epoch(epoch), at)),
            quorum_heard: standing.quorum_heard,
            caught_up: standing.caught_up,
            covered: standing.covered,
            stored: disk.config.clone(),
            verified: None,
            progress: None,
            state: String::new(),
        };
        self.machine(node, Event::Report(Box::new(report)));
    }
}

/// What the wall clock shows.
fn wall(now: Duration, wrong_ms: i64) -> UnixMs {
    let true_ms = 1_700_000_000_000 + u64::try_from(now.as_millis()).unwrap_or(0);
    UnixMs(true_ms.saturating_add_signed(wrong_ms))
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

/// The election's name for a node.
#[must_use]
pub fn name(node: usize) -> values::NodeName {
    let letter = char::from(b'a' + u8::try_from(node).unwrap_or(25));
    match letter.to_string().parse() {
        Ok(name) => name,
        Err(bad) => unreachable!("a letter is a name: {bad}"),
    }
}
