//! The follower's side: a session with one leader after another.
//!
//! Mirrors `src/replica/follow.rs`, `sync/src/replicate/follower.rs` and `intake.rs`: nothing that
//! the leader says is done before the follower came to the same verdict; an acknowledgement is
//! made of what is durable at that moment, and not sent once the epoch was promised away.

use std::time::Duration;

use mainstay_election::machine::Directive;
use mainstay_election::machine::Moment;
use mainstay_sync::op::Record;
use mainstay_sync::position::{Epoch, Lineage, Position, Seq, VolumeId};
use mainstay_sync::replicate::check::Expected;
use mainstay_sync::replicate::plan::{self, Leading, PROTOCOL, Refusal, Standing, Verdict};

use super::convert;
use super::node::{Following, Role};
use super::plan::Cue;
use super::session::{Message, Pipe, Session, Staged, Taker};
use super::world::{Happening, World};

/// `retry_first` and `retry_max` of `FollowerOptions`.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// The service that everybody here is of.
pub const SERVICE: &str = "sim";

impl World {
    /// `Directive::Follow`: from now on this leader, in this epoch.
    pub fn begin_following(&mut self, node: usize, directive: &Directive) {
        let Directive::Follow { leader, epoch, .. } = directive else { return };
        let epoch = convert::to_log_epoch(*epoch);
        let Some(leader) = self.nodes.iter().position(|other| other.name == *leader) else {
            return;
        };
        let life = self.nodes[node].life;
        if let Some(process) = &mut self.nodes[node].process {
            let pause = RETRY.0;
            process.role = Role::Following(Following { leader, epoch, session: None, pause });
            let soon = Duration::from_micros(100);
            self.later(soon, Happening::Dial { node, life, epoch });
        }
    }

    /// `Follower::stop`: after this nothing is written and nothing acknowledged.
    pub fn stop_following(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if let Role::Following(following) = &mut process.role {
            let session = following.session.take();
            process.role = Role::Idle;
            if let Some(session) = session {
                self.end_taker(session, "it follows no more");
            }
        }
    }

    /// `intake::session`: calls the leader.
    pub fn dial(&mut self, node: usize, epoch: Epoch) {
        let standing = self.standing(node);
        let id = self.id();
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(following) = process.following_mut() else { return };
        if following.epoch != epoch || following.session.is_some() {
            return;
        }
        following.session = Some(id);
        let leader = following.leader;
        let taker = Taker {
            heard: self.now,
            leading: None,
            verdict: None,
            copying: None,
            staged: None,
            expected: None,
            echo: Moment::NEVER,
        };
        let session = Session {
            follower: (node, life),
            leader,
            up: Pipe::default(),
            down: Pipe::default(),
            taker: Some(taker),
            server: None,
        };
        self.sessions.insert(id, session);
        self.send(id, true, Message::Hello(Box::new(standing)));
        self.later(super::wire::BEAT, Happening::Beat { session: id, up: true });
    }

    /// `Sink::standing` of the volume.
    fn standing(&self, node: usize) -> Standing {
        let (disk, process) = (&self.nodes[node].disk, &self.nodes[node].process);
        Standing {
            protocol: PROTOCOL,
            service: SERVICE.to_owned(),
            node: self.nodes[node].name.to_string(),
            cluster: disk.cluster,
            volume: disk.volume,
            lineage: disk.lineage().clone(),
            head: disk.head(),
            durable: disk.durable(),
            applied: process.as_ref().map_or(Seq(0), |process| process.touched),
            building: disk.building,
            // Some are of a build that knows none.
            deltas: !(self.plan.seed + node as u64).is_multiple_of(4),
            compared: false,
            promised: disk.promised,
            leader: disk.leader,
        }
    }

