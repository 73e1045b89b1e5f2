//! Who leads, decided: a state machine that is told what happened and says what to do.
//!
//! `(state, now, event) → effects`, without a clock, a socket or a task; [`crate::runner`] carries
//! it out, and the simulator runs many of them in a hostile world. What a machine wants is always
//! computed anew from what it knows (`judge`), never from where it was in some sequence: a
//! transaction's outcome is not believed but looked up in the next view, so that a lost answer, a
//! late one and a plain one are the same case.
//!
//! The hazards, and where they are met:
//! - A leader that cannot reach the coordinator must stop *before* another may start: the gate's
//!   deadline (`lease`) counts from when the last acknowledged request was sent.
//! - An epoch belongs to one process: leadership is recognised by this process' nonce, and an
//!   epoch that ended here is never taken up again (`leadership`).
//! - A stale replica must not win: ballots carry positions read after a durable promise
//!   (`tally`).
//!
//! In async durability the lease decides that a leader is gone. In sync its voters do: enough of
//! them must miss it at once (`suspicion`), they promise, and from then on no write quorum is left
//! to it, whatever its lease or its clock say. Which of them leads next their ballots decide
//! (`tally`); by which terms acknowledgements are given, and how those change, is in `terms`. A
//! coordinator that lost its data gets the config back from a replica's disk (`rebuild`).

mod directive;
mod event;
mod judge;
mod leadership;
mod lease;
mod moment;
mod rebuild;
mod suspicion;
mod tally;
mod terms;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use directive::{Blocked, Directive, Fall, Waiting};
pub use event::{Effect, Event, Fate, Report, Ticket};
pub use moment::Moment;

use crate::coordinator::LeaseId;
use crate::values::{
    ClusterId, Durability, Epoch, Lineage, MaxLag, NodeName, Nonce, Position, Tags, UnixMs,
    VolumeId,
};
use crate::view::View;
use judge::Judgement;
use leadership::Leadership;
use lease::Lease;
use tally::Tally;
use writes::Wish;

/// A registration that differs only in numbers is written this often at most.
const REGISTER_EVERY: Duration = Duration::from_millis(500);

/// [`Settings::suspect_after`] where nothing else is asked for.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// [`Settings::voters`] where nothing else is asked for.
pub const VOTERS: usize = 3;

/// After a transaction without an answer the next comes after this part of the ttl.
const RETRY_PARTS: u32 = 20;

/// Who this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node that it runs on.
    pub node: NodeName,
    /// Where other replicas reach it, as `host:port`.
    pub peer: String,
    /// Where its API listens, as `host:port`, if it does.
    pub api: Option<String>,
    /// Its program's version.
    pub version: String,
    /// What its operator says of it.
    pub tags: Tags,
    /// Random, and new with every start of the process: an epoch belongs to one incarnation.
    pub incarnation: Nonce,
    /// Random: the id of the cluster, should this process found one.
    pub cluster_if_founded: ClusterId,
}

/// How long things take. Durations are of the boot clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The ttl to ask the coordinator for; it may return more, and that counts.
    pub ttl: Duration,
    /// What killing the service and its mount may take: the gate shuts this long before the lease
    /// can end.
    pub kill_margin: Duration,
    /// How long the best candidate may be silent before the next one bids.
    pub patience: Duration,
    /// How long replicas that are not there are waited for by one that never saw the last leader:
    /// after a power cut everybody starts at once, and the best may be the slowest.
    pub patience_cold: Duration,
    /// The bound on what a failover loses, written when the cluster is founded.
    pub max_lag: MaxLag,
    /// The durability written when the cluster is founded. A leader that is set to `sync` makes an
    /// async cluster one; the other way only an operator goes.
    pub durability: Durability,
    /// How long a voter may not hear its leader before it would elect another (sync).
    pub suspect_after: Duration,
    /// So many replicas shall be voters (sync), if there are as many.
    pub voters: usize,
    /// How many copies make an op committed; none is a majority of the voters.
    pub write_quorum: Option<u32>,
    /// What becomes of writes while there are too few voters.
    pub on_quorum_loss: OnQuorumLoss,
}

/// What a leader does that has no write quorum for longer than a ttl.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnQuorumLoss {
    /// Writes wait until the voters are back.
    #[default]
    Wait,
    /// Fewer copies are kept until then; the config says so first.
    Degrade,
}

impl Settings {
    /// Sound times for a ttl.
    #[must_use]
    pub fn for_ttl(ttl: Duration) -> Settings {
        Settings {
            ttl,
            kill_margin: ttl / 4,
            patience: ttl / 2,
            patience_cold: ttl * 2,
            max_lag: MaxLag::default(),
            durability: Durability::Async,
            suspect_after: SUSPECT_AFTER,
            voters: VOTERS,
            write_quorum: None,
            on_quorum_loss: OnQuorumLoss::Wait,
        }
    }
}

