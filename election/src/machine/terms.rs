//! By which terms acknowledgements are given, and how the voters, the write quorum and the
//! durability change (sync).
//!
//! A change has four steps, and an acknowledgement satisfies the old ruling *and* the new one from
//! before the first until after the last:
//! 1. Both terms are in force, and everything acknowledged before that is durable on the new
//!    quorum too (`covered`). Otherwise a successor that only knows the new voters could lack it.
//! 2. The config is written, comparing epoch, leader and the config before. Once that was sent
//!    it may happen at any time, so there is no way back to the old ruling alone: it is tried again
//!    until a view shows it, or this leadership ends.
//! 3. The new config is durable on the disks of an old write quorum, so that whoever rebuilds a
//!    lost coordinator from all voters of the newest config it finds does find this one.
//! 4. Only then do the new terms stand alone.
//!
//! The hazard of each step is in `chaos`' mutants: skip one, and the simulator loses a write.

use std::collections::BTreeMap;

use crate::machine::{Effect, Machine, Moment, OnQuorumLoss, Report};
use crate::values::{Config, Durability, Member, Request, Ruling, Terms, majority};
use crate::view::View;

/// A voter that is not registered for so many ttls may lose its seat to one that is.
const GONE_TTLS: u32 = 4;

/// What our own replica acknowledges by.
#[derive(Debug, Default)]
pub(super) struct InForce {
    /// What it was told last.
    told: Option<Terms>,
    /// A change under way.
    change: Option<Change>,
    /// Voters that are not registered, and since when.
    gone: BTreeMap<Member, Moment>,
}

#[derive(Debug)]
struct Change {
    old: Ruling,
    new: Ruling,
    /// The transaction was sent, and may happen at any time.
    sent: bool,
}

impl Machine {
    /// Tells our replica by which terms to acknowledge, and moves a change on.
    pub(super) fn review_terms(&mut self, effects: &mut Vec<Effect>) {
        let leads = self.leads().is_some();
        let (Some(view), Some(report), true) = (self.view.clone(), self.report.clone(), leads)
        else {
            self.terms = InForce::default();
            return;
        };
        // A coordinator that lost its data changes nothing of what is in force.
        let Some(config) = view.config.as_ref().map(|config| &config.value) else { return };
        self.note_gone(&view, config);
        let wanted = self.wanted(&view, config, &report);
        let done = |change: &Change| {
            config.ruling() == change.new && is_stored(change, &view, config, &report)
        };
        match &mut self.terms.change {
            Some(change) if done(change) => self.terms.change = None,
            Some(change) if !change.sent && config.ruling() != change.new => {
                if wanted == change.old {
                    self.terms.change = None;
                } else {
                    change.new = wanted;
                }
            }
            Some(_) => {}
            None if wanted != config.ruling() => {
                let old = config.ruling();
                self.terms.change = Some(Change { old, new: wanted, sent: false });
            }
            None => {}
        }
        let terms = match &self.terms.change {
            Some(change) if mutant!("voters-changed-without-the-old-quorum") => {
                Terms(vec![change.new.term()])
            }
            Some(change) => Terms(vec![change.old.term(), change.new.term()]),
            None => Terms(vec![config.ruling().term()]),
        };
        if self.terms.told.as_ref() != Some(&terms) {
            self.terms.told = Some(terms.clone());
            effects.push(Effect::Terms(terms));
        }
    }

    /// The config to write for the change under way, once it may be written; none if it is.
    pub(super) fn config_due(&self, config: &Config) -> Option<Config> {
        let change = self.terms.change.as_ref()?;
        let covered = self
            .report
            .as_ref()
            .is_some_and(|report| report.covered.is_some() && report.covered == self.terms.told);
        let covered = covered || mutant!("voters-changed-before-they-have-it-all");
        let due = config.ruling() != change.new && (change.sent || covered);
        due.then(|| config.ruled(&change.new))
    }

    /// The config of [`Machine::config_due`] was sent.
    pub(super) fn config_sent(&mut self) {
        if let Some(change) = &mut self.terms.change {
            change.sent = true;
        }
    }

    /// When a leader without a quorum may degrade, or a gone voter's seat may be given away.
    pub(super) fn terms_wake(&self) -> Option<Moment> {
        let since = self.leadership.since().filter(|_| self.leadership.by_quorum())?;
        let heard = self.report.as_ref().map_or(since, |report| report.quorum_heard.max(since));
        let lost = (self.settings.on_quorum_loss == OnQuorumLoss::Degrade)
            .then(|| heard + self.settings.ttl);
        let gone = self.terms.gone.values().map(|since| *since + self.settings.ttl * GONE_TTLS);
        gone.chain(lost).filter(|at| *at > self.now).min()
    }

    /// For how long this leader has not heard a write quorum, if it does not (sync).
    pub(super) fn quorum_lost(&self) -> Option<std::time::Duration> {
        let since = self.leadership.since().filter(|_| self.leadership.by_quorum())?;
        let heard = self.report.as_ref()?.quorum_heard.max(since);
        let lost = self.now.since(heard);
        (lost >= self.settings.suspect_after).then_some(lost)
    }

