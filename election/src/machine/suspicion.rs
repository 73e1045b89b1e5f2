//! Whether the leader is missed, and by enough voters at once (sync).
//!
//! A suspicion is no promise: it is said in the registration, binds nobody, and is taken back when
//! the leader is heard again. Only when enough voters suspect at once do they promise, which cannot
//! be taken back. So one flaky link, or one slow disk, neither ends a leadership that the others
//! hear nor costs the cluster a voter.
//!
//! The hazard is a leader that nobody deposes although nobody hears it: a voter that never had a
//! stream suspects too, after a grace, and at once if the leader's key is gone.

use crate::machine::{Machine, Moment, Report, tally};
use crate::values::{Config, Epoch};
use crate::view::View;

/// A new leader takes this many times `suspect_after` at most until its followers hear it.
const GRACE: u32 = 3;

impl Machine {
    /// The epoch whose leader this voter does not hear.
    pub(super) fn suspects(&self) -> Option<Epoch> {
        let epoch = self.epoch_seen.0;
        self.suspect_at().is_some_and(|at| self.now >= at).then_some(epoch)
    }

    /// From when on the leader is suspected, if nothing is heard; none if we are not to judge it.
    fn suspect_at(&self) -> Option<Moment> {
        let (view, report) = (self.view.as_ref()?, self.report.as_ref()?);
        let config = &view.config.as_ref()?.value;
        let epoch = view.epoch.as_ref()?.value.epoch;
        let judges = config.is_sync()
            && config.is_voter(&self.identity.node, report.volume)
            && self.leadership.epoch().is_none()
            && report.leading.is_none();
        if !judges {
            return None;
        }
        Some(match report.heard {
            Some((heard, at)) if heard == epoch && at != Moment::NEVER => {
                at + self.settings.suspect_after
            }
            // Never heard in this epoch, or it said goodbye: then its key is a matter of its lease.
            _ if view.leader.is_none() => Moment::NEVER,
            _ => self.epoch_seen.1 + self.settings.suspect_after * GRACE,
        })
    }

    pub(super) fn suspicion_wake(&self) -> Option<Moment> {
        self.suspect_at().filter(|at| *at > self.now)
    }

    /// Whether the leader of `epoch` is being heard here.
    pub(super) fn hears(&self, report: &Report, epoch: Epoch) -> bool {
        let fresh = |at: Moment| at != Moment::NEVER && self.now < at + self.settings.suspect_after;
        report.heard.is_some_and(|(heard, at)| heard == epoch && fresh(at))
    }

    /// Whether somebody may be elected now.
    pub(super) fn election_is_open(&self, view: &View) -> bool {
        let operator = tally::Wish::of(view);
        if !operator.lets_elect() {
            return false;
        }
        match &view.config {
            Some(config) if config.value.is_sync() => {
                let (suspects, needed) = suspicion(view, &config.value);
                suspects >= needed || operator.loss_allowed()
            }
            _ => view.leader.is_none(),
        }
    }
}

/// How many voters miss the leader of the view's epoch, and how many have to before another is
/// elected.
pub(super) fn suspicion(view: &View, config: &Config) -> (usize, usize) {
    let epoch = view.epoch.as_ref().map(|taken| taken.value.epoch);
    let suspects = view
        .replicas
        .values()
        .map(|replica| &replica.value)
        .filter(|replica| config.is_voter(&replica.node, replica.volume))
        .filter(|replica| replica.suspects.is_some() && replica.suspects == epoch)
        .count();
    (suspects, tally::needed(view, config))
}
