//! What must hold in every world, looked at after everything that happens. It knows the model and
//! the nodes, and nothing of how the machine comes to its decisions.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_election::coordinator::Revision;
use mainstay_election::values::{
    Ballot, Config, Epoch, EpochTaken, Leader, Member, Nonce, Position, Request, Term, Terms,
    decode, keys,
};

use super::model::Model;
use super::node::{Disk, Node};

#[derive(Default)]
pub struct Checks {
    pub epochs: BTreeMap<Epoch, Nonce>,
    taken_at: BTreeMap<Epoch, Duration>,
    ttl: Duration,
    /// A hand other than a machine's removed the leader's key, so an open gate may be without one
    /// until its machine hears of that.
    pub meddled: bool,
    /// The newest op that a write quorum held when its leader acknowledged it (sync).
    pub acknowledged: Option<Position>,
    looked_at: Revision,
    config: Option<Config>,
    leader: Option<Leader>,
    /// When each ballot, by its revision, came into the world.
    ballots: BTreeMap<i64, Duration>,
    /// By node: the view that it last decided by, and when.
    pub decided: BTreeMap<String, (Revision, Duration)>,
}

impl Checks {
    pub fn new(ttl: Duration) -> Checks {
        Checks { ttl, ..Checks::default() }
    }

    pub fn all(
        &mut self,
        now: Duration,
        patience: Duration,
        model: &Model,
        nodes: &BTreeMap<String, Node>,
    ) {
        if self.looked_at != model.revision() {
            self.looked_at = model.revision();
            self.note_ballots(now, model);
            self.epochs_are_never_reused(now, patience, model);
            self.config = value(model, keys::CONFIG);
            self.leader = value(model, keys::LEADER);
        }
        self.one_gate(now, nodes);
    }

    /// An open gate is the newest leader's, and its key stands: so there is at most one.
    ///
    /// In sync a gate only bounds how old a read may be: a deposed leader's shuts within a ttl.
    fn one_gate(&self, now: Duration, nodes: &BTreeMap<String, Node>) {
        if self.config.as_ref().is_some_and(Config::is_sync) {
            for node in nodes.values().filter(|node| node.gate_open(now)) {
                let epoch = node.machine.as_ref().and_then(|machine| machine.leads());
                let later = self.taken_at.iter().find(|(taken, _)| Some(**taken) > epoch);
                assert!(
                    later.is_none_or(|(_, at)| now <= *at + self.ttl),
                    "{} would answer in {epoch:?}, long after {later:?}",
                    node.name
                );
            }
            return;
        }
        if self.meddled {
            assert!(nodes.values().filter(|node| node.gate_open(now)).count() <= 1);
            return;
        }
        for node in nodes.values().filter(|node| node.gate_open(now)) {
            let epoch = node.machine.as_ref().and_then(|machine| machine.leads());
            assert!(
                self.leader.as_ref().is_some_and(|leader| {
                    leader.node.as_str() == node.name && Some(leader.epoch) == epoch
                }),
                "{} would answer as the leader of {epoch:?}, but the key says {:?}",
                node.name,
                self.leader
            );
        }
    }

    fn note_ballots(&mut self, now: Duration, model: &Model) {
        for entry in model.contents().entries {
            if entry.key.starts_with(keys::BALLOTS) {
                self.ballots.entry(entry.modified.0).or_insert(now);
            }
        }
    }

    fn epochs_are_never_reused(&mut self, now: Duration, patience: Duration, model: &Model) {
        let Some(taken) = value::<EpochTaken>(model, keys::EPOCH) else { return };
        if let Some(nonce) = self.epochs.get(&taken.epoch) {
            assert_eq!(*nonce, taken.nonce, "epoch {} belongs to two processes", taken.epoch);
            return;
        }
        let before = self.epochs.last_key_value();
        if let Some((newest, _)) = before {
            assert!(taken.epoch > *newest, "epoch {} after {newest}", taken.epoch);
        }
        // A leadership that goes on in another epoch has won it before.
        let goes_on = before.is_some_and(|(_, nonce)| *nonce == taken.nonce);
        self.epochs.insert(taken.epoch, taken.nonce);
        self.taken_at.insert(taken.epoch, now);
        // Put back for a coordinator that lost it, it is nobody's: a floor for the next.
        let Some(leader) = value::<Leader>(model, keys::LEADER) else { return };
        if goes_on || leader.nonce != taken.nonce {
            return; // or put by the hand of a scenario, by no machine
        }
        if let Some(before) = &self.config {
            let winner = Member { node: leader.node.clone(), volume: leader.volume };
            if forced(model, &leader) {
                return; // an operator answers for this one
            }
            assert!(before.candidates().contains(&winner), "{winner:?} may not lead: {before:?}");
            self.best_or_patient(&leader, before, patience, model);
        }
    }

