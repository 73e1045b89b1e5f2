//! What can be seen of a cluster from outside while it runs: every change in its coordinator, and
//! what each replica says of itself, on the clock of the workloads' history.

pub mod coordinator;
pub mod metrics;
mod reigns;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use reigns::{from_coordinator, from_samples};

/// One leadership as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    /// Its epoch.
    pub epoch: u64,
    /// Whose it was.
    pub node: String,
    /// When it was first seen.
    pub began: Duration,
    /// When its service was first seen ready.
    pub ready: Option<Duration>,
    /// When it was seen to be over.
    pub ended: Option<Duration>,
}