/// Which part of a transaction's way we are on. Nothing is decided by a view older than the
/// outcome of our own last write.
#[derive(Debug)]
enum Transaction {
    None,
    Asked(Ticket),
    /// There is an outcome; the next view shows it.
    Looking,
}

/// The log sealed, and where it ends.
#[derive(Clone, Debug)]
struct Promise {
    volume: VolumeId,
    through: Epoch,
    position: Position,
    lineage: Lineage,
}

/// One replica's part in the election.
#[derive(Debug)]
pub struct Machine {
    identity: Identity,
    settings: Settings,
    now: Moment,
    wall: UnixMs,
    lease: Lease,
    view: Option<Arc<View>>,
    /// When the read that returned the view was sent.
    viewed_at: Moment,
    silence: Option<String>,
    report: Option<Report>,
    /// When the report began to say that it has the config that it has on its disk.
    stored_at: Moment,
    transaction: Transaction,
    tickets: Ticket,
    /// No transaction before this.
    retry_at: Moment,
    promise: Option<Promise>,
    /// What the disk had vowed when this process began.
    vow_found: Option<Epoch>,
    /// The epoch of our own newest ballot that a view has shown.
    cast_seen: Option<Epoch>,
    promising: Option<(VolumeId, Epoch)>,
    leadership: Leadership,
    /// The epoch whose leader's key this process has seen, registered all the while since: who is
    /// not registered now was gone before, or went with the leader.
    witnessed: Option<Epoch>,
    /// Who led last, and the last position that it registered.
    predecessor: Option<(NodeName, Option<Position>)>,
    election_since: Option<Moment>,
    tally: Option<(Tally, Moment)>,
    /// Whom our own replica, leading, wants in or out.
    eligible_wanted: BTreeMap<NodeName, (VolumeId, bool)>,
    registered_at: Moment,
    /// The newest epoch in the view, and since when it is that.
    epoch_seen: (Epoch, Moment),
    /// By which terms our own replica, leading, acknowledges.
    terms: terms::InForce,
    /// Since when a voter has promised our own epoch away (sync).
    muted_since: Option<Moment>,
    /// Since when the coordinator lacks what our own leadership knows (sync).
    lost_since: Option<Moment>,
    directive: Option<Directive>,
    gate: Moment,
    wake: Moment,
}

impl Machine {
    /// A process that has just started.
    #[must_use]
    pub fn new(identity: Identity, settings: Settings) -> Machine {
        Machine {
            lease: Lease::new(settings.ttl, settings.kill_margin),
            identity,
            settings,
            now: Moment::NEVER,
            wall: UnixMs::default(),
            view: None,
            viewed_at: Moment::NEVER,
            silence: None,
            report: None,
            stored_at: Moment::NEVER,
            transaction: Transaction::None,
            tickets: Ticket::default(),
            retry_at: Moment::NEVER,
            promise: None,
            vow_found: None,
            cast_seen: None,
            promising: None,
            leadership: Leadership::default(),
            witnessed: None,
            predecessor: None,
            election_since: None,
            tally: None,
            eligible_wanted: BTreeMap::new(),
            registered_at: Moment::NEVER,
            epoch_seen: (Epoch::default(), Moment::NEVER),
            terms: terms::InForce::default(),
            muted_since: None,
            lost_since: None,
            directive: None,
            gate: Moment::NEVER,
            wake: Moment::NEVER,
        }
    }

    /// When [`Event::Tick`] is due next, if nothing else happens before.
    #[must_use]
    pub fn wake(&self) -> Moment {
        self.wake
    }

    /// The epoch that this process leads in, if it does.
    #[must_use]
    pub fn leads(&self) -> Option<Epoch> {
        self.leadership.epoch()
    }

