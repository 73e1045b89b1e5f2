//! What this replica should be and what it wants written, from what the machine knows right now.
//!
//! Read top to bottom it is the rule book: each function either knows the answer or hands on.

use std::time::Duration;

use crate::machine::suspicion::suspicion;
use crate::machine::writes::Wish;
use crate::machine::{Blocked, Directive, Machine, Moment, REGISTER_EVERY, Report, Waiting, tally};
use crate::values::{ClusterId, Config, Durability, Epoch, Leader, Member, NodeName, Replica};
use crate::view::{Stored, View};

/// What to be, what to have written next, and when to look again although nothing happened.
pub(super) struct Judgement {
    pub(super) directive: Directive,
    pub(super) wish: Option<Wish>,
    pub(super) wake: Option<Moment>,
}

impl Judgement {
    pub(super) fn be(directive: Directive) -> Judgement {
        Judgement { directive, wish: None, wake: None }
    }

    pub(super) fn freeze(waiting: Waiting) -> Judgement {
        Judgement::be(Directive::Freeze(waiting))
    }

    pub(super) fn wishing(self, wish: Wish) -> Judgement {
        Judgement { wish: Some(wish), ..self }
    }

    fn until(self, wake: Moment) -> Judgement {
        Judgement { wake: Some(wake), ..self }
    }
}

impl Machine {
    pub(super) fn judge(&self) -> Judgement {
        let Some(report) = &self.report else {
            return Judgement::freeze(Waiting::Report);
        };
        let Some(view) = &self.view else {
            let why = self.silence.clone().unwrap_or_else(|| "no answer yet".to_owned());
            return Judgement::freeze(Waiting::Coordinator(why));
        };
        if let Some((epoch, cluster)) = self.leadership.current() {
            return self.judge_leading(view, report, epoch, cluster);
        }
        if let Some(epoch) = report.leading {
            let why = self.leadership.fall_from(epoch);
            return Judgement::be(Directive::StepDown { epoch, why });
        }
        if let Some(blocked) = self.judge_membership(view, report) {
            return Judgement::be(Directive::Blocked(blocked));
        }
        if let Some(judgement) = self.judge_lost(view, report) {
            return judgement;
        }
        match (&view.leader, &view.config) {
            (leader, Some(config)) if config.value.is_sync() => {
                let leader = leader.as_ref().map(|leader| &leader.value);
                self.judge_by_quorum(view, report, leader, &config.value)
            }
            (Some(leader), Some(config)) => {
                self.judge_led(view, report, &leader.value, &config.value)
            }
            (None, Some(config)) => self.judge_election(view, report, &config.value),
            (Some(_), None) => {
                let why = "there is a leader's key, but no config".to_owned();
                Judgement::freeze(Waiting::Coordinator(why))
            }
            (None, None) => self.judge_first_start(view, report),
        }
    }

    fn judge_leading(
        &self,
        view: &View,
        report: &Report,
        epoch: Epoch,
        cluster: ClusterId,
    ) -> Judgement {
        let leading = Judgement::be(Directive::Lead { epoch, cluster });
        if self.leadership.by_quorum() {
            if let Some(since) = self.lost_since {
                // One that was deposed and has not heard of it, as the coordinator forgot that too,
                // would put its own back.
                return match self.heard_since(since) || mutant!("rebuilt-by-a-leader-unheard") {
                    true => leading.wishing(Wish::Rebuild),
                    false => leading,
                };
            }
            if view.leader.is_none() {
                return leading.wishing(Wish::Restore);
            }
            if let Some(since) = self.muted_since {
                // An election that is under way goes first.
                let renew_at = since + self.settings.suspect_after;
                return match self.election_is_open(view) {
                    // To be woken for what is past would be to be woken for ever.
                    true => leading,
                    false if self.now < renew_at => leading.until(renew_at),
                    false => leading.wishing(Wish::Renew),
                };
            }
        }
        let announced = self.own_key().is_some_and(|key| {
            let ready = report.ready && report.leading == Some(epoch);
            key.value.ready == ready && key.value.service == report.service
        });
        if !announced {
            return leading.wishing(Wish::Announce);
        }
        match &view.config {
            Some(config) if self.config_due(&config.value).is_some() => {
                leading.wishing(Wish::Reconfigure)
            }
            Some(config) if self.heirs_changed(&config.value) != config.value => {
                leading.wishing(Wish::Eligible)
            }
            _ => leading,
        }
    }