    /// The session is over at this end; another one comes after a pause.
    pub fn end_taker(&mut self, id: u64, why: &str) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (node, life) = session.follower;
        let Some(taker) = session.taker.take() else { return };
        self.tell(node, || format!("session {id} ends: {why}"));
        self.send(id, true, Message::Close { leaves: false });
        self.forget(id);
        let streamed = taker.expected.is_some();
        if self.nodes[node].life != life {
            return;
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(following) = process.following_mut() else { return };
        if following.session != Some(id) {
            return;
        }
        following.session = None;
        let pause = if streamed { RETRY.0 } else { following.pause };
        following.pause = (pause * 2).min(RETRY.1);
        let epoch = following.epoch;
        self.later(pause, Happening::Dial { node, life, epoch });
    }

    /// Something from the leader.
    pub fn taken(&mut self, id: u64, message: Message) {
        let (now, suspect_after) = (self.now, self.settings.suspect_after);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (node, _) = session.follower;
        let Some(taker) = &mut session.taker else { return };
        taker.heard = now;
        let epoch = taker.leading.as_ref().map(|leading| leading.epoch);
        let local = self.nodes[node].local(now);
        if let Some(epoch) = epoch
            && let Some(process) = &mut self.nodes[node].process
        {
            let silent = process.heard.is_none_or(|(of, at)| {
                of != epoch || at == Moment::NEVER || local.since(at) > suspect_after / 2
            });
            if silent {
                process.hears_since = local;
            }
            process.heard = Some((epoch, local));
            self.report_soon(node);
        }
        match message {
            Message::Welcome(leading, verdict) => self.welcomed(id, node, *leading, verdict),
            Message::Begin { position, lineage } => self.copy_begins(id, node, position, lineage),
            Message::Piece(places) => {
                if let Some(staged) = self.staged(id) {
                    staged.places.extend(places);
                    return;
                }
                for (seq, tag) in places {
                    // Whatever op is there by now: it is a copy being made.
                    let _ = self.nodes[node].disk.write_object(seq, tag);
                }
            }
            Message::End { through } => self.copy_is_there(id, node, through),
            Message::Started => self.started(id, node),
            Message::Records(records) => self.records(id, node, records),
            Message::Beat { committed, at } => self.beaten(id, node, committed, at),
            Message::Close { leaves } => {
                if leaves
                    && let Some(process) = &mut self.nodes[node].process
                    && let Some((_, at)) = &mut process.heard
                {
                    *at = Moment::NEVER;
                }
                self.end_taker(id, "the leader ended it");
                self.report(node);
            }
            _ => {}
        }
    }

