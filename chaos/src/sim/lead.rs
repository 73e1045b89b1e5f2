//! The replica's roles, and what a leader does.
//!
//! Mirrors `src/replica/run.rs` (`play_roles`), `lead.rs` (promotion, demotion), `eligible.rs` and
//! `sync/src/volume/leading.rs`; the service is one that writes and fsyncs.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_election::machine::{Directive, Event, Moment};
use mainstay_election::values::ClusterId;
use mainstay_sync::commit::Rule;
use mainstay_sync::position::{Epoch, Seq};

use super::convert;
use super::disk::{self, Tag};
use super::node::{Leading, Role};
use super::plan::Cue;
use super::terms::Standing;
use super::world::{Happening, World};

/// `INTERVAL` of `eligible.rs`.
const ELIGIBLE_EVERY: Duration = Duration::from_millis(500);
/// The service waits with more fsyncs under way than this.
const WAITING_MAX: usize = 16;

impl World {
    /// `play_roles`: does what the directive says, one role at a time.
    pub fn take_up(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let Some(directive) = process.directive.clone() else { return };
        match (&process.role, &directive) {
            (Role::Leading(leading), Directive::Lead { epoch, .. })
                if leading.epoch == convert::to_log_epoch(*epoch) => {}
            (Role::Leading(leading), Directive::Lead { epoch, .. })
                if !leading.over && leading.epoch < convert::to_log_epoch(*epoch) =>
            {
                // `service::run` looks for it, so not before the mount is there.
                if process.ready {
                    self.renew(node, convert::to_log_epoch(*epoch));
                }
            }
            (Role::Leading(leading), _) => {
                if !leading.over {
                    self.demote(node);
                }
            }
            (Role::Following(following), Directive::Follow { leader, epoch, .. })
                if following.epoch == convert::to_log_epoch(*epoch)
                    && self.nodes[following.leader].name == *leader => {}
            (Role::Following(_), _) => {
                self.stop_following(node);
                self.take_up(node);
            }
            (Role::Idle, Directive::Follow { .. }) => self.begin_following(node, &directive),
            (Role::Idle, Directive::Lead { epoch, cluster }) => {
                self.lead(node, convert::to_log_epoch(*epoch), *cluster);
            }
            (Role::Idle, _) => {}
        }
    }

    /// `volume.found` and `volume.lead`: the epoch's first record. Until that is committed
    /// nothing is served but followers.
    fn lead(&mut self, node: usize, epoch: Epoch, cluster: ClusterId) {
        if let Some(process) = &mut self.nodes[node].process {
            process.terms = process.wanted.clone();
            process.standing = Standing::default();
        }
        let rule = self.rule(node);
        self.apply_committed_only(node, self.plan.sync && rule != Rule::Local);
        let at = &mut self.nodes[node];
        let Some(process) = &mut at.process else { return };
        let head = at.disk.head();
        let start = head.seq.next();
        process.leading = Some(epoch);
        process.ready = false;
        at.disk.cluster = Some(convert::to_log_cluster(cluster));
        process.tally.set_rule(rule);
        process.tally.begin(epoch, start);
        process.told = Some(process.tally.committed());
        let newest = at.disk.promised.max(head.epoch);
        let known = epoch <= newest && !mutant!("epochs-counted-by-the-coordinator-alone");
        let (fit, volume) = (!known && !at.disk.building, at.disk.volume);
        process.role = Role::Leading(Box::new(Leading {
            epoch,
            start,
            seats: Vec::new(),
            service: false,
            waiting: Vec::new(),
            over: false,
            resigning: false,
            heir: None,
            began: self.now,
            allowed: None,
            wants: false,
            asked: BTreeMap::new(),
        }));
        self.report(node);
        if !fit || !self.accept_leader(node, epoch, volume) {
            self.tell(node, || format!("cannot lead {epoch}"));
            return self.resign(node, epoch, "it cannot lead");
        }
        if !mutant!("no-epoch-start") {
            let tag = self.tag();
            let name = self.nodes[node].name.to_string();
            let record = disk::record(epoch, start, tag, Some(&name));
            if !self.append(node, epoch, record, true) {
                return self.resign(node, epoch, "its log is sealed");
            }
        }
        self.checks.began(epoch, node, &self.nodes[node]);
        self.tell(node, || format!("begins epoch {epoch} at {start}"));
        self.cue(Cue::Begins, node);
        let life = self.nodes[node].life;
        self.later(ELIGIBLE_EVERY, Happening::Eligible { node, life, epoch });
        self.keep_heirs(node);
        self.later(Duration::from_millis(1), Happening::Quorum { node, life, epoch });
        self.committed_moved(node);
    }

