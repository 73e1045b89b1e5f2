//! Whom a route follows, and until when that may be believed.

use crate::address::Address;
use crate::moment::Moment;

/// The caller's word on a service's leader.
///
/// `epoch`s never decrease; a state of a lower epoch than one heard before is ignored, so that
/// an answer from a coordinator's laggard cannot bring a former leader back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteState {
    /// The leadership that this is about.
    pub epoch: u64,
    /// Where its service is. `None`: nobody leads, and whoever did is a former leader by now.
    /// A leader that attests itself leads even if the coordinator lost its key.
    pub leader: Option<Address>,
    /// The service takes clients. While it does not, new ones are held and the others stay.
    pub ready: bool,
    /// Up to here the coordinator's word holds: the moment when the freshest contact with it was
    /// *begun*, plus the lease. To be moved on with every contact.
    pub trusted_until: Moment,
    /// The leader's own word, where it gives one.
    pub attested: Option<Attested>,
    /// Which of the caller's words this is, for [`crate::Standing`]; nothing is decided by it.
    pub version: u64,
}

/// A leader's own word that a write quorum heard it in `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attested {
    /// Counts only for a leader of this very epoch.
    pub epoch: u64,
    /// Up to here nobody else can lead.
    pub until: Moment,
}

impl RouteState {
    /// Nothing is known.
    pub const fn unknown() -> RouteState {
        RouteState {
            epoch: 0,
            leader: None,
            ready: false,
            trusted_until: Moment::BOOT,
            attested: None,
            version: 0,
        }
    }

    /// When the last of its warrants ends.
    pub(crate) fn until(&self) -> Moment {
        let attested = self.attested.filter(|attested| attested.epoch == self.epoch);
        attested.map_or(self.trusted_until, |attested| self.trusted_until.max(attested.until))
    }
}

impl Default for RouteState {
    fn default() -> RouteState {
        RouteState::unknown()
    }
}

#[derive(Debug, Default)]
pub(super) struct Leader {
    news: RouteState,
    /// Whom clients were forwarded to at the last step.
    followed: Option<(u64, Address)>,
}

impl Leader {
    pub(super) fn learn(&mut self, news: RouteState) {
        if news.epoch >= self.news.epoch {
            self.news = news;
        }
    }

    pub(super) fn news(&self) -> &RouteState {
        &self.news
    }

    /// Follows whom `now` says; true if somebody else, or nobody, is followed from here on and
    /// somebody was before.
    pub(super) fn turn(&mut self, now: Moment) -> bool {
        let next = self.trusted(now).map(|to| (self.news.epoch, to.clone()));
        if next == self.followed {
            return false;
        }
        std::mem::replace(&mut self.followed, next).is_some()
    }

    pub(super) fn target(&self, now: Moment) -> Option<&Address> {
        self.trusted(now).filter(|_| self.news.ready)
    }

    pub(super) fn trusted_until(&self) -> Option<Moment> {
        self.followed.as_ref().map(|_| self.news.until())
    }

    fn trusted(&self, now: Moment) -> Option<&Address> {
        self.news
            .leader
            .as_ref()
            .filter(|_| now < self.news.until() || mutant!("route-trusted-for-ever"))
    }
}