    /// The lease that this process' keys go with, to be ended when the process leaves.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        self.lease.id()
    }

    /// Takes in one event and says what is to be done. `now` never runs backwards; `wall` is only
    /// written down for people.
    pub fn step(&mut self, now: Moment, wall: UnixMs, event: Event) -> Vec<Effect> {
        debug_assert!(now >= self.now, "the boot clock does not run backwards");
        self.now = now;
        self.wall = wall;
        let mut effects = Vec::new();
        self.take_in(event, &mut effects);
        effects.extend(self.lease.ask(now));
        self.review_leadership();
        self.review_election();
        self.set_gate(&mut effects);
        self.review_terms(&mut effects);
        let Judgement { directive, mut wish, mut wake } = self.judge();
        self.direct(directive, &mut effects);
        if wish.is_none() {
            (wish, wake) = self.judge_registration(wake);
        }
        if let Some(wish) = wish {
            self.act(wish, &mut effects);
        }
        // One reason to wake is always there: the lease, or an answer that is being waited for,
        // which every call of a coordinator has within a quarter of the ttl.
        let wakes = [
            wake,
            self.lease.wake(),
            self.gate_wake(),
            self.retry_wake(),
            self.suspicion_wake(),
            self.terms_wake(),
        ];
        self.wake = wakes.into_iter().flatten().min().unwrap_or(now + self.settings.ttl / 4);
        effects
    }

    fn take_in(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Viewed { sent, view } => self.viewed(sent, view),
            Event::Unreadable(why) => self.silence = Some(why),
            Event::Transacted(ticket, fate) => self.transacted(ticket, &fate, effects),
            Event::Granted { sent, grant } => self.lease.granted(sent, grant),
            Event::KeptAlive { sent, lease, ttl } => self.lease.kept(sent, lease, ttl),
            Event::LeaseUnanswered(_) => self.lease.unanswered(self.now),
            Event::LeaseGone(lease) => {
                if self.lease.is(Some(lease)) {
                    self.lease_gone();
                }
            }
            Event::Report(report) => {
                let mark = |report: &Report| report.stored.as_ref().map(|config| config.mark());
                if self.report.as_ref().and_then(mark) != mark(&report) {
                    self.stored_at = self.now;
                }
                self.vow_found.get_or_insert(report.promised);
                self.report = Some(*report);
            }
            Event::Promised { volume, through, position, lineage } => {
                if self.promising == Some((volume, through)) {
                    self.promising = None;
                }
                self.promise = Some(Promise { volume, through, position, lineage });
            }
            Event::Eligible { node, volume, eligible } => {
                self.eligible_wanted.insert(node, (volume, eligible));
            }
            Event::Resign { epoch, why } => {
                if self.leads() == Some(epoch) {
                    self.leadership.end(Fall::Resigned(why));
                }
            }
            Event::Tick => {}
        }
    }

    /// Whatever became of it: the next view knows better, also when the outcome was plain.
    fn transacted(&mut self, ticket: Ticket, fate: &Fate, effects: &mut Vec<Effect>) {
        if !matches!(self.transaction, Transaction::Asked(asked) if asked == ticket) {
            return;
        }
        self.transaction = Transaction::Looking;
        effects.push(Effect::Read);
        match fate {
            Fate::Done | Fate::Refused => {}
            Fate::LeaseGone => self.lease_gone(),
            // A coordinator that refuses us for good must not be asked as fast as it answers.
            Fate::Unknown(_) => self.retry_at = self.now + self.settings.ttl / RETRY_PARTS,
        }
    }

    fn lease_gone(&mut self) {
        self.lease.gone(self.now);
        // In sync nobody leads without the ballots of voters that hear this leader, so it goes on
        // as long as it hears them, and puts its keys again with the next lease.
        if !self.leadership.by_quorum() {
            self.leadership.end(Fall::LeaseGone);
        }
        // If the coordinator was away for so long, everybody's lease is gone: who is not there
        // now may be back in a moment, the old leader with the best position among them.
        self.witnessed = None;
    }

    fn viewed(&mut self, sent: Moment, view: Arc<View>) {
        self.viewed_at = self.viewed_at.max(sent);
        let epoch = view.epoch.as_ref().map(|taken| taken.value.epoch).unwrap_or_default();
        if epoch != self.epoch_seen.0 {
            self.epoch_seen = (epoch, self.now);
        }
        if matches!(self.transaction, Transaction::Looking) {
            self.transaction = Transaction::None;
        }
        self.silence = None;
        // Only ours of this process: a ballot of a former one is covered by its vow.
        let cast = view.ballots.get(self.identity.node.as_str()).map(|seen| seen.value.promised);
        let promised = self.promise.as_ref().map(|promise| promise.through.next());
        self.cast_seen = self.cast_seen.max(cast.filter(|cast| Some(*cast) == promised));
        if let Some(leader) = &view.leader {
            let leader = &leader.value;
            self.witnessed = Some(leader.epoch);
            let seen = view.replicas.get(leader.node.as_str()).map(|seen| seen.value.position);
            self.predecessor = Some((leader.node.clone(), seen));
        }
        self.view = Some(view);
    }

    /// Notes since when somebody could be elected and since when the ballots are as they are.
    fn review_election(&mut self) {
        let Some(view) = self.view.clone().filter(|view| self.election_is_open(view)) else {
            self.election_since = None;
            self.tally = None;
            return;
        };
        self.election_since.get_or_insert(self.now);
        let Some(config) = &view.config else { return };
        let counted = Tally::count(&view, &config.value, self.sealed(&view));
        if self.tally.as_ref().is_none_or(|(before, _)| *before != counted) {
            self.tally = Some((counted, self.now));
        }
    }

    /// The highest epoch that anything here or in the view is of: the next one is free.
    fn sealed(&self, view: &View) -> Epoch {
        let taken = view.epoch.iter().map(|taken| taken.value.epoch);
        let ours = self.report.iter().flat_map(|own| {
            // Not one that a newer view than this showed: its epoch may be our own, just won.
            let stored = own.stored.as_ref().filter(|_| self.viewed_at >= self.stored_at);
            let stored = stored.map(|config| config.mark().epoch).unwrap_or_default();
            [own.promised, own.position.epoch, stored, self.balloted_for(view)]
        });
        let cluster = view.config.as_ref().map(|config| config.value.cluster);
        let theirs = view
            .replicas
            .values()
            .map(|replica| &replica.value)
            .filter(|replica| replica.cluster.is_some() && replica.cluster == cluster)
            .flat_map(|replica| {
                let stored = replica.stored.map(|mark| mark.epoch).unwrap_or_default();
                [replica.promised, replica.position.epoch, stored]
            });
        // A ballot is *for* an epoch: everything before that is sealed.
        let ballots =
            view.ballots.values().map(|ballot| Epoch(ballot.value.promised.0.saturating_sub(1)));
        if mutant!("epochs-counted-by-the-coordinator-alone") {
            return taken.max().unwrap_or_default();
        }
        taken.chain(ours).chain(theirs).chain(ballots).max().unwrap_or_default()
    }

    /// The newest epoch that a ballot of ours was for, if somebody may have taken it of whom the
    /// view says nothing: a coordinator restored from a backup forgot it. A vow of a former process
    /// may have been one for the epoch after it, and so was our own ballot, once it was there and
    /// is not there any more. In a view that forgot nothing this is at most the epoch that it says.
    fn balloted_for(&self, view: &View) -> Epoch {
        let found = self.vow_found.filter(|found| *found > Epoch(0)).map(Epoch::next);
        let seen = view.ballots.get(self.identity.node.as_str()).map(|seen| seen.value.promised);
        let forgotten = self.cast_seen.filter(|cast| seen.is_none_or(|seen| seen < *cast));
        found.max(forgotten).unwrap_or_default()
    }

    /// Shuts the gate the moment that leadership ends, and pushes it ahead while it lasts.
    fn set_gate(&mut self, effects: &mut Vec<Effect>) {
        let gate = match self.leads() {
            Some(_) => self.leading_until(),
            None => Moment::NEVER,
        };
        if gate != self.gate {
            self.gate = gate;
            effects.push(Effect::Gate(gate));
        }
    }

    /// Until when this leader may answer, if nothing more is heard.
    ///
    /// In async that is what its lease leaves. In sync no acknowledgement depends on time; what
    /// does is how long reads here may be older than what the next leader acknowledged. A view
    /// that shows our epoch as the newest proves that there was no next one when it was asked for,
    /// and so does every word that a write quorum answered: of each quorum that elects, one is in
    /// it, and it had not promised then.
    pub(super) fn leading_until(&self) -> Moment {
        if !self.leadership.by_quorum() {
            return self.lease.deadline();
        }
        let heard = self.report.as_ref().map_or(Moment::NEVER, |report| report.quorum_heard);
        let shown_at = if mutant!("any-view-keeps-a-leader") {
            self.viewed_at
        } else {
            self.leadership.shown_at()
        };
        shown_at.max(heard) + self.settings.ttl.saturating_sub(self.settings.kill_margin)
    }

    fn gate_wake(&self) -> Option<Moment> {
        (self.gate != Moment::NEVER).then_some(self.gate)
    }

    fn retry_wake(&self) -> Option<Moment> {
        (self.retry_at > self.now).then_some(self.retry_at)
    }

    fn direct(&mut self, directive: Directive, effects: &mut Vec<Effect>) {
        if self.directive.as_ref() != Some(&directive) {
            self.directive = Some(directive.clone());
            effects.push(Effect::Direct(directive));
        }
    }

    fn act(&mut self, wish: Wish, effects: &mut Vec<Effect>) {
        if let Wish::Promise(through) = wish {
            let asked = self.report.as_ref().map(|report| (report.volume, through));
            if self.promising != asked {
                self.promising = asked;
                effects.push(Effect::Promise(through));
            }
            return;
        }
        if matches!(self.transaction, Transaction::None)
            && self.now >= self.retry_at
            && let Some((compares, writes)) = self.transaction(&wish)
        {
            match wish {
                Wish::Register => self.registered_at = self.now,
                Wish::Reconfigure => self.config_sent(),
                _ => {}
            }
            self.tickets.0 += 1;
            self.transaction = Transaction::Asked(self.tickets);
            effects.push(Effect::Transact(self.tickets, compares, writes));
        }
    }
}