    /// The leadership goes on in a later epoch that this process took: its EpochStart, new
    /// sessions, the same service.
    fn renew(&mut self, node: usize, epoch: Epoch) {
        let life = self.nodes[node].life;
        let start = self.nodes[node].disk.head().seq.next();
        let (tag, name) = (self.tag(), self.nodes[node].name.to_string());
        let accepted = self.accept_leader(node, epoch, self.nodes[node].disk.volume);
        let Some(process) = &mut self.nodes[node].process else { return };
        process.leading = Some(epoch);
        process.tally.begin(epoch, start);
        let Some(leading) = process.leading_mut() else { return };
        leading.epoch = epoch;
        leading.start = start;
        for (_, session) in std::mem::take(&mut leading.seats) {
            self.end_server(session, false);
        }
        if !accepted
            || !self.append(node, epoch, disk::record(epoch, start, tag, Some(&name)), true)
        {
            return self.resign(node, epoch, "its log is sealed");
        }
        self.set_terms(node);
        self.checks.began(epoch, node, &self.nodes[node]);
        self.tell(node, || format!("goes on in epoch {epoch} from {start}"));
        self.cue(Cue::Begins, node);
        self.report(node);
        self.later(ELIGIBLE_EVERY, Happening::Eligible { node, life, epoch });
        self.later(Duration::from_millis(1), Happening::Quorum { node, life, epoch });
        let ready = self.nodes[node].process.as_ref().is_some_and(|process| process.ready);
        if ready {
            self.service_writes(node, epoch);
        }
    }

    /// A number for an op.
    fn tag(&mut self) -> Tag {
        Tag::try_from(self.id()).unwrap_or(Tag::MAX)
    }

    fn resign(&mut self, node: usize, epoch: Epoch, why: &str) {
        let event = Event::Resign { epoch: convert::epoch(epoch), why: why.to_owned() };
        self.machine(node, event);
    }

    /// What is committed may have moved: waiting fsyncs are answered, the applier may go on, and
    /// a promotion too.
    pub fn committed_moved(&mut self, node: usize) {
        let local = self.nodes[node].local(self.now);
        let Some(process) = &mut self.nodes[node].process else { return };
        let gate_open = local < process.gate;
        let committed = process.tally.committed();
        let stepped = process.told.is_some_and(|told| told < committed);
        if stepped {
            process.told = Some(committed);
            self.allow_applier(node, committed);
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        let Role::Leading(leading) = &mut process.role else { return };
        if leading.over {
            return;
        }
        let (epoch, start) = (leading.epoch, leading.start);
        // A closed gate answers nothing: what waits goes on waiting.
        let mut answered = Vec::new();
        if gate_open {
            leading.waiting.retain(|(seq, tag)| {
                let due = *seq <= committed;
                if due {
                    answered.push((*seq, *tag));
                }
                !due
            });
        }
        if committed >= start && self.checks.serves(epoch, node, &self.nodes[node]) {
            self.cue(Cue::Serves, node);
        }
        for (seq, tag) in answered {
            self.checks.acknowledged(&self.nodes[node], epoch, seq, tag);
        }
        self.promoted(node);
        self.give_up(node);
    }

    /// `promote`: once the EpochStart is committed and applied, the mount and the service.
    pub fn promoted(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return };
        let (applied, committed) = (process.applied, process.tally.committed());
        let Role::Leading(leading) = &mut process.role else { return };
        let start = match mutant!("no-epoch-start") {
            true => Seq(leading.start.0 - 1),
            false => leading.start,
        };
        let due = !leading.over && !leading.service && applied >= start;
        if due && committed >= start {
            leading.service = true;
            let epoch = leading.epoch;
            let pause = self.rng.ms(20, 400);
            self.later(pause, Happening::Ready { node, life, epoch });
        }
    }