    /// `agree` and what the verdict asks for.
    fn welcomed(&mut self, id: u64, node: usize, leading: Leading, verdict: Verdict) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(at_least) = process.following_mut().map(|it| it.epoch) else { return };
        let standing = self.standing(node);
        if let Verdict::Refuse(refusal) = verdict {
            if let Refusal::GivenTwice { epoch, .. } = refusal {
                self.decline(node, epoch);
            }
            return self.end_taker(id, "refused");
        }
        let agreed = plan::sound(&leading).is_ok()
            && leading.epoch >= at_least
            && plan::plan(&standing, &leading) == verdict;
        if !agreed {
            return self.end_taker(id, "its verdict is not ours");
        }
        self.tell(node, || format!("session {id} in epoch {}: {verdict:?}", leading.epoch));
        let Some(taker) = self.sessions.get_mut(&id).and_then(|it| it.taker.as_mut()) else {
            return;
        };
        let (epoch, volume) = (leading.epoch, leading.volume);
        taker.leading = Some(leading);
        taker.verdict = Some(verdict.clone());
        if !self.accept_leader(node, epoch, volume) {
            return self.end_taker(id, "its epoch is over here, or another's");
        }
        match verdict {
            Verdict::Stream { .. } => self.say_ready(id, node),
            Verdict::Truncate { after } => {
                let first = self.leading_of(id).map_or(Seq(0), |leading| leading.first);
                if !self.truncate(node, after) {
                    return self.end_taker(id, "the tail cannot be dropped now");
                }
                if first > after.next() {
                    return self.end_taker(id, "the leader's log does not cover what is left");
                }
                self.say_ready(id, node);
            }
            Verdict::SetAside { ancestor } => {
                self.checks.set_aside(&self.nodes[node], ancestor);
                let volume = VolumeId(self.rng.id());
                self.replace(node, volume, None, Position::default(), Lineage::default(), false);
                self.end_taker(id, "the volume is another one now");
            }
            Verdict::Copy { .. } => self.send(id, true, Message::Fetch { since: None }),
            Verdict::Delta { since } => {
                if self.settle(id, node, since) {
                    self.send(id, true, Message::Fetch { since: Some(since) });
                }
            }
            Verdict::Refuse(_) => {}
        }
    }

    /// `Volume::truncate_after`: none of the tail may have been applied, and the writer is waited
    /// for (here: the session is tried again).
    fn truncate(&mut self, node: usize, after: Seq) -> bool {
        let at = &mut self.nodes[node];
        let Some(process) = &mut at.process else { return false };
        let touched = process.touched > after && !mutant!("applied-tail-truncated");
        if touched || process.syncing.is_some() {
            return false;
        }
        at.disk.truncate(after);
        true
    }

    /// `Volume::begin_again`.
    fn replace(
        &mut self,
        node: usize,
        volume: VolumeId,
        cluster: Option<mainstay_sync::position::ClusterId>,
        at: Position,
        lineage: Lineage,
        building: bool,
    ) {
        let building = building && !mutant!("delta-complete-at-its-start");
        self.nodes[node].disk.begin_again(volume, cluster, at, lineage, building);
        if let Some(process) = &mut self.nodes[node].process {
            process.applied = at.seq;
            process.touched = at.seq;
            process.limit = process.committed_only.then_some(at.seq);
            process.syncing = None;
        }
        self.report(node);
    }

    fn say_ready(&mut self, id: u64, node: usize) {
        let disk = &self.nodes[node].disk;
        let (after, volume) = (disk.head(), disk.volume);
        self.send(id, true, Message::Ready { after, volume });
    }

    fn leading_of(&self, id: u64) -> Option<&Leading> {
        self.sessions.get(&id)?.taker.as_ref()?.leading.as_ref()
    }

    fn staged(&mut self, id: u64) -> Option<&mut Staged> {
        self.sessions.get_mut(&id)?.taker.as_mut()?.staged.as_mut()
    }

    /// `copy::fetch`, its beginning: from here on this is another volume, and incomplete.
    fn copy_begins(&mut self, id: u64, node: usize, position: Position, lineage: Lineage) {
        let Some(taker) = self.sessions.get_mut(&id).and_then(|it| it.taker.as_mut()) else {
            return;
        };
        if let Some(Verdict::Delta { since }) = taker.verdict {
            self.delta_begins(id, node, since, position, lineage);
            return self.cue(Cue::Fetching, node);
        }
        taker.copying = Some(None);
        let cluster = taker.leading.as_ref().map(|leading| leading.cluster);
        let volume = VolumeId(self.rng.id());
        self.replace(node, volume, cluster, position, lineage, true);
        self.cue(Cue::Fetching, node);
    }

    fn copy_is_there(&mut self, id: u64, node: usize, through: Position) {
        let Some(taker) = self.sessions.get_mut(&id).and_then(|it| it.taker.as_mut()) else {
            return;
        };
        let Some(staged) = &mut taker.staged else {
            taker.copying = Some(Some(through));
            return self.say_ready(id, node);
        };
        let through = match mutant!("delta-complete-before-its-records") {
            true => staged.to,
            false => through.max(staged.to),
        };
        staged.through = Some(through);
        let (after, volume) = (staged.to, self.nodes[node].disk.volume);
        self.send(id, true, Message::Ready { after, volume });
    }

    fn started(&mut self, id: u64, node: usize) {
        let head = self.nodes[node].disk.head().seq;
        let Some(taker) = self.sessions.get_mut(&id).and_then(|it| it.taker.as_mut()) else {
            return;
        };
        let Some(leading) = &taker.leading else { return };
        let head = taker.staged.as_ref().map_or(head, |staged| staged.to.seq);
        taker.expected = Some(Expected::new(leading.lineage.clone(), head));
        if let Some(process) = &mut self.nodes[node].process
            && let Some(following) = process.following_mut()
        {
            following.pause = RETRY.0;
        }
        self.finish_copy(id, node);
        self.acknowledge(node);
    }

    /// `Intake::take`: each record is passed, then taken.
    fn records(&mut self, id: u64, node: usize, records: Vec<Record>) {
        for record in records {
            let Some(taker) = self.sessions.get_mut(&id).and_then(|it| it.taker.as_mut()) else {
                return;
            };
            let (Some(leading), Some(expected)) = (&taker.leading, &mut taker.expected) else {
                return;
            };
            let epoch = leading.epoch;
            if expected.pass(&record).is_err() {
                return self.end_taker(id, "a record does not fit");
            }
            if let Some(staged) = &mut taker.staged {
                staged.records.push(record);
                continue;
            }
            if !self.append(node, epoch, record, false) {
                return self.end_taker(id, "the log does not take it");
            }
        }
        if mutant!("ack-before-durable") {
            self.acknowledge(node);
        }
        self.finish_copy(id, node);
    }

    /// `Intake::complete`: a copy is whole once the records that it needs are durable and applied.
    fn finish_copy(&mut self, id: u64, node: usize) {
        let Some(taker) = self.sessions.get_mut(&id).and_then(|it| it.taker.as_mut()) else {
            return;
        };
        if taker.staged.is_some() {
            return self.delta_grows(id, node);
        }
        let Some(Some(through)) = taker.copying else { return };
        let (may, durable) = (self.may_apply(node), self.nodes[node].disk.durable);
        if durable < through.seq || may < through.seq {
            return;
        }
        let Some(taker) = self.sessions.get_mut(&id).and_then(|it| it.taker.as_mut()) else {
            return;
        };
        taker.copying = None;
        self.apply_through(node, through.seq);
        let at = &mut self.nodes[node];
        at.disk.building = false;
        at.disk.checkpoint = through.seq;
        self.tell(node, || format!("its copy is whole at {through}"));
        self.checks.volume(&self.nodes[node]);
        self.checks.content(&self.nodes[node]);
        self.report(node);
        self.acknowledge(node);
    }

    /// `Intake::heard`: how far the leader is. In a session the lineages match, so what it
    /// committed is in this log as far as that reaches.
    fn beaten(&mut self, id: u64, node: usize, committed: Seq, at: Moment) {
        let Some(taker) = self.sessions.get_mut(&id).and_then(|it| it.taker.as_mut()) else {
            return;
        };
        taker.echo = taker.echo.max(at);
        if taker.expected.is_some() {
            self.allow_applier(node, committed);
            self.finish_copy(id, node);
        }
    }

    /// `acknowledge`: says what is safe here.
    pub fn acknowledge(&mut self, node: usize) {
        let at = &self.nodes[node];
        let Some(process) = &at.process else { return };
        let Role::Following(following) = &process.role else { return };
        let Some(id) = following.session else { return };
        let Some(taker) = self.sessions.get(&id).and_then(|it| it.taker.as_ref()) else { return };
        let (Some(leading), Some(_)) = (&taker.leading, &taker.expected) else { return };
        let copying = taker.copying.is_some() || taker.staged.is_some();
        let (epoch, echo) = (leading.epoch, taker.echo);
        let mut durable = at.disk.durable().seq;
        if mutant!("ack-before-durable") {
            durable = at.disk.head().seq;
        }
        // Asked after `durable` was read: a promise made in between covers it with its ballot.
        if at.disk.promised >= epoch && !mutant!("promises-do-not-bind") {
            return self.end_taker(id, "its epoch was promised away");
        }
        if copying {
            return self.finish_copy(id, node);
        }
        let ack = Message::Ack { epoch, durable, applied: process.applied, echo };
        self.send(id, true, ack);
        self.cue(Cue::Acknowledged, node);
    }
}