    /// Whether this volume has any place in this cluster.
    fn judge_membership(&self, view: &View, report: &Report) -> Option<Blocked> {
        if let Some(other) = view.replicas.get(self.identity.node.as_str())
            && !self.lease.is(other.lease)
            && other.value.volume != report.volume
        {
            let Replica { node, volume, .. } = other.value.clone();
            return Some(Blocked::NameTaken { node, volume });
        }
        let Some(config) = view.config.as_ref().map(|config| &config.value) else {
            return self.judge_lost_config(view, report);
        };
        match report.cluster {
            Some(ours) if ours != config.cluster => {
                Some(Blocked::ForeignCluster { ours, theirs: config.cluster })
            }
            // The founder may have died between taking the first epoch and noting the cluster in
            // its volume; the config names its volume, and that is proof enough.
            None if report.position.seq.0 > 0
                && !is_eligible(config, &self.member(report))
                && !config.is_voter(&self.identity.node, report.volume) =>
            {
                Some(Blocked::ForeignContent(config.cluster))
            }
            _ => None,
        }
    }

    /// A volume of a cluster whose config nobody here has.
    fn judge_lost_config(&self, view: &View, report: &Report) -> Option<Blocked> {
        let kept = view.replicas.values().any(|replica| replica.value.stored.is_some());
        if kept || report.stored.is_some() {
            return None;
        }
        let theirs = view
            .replicas
            .values()
            .find_map(|replica| Some((replica.value.node.clone(), replica.value.cluster?)));
        let ours = report.cluster.map(|cluster| (self.identity.node.clone(), cluster));
        let (node, cluster) = ours.or(theirs)?;
        Some(Blocked::ConfigLost { node, cluster })
    }

    /// Sync: the leader's key says whom to follow; whether it stands is for its voters to say.
    fn judge_by_quorum(
        &self,
        view: &View,
        report: &Report,
        leader: Option<&Leader>,
        config: &Config,
    ) -> Judgement {
        let operator = tally::Wish::of(view);
        let stands = config.is_voter(&self.identity.node, report.volume)
            || operator.forces(&self.identity.node);
        // One who hears the leader promises nothing, whatever the others say.
        let misses = self.suspects().is_some()
            || mutant!("promises-although-it-hears")
            || operator.allows_loss(&self.identity.node);
        if stands && misses && self.election_is_open(view) {
            return self.judge_election(view, report, config);
        }
        if let Some(leader) = leader {
            return self.judge_led(view, report, leader, config);
        }
        match &self.directive {
            // The key is gone and the stream is not: the leader will put it again.
            Some(Directive::Follow { epoch, .. }) if self.hears(report, *epoch) => {
                Judgement::be(self.directive.clone().expect("it was just looked at"))
            }
            _ if !stands => {
                let voters = config.voters.iter().map(|voter| voter.node.clone()).collect();
                Judgement::freeze(Waiting::NotVoter(voters))
            }
            _ if !operator.lets_elect() => Judgement::freeze(Waiting::Paused),
            _ => {
                let (suspects, needed) = suspicion(view, config);
                Judgement::freeze(Waiting::Suspicion { suspects, needed })
            }
        }
    }

    fn judge_led(
        &self,
        view: &View,
        report: &Report,
        leader: &Leader,
        config: &Config,
    ) -> Judgement {
        if self.own_key().is_some() {
            // Given up, and wound up here: now others may have it, without waiting for the lease.
            return Judgement::freeze(Waiting::FormerKey).wishing(Wish::RemoveLeader);
        }
        if leader.node == self.identity.node && leader.volume == report.volume {
            // The key of this node's former process, with this very volume. That process is dead:
            // it held the volume's lock, we hold it now, and the kernel lets go of a lock only
            // with the last descriptor. What it mounted died with it, so its service cannot write
            // here, and nothing that it buffered can appear later. So the key guards nobody, and
            // there is no need to wait for its lease. The same name with *another* volume proves
            // nothing: that process may live on another machine.
            //
            // Registered first: whoever sees the key go must also see that we are there to vote.
            let freeze = Judgement::freeze(Waiting::FormerKey);
            return if self.registered(view).is_some() {
                freeze.wishing(Wish::RemoveLeader)
            } else {
                freeze
            };
        }
        Judgement::be(Directive::Follow {
            leader: leader.node.clone(),
            epoch: leader.epoch,
            peer: leader.peer.clone(),
            cluster: config.cluster,
        })
    }

