//! What this replica is doing now, for the election, the status and the API: one board that the
//! role in force writes and everybody reads.

use std::sync::Arc;

use mainstay_election::machine::{Moment, Report};
use mainstay_election::values::{Config, Epoch, Lag, Member, Progress, Terms, Verification};
use mainstay_sync::volume::Volume;
use tokio::sync::watch;

use super::convert;

/// The part of a report that the volume does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// The leadership that is being carried out, from its first step to its last.
    pub leading: Option<Epoch>,
    /// Leading, and the service answers.
    pub ready: bool,
    /// Why this replica must not lead.
    pub unfit: Option<String>,
    /// How far behind the leader it is.
    pub lag: Lag,
    /// Following: whose stream was heard last, and when; as in [`Report::heard`].
    pub heard: Option<(Epoch, Moment)>,
    /// Leading: as in [`Report::quorum_heard`].
    pub quorum_heard: Moment,
    /// Leading: as in [`Report::caught_up`].
    pub caught_up: Vec<Member>,
    /// Leading: as in [`Report::covered`].
    pub covered: Option<Terms>,
    /// The newest config on this disk.
    pub stored: Option<Arc<Config>>,
    /// What came of comparing its content with the leader's, the last time.
    pub verified: Option<Verification>,
    /// Leading: what the service's writes wait for.
    pub held_up: Option<String>,
    /// What it is busy with, if that takes long.
    pub progress: Option<Progress>,
    /// What it does, in a word or a sentence.
    pub state: String,
}

/// The board.
#[derive(Debug)]
pub struct Board {
    situation: watch::Sender<Situation>,
    service: Option<String>,
}

impl Board {
    /// An empty one; `service` is where clients reach the service when this replica leads.
    #[must_use]
    pub fn new(service: Option<String>) -> Board {
        let first = Situation { state: "starting".to_owned(), ..Situation::default() };
        Board { situation: watch::Sender::new(first), service }
    }

    /// Changes what it says; readers wake only if it really changed.
    pub fn set(&self, change: impl FnOnce(&mut Situation)) {
        self.situation.send_if_modified(|situation| {
            let before = situation.clone();
            change(situation);
            *situation != before
        });
    }

    /// Says what this replica does.
    pub fn say(&self, state: impl Into<String>) {
        let state = state.into();
        self.set(|situation| situation.state = state);
    }

    /// What it says now.
    #[must_use]
    pub fn read(&self) -> Situation {
        self.situation.borrow().clone()
    }

    /// For waiting on changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Situation> {
        self.situation.subscribe()
    }

    /// Waits until no leadership is alive here.
    pub async fn wound_up(&self) {
        // The sender is `self`, so the wait cannot fail.
        let _ = self.subscribe().wait_for(|situation| situation.leading.is_none()).await;
    }

    /// The whole report, with what the volume says of itself.
    #[must_use]
    pub fn report(&self, volume: &Volume) -> Report {
        let situation = self.read();
        let notes = situation.held_up.into_iter().chain(volume.trouble());
        let state = notes.fold(situation.state, |state, note| format!("{state}; {note}"));
        Report {
            volume: convert::volume(volume.id()),
            cluster: volume.cluster().map(convert::cluster),
            position: convert::position(volume.durable()),
            applied: convert::seq(volume.applied()),
            head: convert::seq(volume.head().seq),
            promised: convert::epoch(volume.promised()),
            building: volume.building(),
            leading: situation.leading,
            ready: situation.ready,
            service: self.service.clone(),
            unfit: situation.unfit,
            lag: situation.lag,
            heard: situation.heard,
            quorum_heard: situation.quorum_heard,
            caught_up: situation.caught_up,
            covered: situation.covered,
            stored: situation.stored,
            verified: situation.verified,
            progress: situation.progress,
            state,
        }
    }
}