    /// The service answers.
    pub fn ready(&mut self, node: usize, epoch: Epoch) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let Role::Leading(leading) = &process.role else { return };
        if leading.epoch == epoch && !leading.over {
            process.ready = true;
            self.tell(node, || format!("serves in epoch {epoch}"));
            self.report(node);
            self.service_writes(node, epoch);
            self.take_up(node);
        }
    }

    /// The service writes some, and may ask for an fsync.
    pub fn service_writes(&mut self, node: usize, epoch: Epoch) {
        let life = self.nodes[node].life;
        let local = self.nodes[node].local(self.now);
        let Some(process) = &self.nodes[node].process else { return };
        let Role::Leading(leading) = &process.role else { return };
        if leading.epoch != epoch || leading.over || leading.resigning {
            return;
        }
        // The mount answers no request while its gate is shut, so the service hangs.
        let hangs = local >= process.gate || leading.waiting.len() >= WAITING_MAX;
        let pause = if self.rng.chance(300) { self.rng.ms(1, 20) } else { self.rng.ms(20, 250) };
        self.later(pause, Happening::Write { node, life, epoch });
        if hangs {
            return;
        }
        let mut last = None;
        for _ in 0..self.rng.between(1, 4) {
            if !self.may_append(node) {
                self.keep_heirs(node);
                break;
            }
            let tag = self.tag();
            let seq = self.nodes[node].disk.head().seq.next();
            if !self.append(node, epoch, disk::record(epoch, seq, tag, None), true) {
                break;
            }
            last = Some((seq, tag));
        }
        let fsync = self.rng.chance(600);
        if let Some((seq, tag)) = last
            && fsync
            && let Some(process) = &mut self.nodes[node].process
            && let Some(leading) = process.leading_mut()
        {
            leading.waiting.push((seq, tag));
        }
        self.stream(node);
        self.report_soon(node);
    }

    /// Asked to leave: no more writes, and when all are acknowledged the leadership is given up.
    pub fn begin_resigning(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if let Some(leading) = process.leading_mut()
            && !leading.over
        {
            leading.resigning = true;
            self.give_up(node);
        }
    }

    /// Gives the leadership up, if that is asked for and nothing is left to do.
    pub fn give_up(&mut self, node: usize) {
        let heir_is_there = self.heir_has_everything(node);
        let Some(process) = &mut self.nodes[node].process else { return };
        let Role::Leading(leading) = &process.role else { return };
        let ready = leading.waiting.is_empty() && heir_is_there;
        if leading.resigning && ready && !leading.over {
            let epoch = leading.epoch;
            self.resign(node, epoch, "asked to");
        }
    }

    /// Fenced: the service is killed, the mount aborted, the sessions end; then it is wound up.
    fn demote(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return };
        let Role::Leading(leading) = &mut process.role else { return };
        leading.over = true;
        leading.waiting.clear();
        process.ready = false;
        let epoch = leading.epoch;
        for (_, session) in std::mem::take(&mut leading.seats) {
            self.end_server(session, true);
        }
        self.report(node);
        let pause = self.rng.ms(1, 150);
        self.later(pause, Happening::WoundUp { node, life, epoch });
    }

    /// Nothing of the leadership is left.
    pub fn wound_up(&mut self, node: usize, epoch: Epoch) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if !matches!(&process.role, Role::Leading(leading) if leading.epoch == epoch) {
            return;
        }
        process.role = Role::Idle;
        process.leading = None;
        self.report_now(node);
        self.go_on_promising(node);
        self.take_up(node);
    }

    /// `eligible::keep` (async): who has caught up may take over.
    pub fn keep_eligible(&mut self, node: usize, epoch: Epoch) {
        let life = self.nodes[node].life;
        if self.nodes[node].leadership().is_none_or(|leading| leading.epoch != epoch) {
            return;
        }
        self.later(ELIGIBLE_EVERY, Happening::Eligible { node, life, epoch });
        self.keep_heirs(node);
    }

    /// A leader's gate, for whoever looks.
    #[must_use]
    pub fn gate_open(&self, node: usize) -> bool {
        let at = &self.nodes[node];
        let gate = at.process.as_ref().map_or(Moment::NEVER, |process| process.gate);
        at.local(self.now) < gate
    }
}