    fn judge_election(&self, view: &View, report: &Report, config: &Config) -> Judgement {
        let operator = tally::Wish::of(view);
        let node = &self.identity.node;
        // A volume that belongs to no cluster is never let in by force: it is blank.
        let forced = operator.allows_loss(node)
            && report.cluster.is_some()
            && config.durability == Durability::Async;
        if !forced && !is_eligible(config, &self.member(report)) {
            let others = config.candidates().iter().map(|member| member.node.clone()).collect();
            return Judgement::freeze(match config.durability {
                Durability::Async => Waiting::NotEligible(others),
                Durability::Sync => Waiting::NotVoter(others),
            });
        }
        let tagged = self.identity.tags.nofailover && !operator.names(node);
        let unfit = tagged.then(|| "it is tagged nofailover".to_owned()).or(report.unfit.clone());
        // A voter's word on what it holds is needed in sync, also of one that is not to lead.
        if let (Some(why), false) = (&unfit, config.is_sync()) {
            return Judgement::freeze(Waiting::Unfit(why.clone()));
        }
        if !operator.lets_elect() {
            return Judgement::freeze(Waiting::Paused);
        }
        if let Some(not_yet) = self.judge_candidacy(view, report) {
            return not_yet;
        }
        if !self.has_cast(view, report) {
            return Judgement::freeze(Waiting::Outcome).wishing(Wish::Ballot);
        }
        match unfit {
            Some(why) => Judgement::freeze(Waiting::Unfit(why)),
            None => self.judge_ballots(view, config),
        }
    }

    /// What a candidate needs before it can vote; none once it has everything.
    fn judge_candidacy(&self, view: &View, report: &Report) -> Option<Judgement> {
        if report.building {
            return Some(Judgement::freeze(Waiting::Building));
        }
        if self.lease.usable(self.now).is_none() {
            return Some(Judgement::freeze(Waiting::Lease));
        }
        if self.registered(view).is_none() {
            return Some(Judgement::freeze(Waiting::Registration));
        }
        let sealed = self.sealed(view);
        let promised = self
            .promise
            .as_ref()
            .is_some_and(|it| it.volume == report.volume && it.through == sealed);
        (!promised)
            .then(|| Judgement::freeze(Waiting::Promise(sealed)).wishing(Wish::Promise(sealed)))
    }

    /// Whether our ballot is there as it should be.
    fn has_cast(&self, view: &View, report: &Report) -> bool {
        let seen = view.ballots.get(self.identity.node.as_str());
        seen.zip(self.ballot(report)).is_some_and(|(seen, ballot)| {
            seen.value.volume == ballot.volume
                && seen.value.promised == ballot.promised
                && seen.value.position == ballot.position
        })
    }

    fn judge_ballots(&self, view: &View, config: &Config) -> Judgement {
        let Some((tally, tallied_at)) = &self.tally else {
            return Judgement::freeze(Waiting::Outcome);
        };
        let Some(rank) = tally.rank(&self.identity.node) else {
            return Judgement::freeze(Waiting::Outcome);
        };
        let operator = tally::Wish::of(view);
        if !tally.has_everything(&self.identity.node) && !operator.allows_loss(&self.identity.node)
        {
            // No patience helps: what is missing here may have been acknowledged.
            return Judgement::freeze(match tally.better_than(&self.identity.node) {
                Some(best) if tally.ballots() >= tally.needed => Waiting::Better(best.clone()),
                _ => Waiting::Voters { ballots: tally.ballots(), needed: tally.needed },
            });
        }
        let since = self.election_since.unwrap_or(self.now);
        let latest = since + self.settings.patience_cold;
        let mut open_at = *tallied_at;
        let mut waiting_for = Vec::new();
        // In sync the ballots that are here are enough to know that nothing is missing, so nobody is
        // waited for, but for the one that a switchover is to.
        let waits = !config.is_sync() || tally.silent.iter().any(|node| operator.names(node));
        if waits && !tally.silent.is_empty() {
            // Counted anew for one who only now came back, but not for ever anew.
            open_at = (*tallied_at + self.settings.patience).min(latest.max(open_at));
            waiting_for.extend(tally.silent.iter().cloned());
        }
        if waits && !tally.absent.is_empty() && self.cold(view) {
            open_at = open_at.max(latest);
            waiting_for.extend(tally.absent.iter().cloned());
        }
        let turn: Duration = self.settings.patience * rank;
        let bid_at = if operator.forces(&self.identity.node) { self.now } else { open_at + turn };
        if self.now >= bid_at {
            return Judgement::freeze(Waiting::Outcome).wishing(Wish::TakeOver);
        }
        let waiting = match tally.order.first() {
            Some((best, _)) if rank > 0 => Waiting::Better(best.node.clone()),
            _ => Waiting::Ballots(waiting_for),
        };
        Judgement::freeze(waiting).until(bid_at)
    }

