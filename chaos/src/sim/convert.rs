//! The same numbers in two crates' types. Mirrors `src/replica/convert.rs`.

use mainstay_election::values;
use mainstay_sync::position;

/// An epoch, for the log.
#[must_use]
pub fn to_log_epoch(epoch: values::Epoch) -> position::Epoch {
    position::Epoch(epoch.0)
}

/// An epoch, for the election.
#[must_use]
pub fn epoch(epoch: position::Epoch) -> values::Epoch {
    values::Epoch(epoch.0)
}

/// A seq, for the election.
#[must_use]
pub fn seq(seq: position::Seq) -> values::Seq {
    values::Seq(seq.0)
}

/// A position, for the election.
#[must_use]
pub fn position(position: position::Position) -> values::Position {
    values::Position { epoch: epoch(position.epoch), seq: seq(position.seq) }
}

/// A position, for the log.
#[must_use]
pub fn to_log_position(position: values::Position) -> position::Position {
    position::Position { epoch: to_log_epoch(position.epoch), seq: position::Seq(position.seq.0) }
}

/// A lineage, for the election.
#[must_use]
pub fn lineage(lineage: &position::Lineage) -> values::Lineage {
    values::Lineage(lineage.0.iter().map(|(began, first)| (epoch(*began), seq(*first))).collect())
}

/// A volume's id, for the election.
#[must_use]
pub fn volume(id: position::VolumeId) -> values::VolumeId {
    values::VolumeId(id.0)
}

/// A volume's id, for the log.
#[must_use]
pub fn to_log_volume(id: values::VolumeId) -> position::VolumeId {
    position::VolumeId(id.0)
}

/// A cluster's id, for the election.
#[must_use]
pub fn cluster(id: position::ClusterId) -> values::ClusterId {
    values::ClusterId(id.0)
}

/// A cluster's id, for the log.
#[must_use]
pub fn to_log_cluster(id: values::ClusterId) -> position::ClusterId {
    position::ClusterId(id.0)
}
