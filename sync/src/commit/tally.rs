//! The arithmetic of committing, pure: told what is durable where, says what is committed.

use std::collections::BTreeMap;

use crate::position::{Epoch, Seq, VolumeId};

/// When an op is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Durable here (`durability = "async"`).
    Local,
    /// Durable in `needed` of the logs of this replica and `peers`.
    Quorum {
        /// The other voters' volumes.
        peers: Vec<VolumeId>,
        /// How many durable copies, this replica's included. More than there are voters: never.
        needed: usize,
    },
    /// Both: while a change of voters, quorum or durability is on its way, every acknowledgement
    /// satisfies the old rule and the new one.
    Both(Box<Rule>, Box<Rule>),
}

impl Rule {
    /// The last op that meets this rule.
    fn met(&self, local: Seq, peers: &BTreeMap<VolumeId, Seq>) -> Seq {
        match self {
            Rule::Local => local,
            Rule::Both(_, new) if mutant!("either-rule-commits") => new.met(local, peers),
            Rule::Both(old, new) => old.met(local, peers).min(new.met(local, peers)),
            Rule::Quorum { peers: voters, needed } => {
                let mut voters = voters.clone();
                voters.sort_unstable();
                voters.dedup();
                let durable = |voter| peers.get(voter).copied().unwrap_or_default();
                let mut copies: Vec<Seq> = voters.iter().map(durable).collect();
                copies.push(local);
                copies.sort_unstable_by(|a, b| b.cmp(a));
                let needed = if mutant!("one-copy-too-few") { *needed - 1 } else { *needed };
                copies.get(needed.max(1) - 1).copied().unwrap_or_default()
            }
        }
    }
}

/// What is durable where in one leadership, and what follows from it.
#[derive(Clone, Debug)]
pub struct Tally {
    rule: Rule,
    epoch: Epoch,
    /// The EpochStart of `epoch`: nothing counts as committed before it is.
    start: Seq,
    local: Seq,
    /// By this epoch's sessions only. Also of volumes that the rule does not name yet.
    peers: BTreeMap<VolumeId, Seq>,
    committed: Seq,
    /// Everything acknowledged before the rule in force is at or before this.
    floor: Seq,
}

impl Tally {
    /// Nothing durable, nothing committed, in epoch 0.
    #[must_use]
    pub fn new(rule: Rule) -> Tally {
        Tally {
            rule,
            epoch: Epoch(0),
            start: Seq(0),
            local: Seq(0),
            peers: BTreeMap::new(),
            committed: Seq(0),
            floor: Seq(0),
        }
    }

    /// A new leadership whose first record will have seq `start`.
    ///
    /// What was said of `start` and later belonged to records that were cut off since: it is
    /// forgotten.
    pub fn begin(&mut self, epoch: Epoch, start: Seq) {
        let before = Seq(start.0.saturating_sub(1));
        self.epoch = epoch;
        self.start = start;
        self.local = self.local.min(before);
        // What counted before, by whatever rule, says nothing of the tail that this epoch begins
        // on: until its start is committed, that may still lose.
        self.committed = Seq(0);
        self.floor = start;
        self.peers.clear();
    }

    /// Everything up to `seq` is durable here.
    pub fn local_durable(&mut self, seq: Seq) {
        self.local = self.local.max(seq);
        self.count();
    }

    /// Everything up to `seq` is durable at `volume`, said in a session of `epoch`.
    pub fn peer_durable(&mut self, volume: VolumeId, epoch: Epoch, seq: Seq) {
        if epoch != self.epoch && !mutant!("acks-of-any-epoch-count") {
            return;
        }
        let durable = self.peers.entry(volume).or_default();
        *durable = seq.max(*durable);
        self.count();
    }

    /// From now on `rule` decides; nothing committed is taken back.
    pub fn set_rule(&mut self, rule: Rule) {
        // Not only what was committed here: what leaders before acknowledged ends before our own
        // start, and a new quorum must have that too.
        self.floor = self.committed.max(self.start);
        self.rule = rule;
        self.count();
    }

    /// Whether everything acknowledged before the rule in force is durable on the quorum that it
    /// names last. The other one of [`Rule::Both`] acknowledged it, or could not acknowledge
    /// anything.
    #[must_use]
    pub fn covered(&self) -> bool {
        let newest = match &self.rule {
            Rule::Both(_, new) => new,
            rule => rule,
        };
        newest.met(self.local, &self.peers) >= self.floor
    }

    /// The last committed op; 0 until the leadership's start is.
    #[must_use]
    pub fn committed(&self) -> Seq {
        self.committed
    }

    fn count(&mut self) {
        let met = self.rule.met(self.local, &self.peers);
        if met >= self.start || mutant!("committed-before-the-epoch-start") {
            self.committed = self.committed.max(met);
        }
    }
}
