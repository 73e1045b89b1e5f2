//! Checks of what a run left behind. They know nothing of how it was made: each takes a record
//! (what clients were told, what the coordinator saw, what is there at the end) and says what in it
//! must not be. Pure, so that each is itself tested on records that are wrong.

pub mod acknowledged;
pub mod appends;
pub mod availability;
mod cycles;
pub mod leadership;
pub mod loss;
pub mod registers;
pub mod routes;

use serde::{Deserialize, Serialize};

/// What one check came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// The check's name.
    pub check: String,
    /// What it looked at, in numbers.
    pub looked_at: String,
    /// What must not be; empty if all is well.
    pub violations: Vec<String>,
}

impl Finding {
    /// Whether all is well.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// What durability the run's configuration promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Nothing acknowledged is ever lost.
    Sync,
    /// A failover may lose the newest.
    Async,
}
