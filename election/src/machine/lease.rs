//! The one lease of this process: when to keep it alive and until when it surely lives.
//!
//! The registration and the leader's key go with the same lease, so that a process is either
//! wholly known to the coordinator or wholly gone. The hazard is a deadline that lies: everything
//! here counts from the moment at which the *request* was sent, because the coordinator may have
//! begun to count then, and from the ttl that it *returned*, because that is what it counts.

use std::time::Duration;

use crate::coordinator::{Grant, LeaseId};
use crate::machine::{Effect, Moment};

/// A keep-alive is due after this part of the ttl; a call ends within a quarter of it, so that two
/// may fail before the deadline.
const KEEP_ALIVE_PARTS: u32 = 4;
/// After a failure the next try comes after this part of the ttl.
const RETRY_PARTS: u32 = 20;

#[derive(Clone, Copy, Debug)]
struct Held {
    id: LeaseId,
    ttl: Duration,
    /// When the last acknowledged grant or keep-alive was sent.
    sent: Moment,
}

/// Asks for a lease, keeps it alive and says how long it may be trusted.
#[derive(Debug)]
pub(crate) struct Lease {
    ttl_wanted: Duration,
    kill_margin: Duration,
    held: Option<Held>,
    asking: bool,
    next: Moment,
}

impl Lease {
    pub(crate) fn new(ttl_wanted: Duration, kill_margin: Duration) -> Lease {
        Lease { ttl_wanted, kill_margin, held: None, asking: false, next: Moment::NEVER }
    }

    /// The lease to put keys with, while it can be trusted.
    pub(crate) fn usable(&self, now: Moment) -> Option<LeaseId> {
        self.id().filter(|_| now < self.deadline())
    }

    pub(crate) fn id(&self) -> Option<LeaseId> {
        self.held.map(|held| held.id)
    }

    /// Whether this process holds `lease`, trusted or not.
    pub(crate) fn is(&self, lease: Option<LeaseId>) -> bool {
        lease.is_some() && self.id() == lease
    }

    /// Until when a leader may answer its service: what is left after it is for killing it.
    pub(crate) fn deadline(&self) -> Moment {
        self.held
            .map_or(Moment::NEVER, |held| held.sent + held.ttl.saturating_sub(self.kill_margin))
    }

    /// When something is to be done next.
    pub(crate) fn wake(&self) -> Option<Moment> {
        (!self.asking).then_some(self.next)
    }

    /// Asks for the lease or for more of it, when that is due.
    pub(crate) fn ask(&mut self, now: Moment) -> Option<Effect> {
        if self.asking || now < self.next {
            return None;
        }
        self.asking = true;
        Some(match self.held {
            Some(held) => Effect::KeepAlive(held.id),
            None => Effect::Grant(self.ttl_wanted),
        })
    }

    pub(crate) fn granted(&mut self, sent: Moment, grant: Grant) {
        self.acknowledged(Held { id: grant.id, ttl: grant.ttl, sent });
    }

    pub(crate) fn kept(&mut self, sent: Moment, lease: LeaseId, ttl: Duration) {
        if self.is(Some(lease)) {
            self.acknowledged(Held { id: lease, ttl, sent });
        }
    }

    fn acknowledged(&mut self, held: Held) {
        self.asking = false;
        self.next = held.sent + held.ttl / KEEP_ALIVE_PARTS;
        self.held = Some(held);
    }

    /// No answer: the lease may live on, but not a moment longer than was known before.
    pub(crate) fn unanswered(&mut self, now: Moment) {
        self.asking = false;
        self.next = now + self.ttl_wanted / RETRY_PARTS;
    }

    /// The coordinator says that the lease is gone: the next ask is for a new one.
    pub(crate) fn gone(&mut self, now: Moment) {
        self.held = None;
        self.unanswered(now);
    }
}