    /// This process has not been watching since the last leader led, so who is missing may still be starting.
    fn cold(&self, view: &View) -> bool {
        self.witnessed != view.epoch.as_ref().map(|taken| taken.value.epoch)
    }

    fn judge_first_start(&self, view: &View, report: &Report) -> Judgement {
        if self.identity.tags.nofailover {
            let why = "it is tagged nofailover, and there is no cluster yet".to_owned();
            return Judgement::freeze(Waiting::Unfit(why));
        }
        if let Some(why) = &report.unfit {
            return Judgement::freeze(Waiting::Unfit(why.clone()));
        }
        if let Some(not_yet) = self.judge_candidacy(view, report) {
            return not_yet;
        }
        if report.position.seq.0 == 0 {
            if let Some(founder) = founder_with_content(view) {
                return Judgement::freeze(Waiting::Founder(founder));
            }
            let found_at = self.election_since.unwrap_or(self.now) + self.settings.patience;
            if self.now < found_at {
                return Judgement::freeze(Waiting::FirstStart).until(found_at);
            }
        }
        Judgement::freeze(Waiting::Outcome).wishing(Wish::TakeOver)
    }

    /// Whether the registration is to be written, now or later. What others decide by goes out at
    /// once, what only people read at a moderate pace.
    pub(super) fn judge_registration(
        &self,
        wake: Option<Moment>,
    ) -> (Option<Wish>, Option<Moment>) {
        let taken = matches!(self.directive, Some(Directive::Blocked(Blocked::NameTaken { .. })));
        let (Some(view), Some(wanted), false) = (&self.view, self.registration(), taken) else {
            return (None, wake);
        };
        let Some(seen) = self.registered(view) else {
            return (Some(Wish::Register), wake);
        };
        let seen = Replica { time: wanted.time, ..seen.value.clone() };
        if seen == wanted {
            return (None, wake);
        }
        let decisive = |replica: &Replica| {
            let Replica {
                volume, cluster, role, building, promised, tags, suspects, stored, ..
            } = replica;
            (*volume, *cluster, *role, *building, *promised, *tags, *suspects, *stored)
        };
        let due = self.registered_at + REGISTER_EVERY;
        if decisive(&seen) != decisive(&wanted) || self.now >= due {
            return (Some(Wish::Register), wake);
        }
        (None, Some(wake.map_or(due, |wake| wake.min(due))))
    }

    /// Our registration in the view, if it goes with our lease.
    fn registered<'a>(&self, view: &'a View) -> Option<&'a Stored<Replica>> {
        let seen = view.replicas.get(self.identity.node.as_str())?;
        self.lease.is(seen.lease).then_some(seen)
    }

    pub(super) fn member(&self, report: &Report) -> Member {
        Member { node: self.identity.node.clone(), volume: report.volume }
    }
}

fn is_eligible(config: &Config, member: &Member) -> bool {
    config.candidates().contains(member)
}

/// A live replica that has a volume with content and may found the cluster with it.
fn founder_with_content(view: &View) -> Option<NodeName> {
    view.replicas
        .values()
        .map(|replica| &replica.value)
        .find(|replica| replica.position.seq.0 > 0 && !replica.building && !replica.tags.nofailover)
        .map(|replica| replica.node.clone())
}