    fn note_gone(&mut self, view: &View, config: &Config) {
        let here = |member: &Member| {
            let replica = view.replicas.get(member.node.as_str());
            replica.is_some_and(|replica| replica.value.volume == member.volume)
        };
        self.terms.gone.retain(|member, _| config.voters.contains(member) && !here(member));
        for member in config.voters.iter().filter(|member| !here(member)) {
            self.terms.gone.entry(member.clone()).or_insert(self.now);
        }
    }

    /// What the ruling should be.
    fn wanted(&self, view: &View, config: &Config, report: &Report) -> Ruling {
        let mut ruling = config.ruling();
        let me = self.member(report);
        if !config.is_sync() {
            if self.settings.durability == Durability::Sync {
                ruling.durability = Durability::Sync;
                ruling.voters = vec![me];
                let others = report.caught_up.iter().take(self.settings.voters.saturating_sub(1));
                ruling.voters.extend(others.cloned());
                ruling.voters.sort();
                ruling.write_quorum = self.quorum_of(&ruling.voters);
            }
            return ruling;
        }
        let held = |voter: &&Member| **voter == me || report.caught_up.contains(voter);
        let copies = ruling.voters.iter().filter(held).count();
        if ruling.degraded {
            // Not before so many are back that writes go on when the quorum is asked for again.
            let quorum = self.quorum_of(&ruling.voters);
            if copies >= usize::try_from(quorum).unwrap_or(usize::MAX) {
                ruling.write_quorum = quorum;
                ruling.degraded = false;
            }
            return ruling;
        }
        if self.degrades(view, report) {
            ruling.write_quorum = 1;
            ruling.degraded = true;
            return ruling;
        }
        if let Some(voters) = self.reseated(&ruling.voters, report) {
            ruling.voters = voters;
        }
        ruling.write_quorum = self.quorum_of(&ruling.voters);
        ruling
    }

    fn quorum_of(&self, voters: &[Member]) -> u32 {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        // A quorum that is asked for before there are so many voters would let none of them join.
        let asked = self.settings.write_quorum.map(|asked| asked.min(count(voters.len())));
        asked.unwrap_or(count(majority(voters.len())))
    }

    /// Whether the leader may go on with fewer copies than it was asked to keep.
    fn degrades(&self, view: &View, report: &Report) -> bool {
        let Some(since) = self.leadership.since() else { return false };
        let epoch = self.leadership.epoch();
        let asked = view.requests.values().any(|request| {
            matches!(&request.value, Request::Degrade { epoch: of, .. } if Some(*of) == epoch)
        });
        let heard = report.quorum_heard.max(since);
        let lost = self.now >= heard + self.settings.ttl;
        lost && (asked || self.settings.on_quorum_loss == OnQuorumLoss::Degrade)
    }

    /// The voters with one seat given to another copy, if one should be. One at a time: each
    /// change is safe by itself, and the next is decided by what it led to.
    fn reseated(&self, voters: &[Member], report: &Report) -> Option<Vec<Member>> {
        let seats = self.settings.voters.max(1);
        let candidate = report.caught_up.iter().find(|member| !voters.contains(member));
        let mut reseated = voters.to_vec();
        let gone = |member: &&Member| {
            let since = self.terms.gone.get(member);
            since.is_some_and(|since| self.now >= *since + self.settings.ttl * GONE_TTLS)
        };
        match candidate {
            Some(new) => {
                let former = voters.iter().position(|voter| voter.node == new.node);
                let left = voters
                    .iter()
                    .find(gone)
                    .and_then(|member| voters.iter().position(|voter| voter == member));
                match former.or_else(|| left.filter(|_| voters.len() >= seats)) {
                    Some(at) => reseated[at] = new.clone(),
                    None if voters.len() < seats => reseated.push(new.clone()),
                    None => return None,
                }
            }
            None if voters.len() > seats => {
                let at = voters.iter().find(gone)?;
                reseated.retain(|voter| voter != at);
            }
            None => return None,
        }
        reseated.sort();
        Some(reseated)
    }
}

/// Whether the config that the change made is durable where a rebuild would find it: on an old
/// write quorum. Nobody has that when the change is *because* there is none; then this disk must
/// do, and a rebuild asks for every voter's.
fn is_stored(change: &Change, view: &View, config: &Config, report: &Report) -> bool {
    let mark = config.mark();
    if mutant!("new-terms-alone-before-they-are-stored") {
        return true;
    }
    if report.stored.as_ref().is_none_or(|stored| stored.mark() < mark) {
        return false;
    }
    let needed = match change.old.durability {
        Durability::Sync if !change.new.degraded => change.old.write_quorum,
        _ => return true,
    };
    let holders = change.old.voters.iter().filter(|voter| {
        if voter.volume == report.volume {
            return true;
        }
        let replica = view.replicas.get(voter.node.as_str()).map(|replica| &replica.value);
        replica.is_some_and(|replica| {
            replica.volume == voter.volume && replica.stored.is_some_and(|stored| stored >= mark)
        })
    });
    // More than there are voters of is asked for by a ruling under which nothing was acknowledged.
    let needed = usize::try_from(needed).unwrap_or(usize::MAX).min(change.old.voters.len());
    holders.count() >= needed
}