    /// Nothing acknowledged is lost: whoever leads has it. Earlier acknowledgements come with the
    /// newest, since the leader that gave that one was looked at too.
    pub fn nothing_is_lost(&mut self, node: &str, disk: &Disk, model: &Model) {
        if loss_allowed(model, node) {
            self.acknowledged = None; // an operator answers for it
        }
        if let Some(acknowledged) = self.acknowledged {
            assert!(disk.holds(acknowledged), "{node} leads without {acknowledged}: {disk:?}");
        }
    }

    /// A leader holds `position`: acknowledged if every quorum of its terms does (sync).
    pub fn wrote(&mut self, position: Position, terms: &Terms, nodes: &BTreeMap<String, Node>) {
        let holds = |disk: &Disk| disk.position == position;
        if terms.0.iter().all(|term| *term != Term::Local && is_met(term, nodes, holds)) {
            self.acknowledged = Some(position);
        }
    }

    /// Whoever wins although it saw a better ballot has given that one its time.
    fn best_or_patient(&self, winner: &Leader, config: &Config, patience: Duration, model: &Model) {
        let (seen, decided_at) = self.decided[winner.node.as_str()];
        let ours: Ballot = value(model, &keys::ballot(&winner.node)).expect("no win without");
        for member in config.candidates().iter().filter(|member| member.node != winner.node) {
            let Some(entry) = model.get(&keys::ballot(&member.node)) else { continue };
            let theirs: Ballot = decode(&entry.key, &entry.value).expect("a ballot");
            let counts = theirs.volume == member.volume
                && theirs.promised == winner.epoch
                && model.get(&keys::replica(&member.node)).is_some()
                && entry.modified <= seen;
            if counts && theirs.position > ours.position {
                let waited = decided_at.saturating_sub(self.ballots[&entry.modified.0]);
                assert!(
                    waited >= patience,
                    "{} took epoch {} at {} over {} at {} after {waited:?}",
                    winner.node,
                    winner.epoch,
                    ours.position,
                    member.node,
                    theirs.position
                );
            }
        }
    }
}

/// Whether enough of a term's voters hold something.
pub fn is_met(term: &Term, nodes: &BTreeMap<String, Node>, holds: impl Fn(&Disk) -> bool) -> bool {
    let Term::Quorum { voters, needed } = term else { return true };
    let copies =
        nodes.values().filter(|node| voters.contains(&node.disk.volume) && holds(&node.disk));
    copies.count() >= usize::try_from(*needed).expect("small")
}

fn forced(model: &Model, leader: &Leader) -> bool {
    model.contents().entries.iter().filter(|entry| entry.key.starts_with(keys::REQUESTS)).any(
        |entry| match decode(&entry.key, &entry.value) {
            Ok(Request::Failover { target, .. }) => target == leader.node,
            _ => false,
        },
    )
}

fn loss_allowed(model: &Model, node: &str) -> bool {
    model.contents().entries.iter().filter(|entry| entry.key.starts_with(keys::REQUESTS)).any(
        |entry| match decode(&entry.key, &entry.value) {
            Ok(Request::Failover { target, allow_data_loss, .. }) => {
                allow_data_loss && target.as_str() == node
            }
            _ => false,
        },
    )
}

fn value<T: serde::de::DeserializeOwned>(model: &Model, key: &str) -> Option<T> {
    model.get(key).map(|entry| decode(key, &entry.value).expect("readable"))
}
