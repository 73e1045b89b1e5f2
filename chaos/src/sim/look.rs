//! How a process keeps sight of the coordinator. Mirrors `election/src/runner/look.rs`.

use std::sync::Arc;

use mainstay_election::coordinator::Revision;
use mainstay_election::machine::Moment;
use mainstay_election::view::View;

/// The state of one looking task.
#[derive(Debug, Default)]
pub struct Looker {
    /// What was read last.
    pub view: Option<Arc<View>>,
    /// When that read was sent, on the reader's clock.
    pub fresh_at: Moment,
    /// The read under way.
    pub reading: Option<u64>,
    /// When the read under way was sent.
    pub sent: Moment,
    /// How often somebody asked for a read.
    pub asks: u64,
    /// As of which ask the last answer is, and the read under way.
    pub answers: u64,
    /// As of which ask the read under way is.
    pub reading_for: u64,
    /// Waits after a failure, whoever asks.
    pub pausing: bool,
    /// The watch lives.
    pub watching: bool,
    /// The newest change that the watch told of.
    pub told: Revision,
    /// Counts the waits: a wake-up of an older one is nothing.
    pub chain: u64,
}

impl Looker {
    /// What was seen last, unless it was read before the last ask (`Looker::latest`).
    #[must_use]
    pub fn is_latest(&self) -> bool {
        self.answers >= self.asks
    }

    /// The revision of the last view.
    #[must_use]
    pub fn seen(&self) -> Revision {
        self.view.as_ref().map_or(Revision(-1), |view| view.revision)
    }
}
