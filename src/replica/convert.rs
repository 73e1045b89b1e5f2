//! The same numbers and ids in two crates' types: the election must not know what a log is, nor
//! the log what an election is, so they meet here.

use mainstay_election::values;
use mainstay_sync::{commit, position};

/// An epoch, for the log.
pub fn to_log_epoch(epoch: values::Epoch) -> position::Epoch {
    position::Epoch(epoch.0)
}

/// An epoch, for the election.
pub fn epoch(epoch: position::Epoch) -> values::Epoch {
    values::Epoch(epoch.0)
}

/// A seq, for the election.
pub fn seq(seq: position::Seq) -> values::Seq {
    values::Seq(seq.0)
}

/// A position, for the election.
pub fn position(position: position::Position) -> values::Position {
    values::Position { epoch: epoch(position.epoch), seq: seq(position.seq) }
}

/// A lineage, for the election.
pub fn lineage(lineage: &position::Lineage) -> values::Lineage {
    values::Lineage(lineage.0.iter().map(|(began, first)| (epoch(*began), seq(*first))).collect())
}

/// A volume's id, for the election.
pub fn volume(id: position::VolumeId) -> values::VolumeId {
    values::VolumeId(id.0)
}

/// A cluster's id, for the election.
pub fn cluster(id: position::ClusterId) -> values::ClusterId {
    values::ClusterId(id.0)
}

/// A cluster's id, for the log.
pub fn to_log_cluster(id: values::ClusterId) -> position::ClusterId {
    position::ClusterId(id.0)
}

/// Terms, as the log counts by them on the replica with the volume `ours`.
pub fn rule(terms: &values::Terms, ours: position::VolumeId) -> commit::Rule {
    let rule = |term: &values::Term| match term {
        values::Term::Local => commit::Rule::Local,
        values::Term::Quorum { voters, needed } => commit::Rule::Quorum {
            peers: voters
                .iter()
                .map(|voter| position::VolumeId(voter.0))
                .filter(|voter| *voter != ours)
                .collect(),
            needed: usize::try_from(*needed).unwrap_or(usize::MAX),
        },
    };
    let mut rules = terms.0.iter().map(rule);
    let first = rules.next().unwrap_or(commit::Rule::Local);
    rules.fold(first, |old, new| commit::Rule::Both(Box::new(old), Box::new(new)))
}
