//! The keys' names, below `/mainstay/<service>/`.

use super::{Epoch, NodeName};
use crate::coordinator::Key;

/// Who took the newest epoch: [`super::EpochTaken`].
pub const EPOCH: &str = "epoch";
/// Who leads now: [`super::Leader`]; leased.
pub const LEADER: &str = "leader";
/// The cluster's rules: [`super::Config`].
pub const CONFIG: &str = "config";
/// Live replicas: [`super::Replica`]; leased.
pub const REPLICAS: &str = "replicas/";
/// Promises: [`super::Ballot`].
pub const BALLOTS: &str = "ballots/";
/// What operators want: [`super::Request`].
pub const REQUESTS: &str = "requests/";
/// Live ambassadors: [`super::Ambassador`]; leased.
pub const AMBASSADORS: &str = "ambassadors/";
/// How epochs began: [`super::Reign`].
pub const HISTORY: &str = "history/";

/// `replicas/<node>`.
#[must_use]
pub fn replica(node: &NodeName) -> Key {
    format!("{REPLICAS}{node}")
}

/// `ballots/<node>`.
#[must_use]
pub fn ballot(node: &NodeName) -> Key {
    format!("{BALLOTS}{node}")
}

/// `requests/<name>`.
#[must_use]
pub fn request(name: &str) -> Key {
    format!("{REQUESTS}{name}")
}

/// `ambassadors/<id>`.
#[must_use]
pub fn ambassador(id: &str) -> Key {
    format!("{AMBASSADORS}{id}")
}

/// `history/<epoch>`, with leading zeros so that a listing is in order.
#[must_use]
pub fn reign(epoch: Epoch) -> Key {
    format!("{HISTORY}{:010}", epoch.0)
}

/// `history/<epoch>-<version>`: what a leader changed of the config in that epoch.
#[must_use]
pub fn reign_change(epoch: Epoch, version: u64) -> Key {
    format!("{HISTORY}{:010}-{version:06}", epoch.0)
}
