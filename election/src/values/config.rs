//! `config`: the rules of a cluster, and how one set of them gives way to the next.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ClusterId, Epoch, Lineage, Member, NodeName, VolumeId};

/// What an acknowledged fsync is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On the leader's disk; a failover loses at most what the lag bound allows.
    Async,
    /// On the disks of a write quorum; no failover loses it.
    Sync,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Async => "async",
            Durability::Sync => "sync",
        })
    }
}

/// How far an eligible follower may be behind (async). Absent is unbounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxLag {
    /// In bytes of the log.
    pub bytes: Option<u64>,
    /// In milliseconds since the oldest op that the follower lacks.
    pub ms: Option<u64>,
}

/// `config`: the rules of this cluster. A config file only proposes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Which cluster this is; a volume of another one never joins.
    pub cluster: ClusterId,
    /// Whose copies count (sync), and whose ballots.
    pub voters: Vec<Member>,
    /// How many durable copies make an op committed, the leader's included.
    pub write_quorum: u32,
    /// The promise given to the service.
    pub durability: Durability,
    /// The bound on what a failover loses (async).
    pub max_lag: MaxLag,
    /// Who may take over (async): those within `max_lag`.
    pub eligible: Vec<Member>,
    /// The newest leader's lineage, ending with its own epoch.
    pub lineage: Lineage,
    /// Fewer copies are kept than were asked for, on purpose, until more replicas are back.
    pub degraded: bool,
    /// Counts the changes of voters, write quorum and durability.
    #[serde(default)]
    pub version: u64,
}

/// Which of two configs is newer: the one that a later epoch wrote, then the later version.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ConfigMark {
    /// The newest epoch of its lineage.
    pub epoch: Epoch,
    /// Its version.
    pub version: u64,
}

/// The part of a config by which acknowledgements are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Whose copies count.
    pub voters: Vec<Member>,
    /// How many copies.
    pub write_quorum: u32,
    /// Whether they count at all.
    pub durability: Durability,
    /// Fewer than were asked for.
    pub degraded: bool,
}

/// One condition of an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// Durable on the leader (async).
    Local,
    /// Durable in `needed` of the voters' logs (sync).
    Quorum {
        /// The voters' volumes, the leader's among them.
        voters: Vec<VolumeId>,
        /// How many.
        needed: u32,
    },
}

/// What an op must meet before it is acknowledged: all of these. Two while a change is under way,
/// so that whichever config a successor finds, it covers what was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms(pub Vec<Term>);

impl Ruling {
    /// What it asks of an acknowledgement.
    #[must_use]
    pub fn term(&self) -> Term {
        match self.durability {
            Durability::Async => Term::Local,
            Durability::Sync => Term::Quorum {
                voters: self.voters.iter().map(|voter| voter.volume).collect(),
                needed: self.write_quorum,
            },
        }
    }
}

/// More than half of `voters`.
#[must_use]
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

impl Config {
    /// How new it is.
    #[must_use]
    pub fn mark(&self) -> ConfigMark {
        let epoch = self.lineage.last().map(|(epoch, _)| epoch).unwrap_or_default();
        ConfigMark { epoch, version: self.version }
    }

    /// What acknowledgements are given by.
    #[must_use]
    pub fn ruling(&self) -> Ruling {
        Ruling {
            voters: self.voters.clone(),
            write_quorum: self.write_quorum,
            durability: self.durability,
            degraded: self.degraded,
        }
    }

    /// This config with another ruling, one version later.
    #[must_use]
    pub fn ruled(&self, ruling: &Ruling) -> Config {
        let Ruling { voters, write_quorum, durability, degraded } = ruling.clone();
        let version = self.version + 1;
        Config { voters, write_quorum, durability, degraded, version, ..self.clone() }
    }

    /// Whether acknowledgements wait for other replicas.
    #[must_use]
    pub fn is_sync(&self) -> bool {
        self.durability == Durability::Sync
    }

    /// Whether `volume` on `node` is a voter.
    #[must_use]
    pub fn is_voter(&self, node: &NodeName, volume: VolumeId) -> bool {
        self.voters.iter().any(|voter| voter.node == *node && voter.volume == volume)
    }

    /// Who may take over.
    #[must_use]
    pub fn candidates(&self) -> &[Member] {
        match self.durability {
            Durability::Async => &self.eligible,
            Durability::Sync => &self.voters,
        }
    }

    /// So many candidates must have promised, the winner among them, before one takes over. In
    /// sync they are as many as leave no write quorum without one of them: whatever was
    /// acknowledged, one of them has it.
    #[must_use]
    pub fn ballots_needed(&self) -> usize {
        match self.durability {
            Durability::Async => 1,
            Durability::Sync => {
                let quorum = usize::try_from(self.write_quorum).unwrap_or(usize::MAX);
                let needed = (self.voters.len() + 1).saturating_sub(quorum).max(1);
                if mutant!("one-ballot-elects") { 1 } else { needed }
            }
        }
    }

    /// So many voters must have promised before one takes over from a leader that may still be
    /// there: besides [`Config::ballots_needed`] a majority, so that two halves of a cluster
    /// never depose each other's leader.
    #[must_use]
    pub fn ballots_to_depose(&self) -> usize {
        let needed = self.ballots_needed().max(majority(self.voters.len()));
        if mutant!("one-ballot-elects") { 1 } else { needed }
    }
}
