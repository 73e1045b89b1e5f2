//! When this process leads and when it no longer does.
//!
//! Leading begins and ends by what the view shows, by the lease's deadline and by the replica's
//! own word. What has ended never begins again: an epoch that was given up may already have been
//! followed by another one that this process has not heard of.

use crate::machine::{Fall, Machine, Moment};
use crate::values::{ClusterId, Epoch, Leader, NodeName, VolumeId};
use crate::view::Stored;

#[derive(Debug)]
struct Current {
    epoch: Epoch,
    volume: VolumeId,
    cluster: ClusterId,
    since: Moment,
    /// When the read that last showed this epoch as the newest was sent.
    shown_at: Moment,
    /// Its voters hold it in office, and not its lease (sync).
    by_quorum: bool,
}

/// The leadership under way and the last one that ended.
#[derive(Debug, Default)]
pub(super) struct Leadership {
    current: Option<Current>,
    ended: Option<(Epoch, Fall)>,
}

impl Leadership {
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.current.as_ref().map(|current| current.epoch)
    }

    pub(super) fn current(&self) -> Option<(Epoch, ClusterId)> {
        self.current.as_ref().map(|current| (current.epoch, current.cluster))
    }

    /// Whether a leadership is under way that its voters hold in office (sync).
    pub(super) fn by_quorum(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.by_quorum)
    }

    /// When the read that last showed its epoch as the newest was sent.
    pub(super) fn shown_at(&self) -> Moment {
        self.current.as_ref().map_or(Moment::NEVER, |current| current.shown_at)
    }

    /// Since when the leadership under way is.
    pub(super) fn since(&self) -> Option<Moment> {
        self.current.as_ref().map(|current| current.since)
    }

    /// Ends the leadership under way, if there is one.
    pub(super) fn end(&mut self, fall: Fall) {
        if let Some(current) = self.current.take() {
            self.ended = Some((current.epoch, fall));
        }
    }

    /// How the leadership of `epoch` ended here.
    pub(super) fn fall_from(&self, epoch: Epoch) -> Fall {
        match &self.ended {
            Some((ended, fall)) if *ended == epoch => fall.clone(),
            _ => Fall::KeyLost,
        }
    }

    fn is_over(&self, epoch: Epoch) -> bool {
        self.ended.as_ref().is_some_and(|(ended, _)| epoch <= *ended)
            && !mutant!("ended-epoch-begun-again")
    }
}

impl Machine {
    /// Ends a leadership that has lost its ground, or begins the one that the view shows as ours.
    pub(super) fn review_leadership(&mut self) {
        self.renew();
        if let Some(fall) = self.fall() {
            self.leadership.end(fall);
        }
        if self.leadership.current.is_none() {
            self.eligible_wanted.clear();
            self.begin_won();
        }
        self.review_doubts();
    }

    /// Goes on in the later epoch that this process took for itself, if it did (sync).
    fn renew(&mut self) {
        let (Some(view), Some(current)) = (&self.view, &mut self.leadership.current) else {
            return;
        };
        if let Some(config) = &view.config {
            current.by_quorum = config.value.is_sync();
        }
        let Some(taken) = &view.epoch else { return };
        let ours = self.identity.incarnation;
        if current.by_quorum
            && let Some(leader) = &view.leader
            && taken.value.nonce == ours
            && leader.value.nonce == ours
            && leader.value.epoch == taken.value.epoch
            && taken.value.epoch > current.epoch
        {
            current.epoch = taken.value.epoch;
        }
        if taken.value.epoch == current.epoch && taken.value.nonce == ours {
            current.shown_at = self.viewed_at;
        }
    }

    /// Notes since when a voter of ours takes nothing of our epoch any more, and since when the
    /// coordinator lacks what this leadership knows.
    fn review_doubts(&mut self) {
        let muted = self.leadership.by_quorum()
            && self.muted_voter().is_some()
            && !mutant!("muted-voter-left-mute");
        self.muted_since = muted.then(|| self.muted_since.unwrap_or(self.now));
        let lost = self.leadership.by_quorum()
            && self
                .view
                .as_ref()
                .zip(self.report.as_ref())
                .is_some_and(|(view, report)| self.lost_config(view, report).is_some());
        self.lost_since = lost.then(|| self.lost_since.unwrap_or(self.now));
    }

    /// Whether a write quorum has answered a word that was said after that moment. Then nobody had
    /// been elected by then: whoever elects another promises first, one of them is in every write
    /// quorum, and it answers no more. Unlike a compare with what the coordinator holds this is
    /// proof also if that forgot an election.
    pub(super) fn heard_since(&self, since: Moment) -> bool {
        self.report.as_ref().is_some_and(|report| report.quorum_heard > since)
    }

    /// A voter that promised our epoch away without an election coming of it: it would follow
    /// nobody for as long as this epoch lasts.
    fn muted_voter(&self) -> Option<&NodeName> {
        let (epoch, view) = (self.leadership.epoch()?, self.view.as_ref()?);
        let config = &view.config.as_ref()?.value;
        let voters = view.replicas.values().map(|replica| &replica.value).filter(|replica| {
            replica.node != self.identity.node && config.is_voter(&replica.node, replica.volume)
        });
        voters
            .filter(|voter| voter.promised >= epoch || voter.position.epoch > epoch)
            .map(|voter| &voter.node)
            .next()
    }

    /// Who promised this epoch away, where the leadership cannot just go on in another epoch (sync):
    /// it has not served anybody yet, and its start may need that voter's copy; or no write quorum
    /// answers, so that an election may have come of the promise. So it ends, and ballots decide.
    fn outpromised(&self) -> Option<NodeName> {
        let since = self.muted_since.filter(|_| !mutant!("waits-for-a-muted-voter"))?;
        let report = self.report.as_ref()?;
        let serves = report.ready && report.leading == self.leadership.epoch();
        let over = self.now >= since + self.settings.suspect_after;
        let open = self.view.as_ref().is_some_and(|view| self.election_is_open(view));
        let renews = serves && (self.heard_since(since) || mutant!("renews-unheard"));
        (over && !renews && !open).then(|| self.muted_voter().cloned()).flatten()
    }

    /// The leader's key in the view, if this very process put it.
    pub(super) fn own_key(&self) -> Option<&Stored<Leader>> {
        let key = self.view.as_ref()?.leader.as_ref()?;
        let ours =
            key.value.node == self.identity.node && key.value.nonce == self.identity.incarnation;
        ours.then_some(key)
    }

    fn fall(&self) -> Option<Fall> {
        let current = self.leadership.current.as_ref()?;
        // A coordinator that forgot something does not keep a leader that nobody else keeps.
        let forgotten = self
            .lost_since
            .is_some_and(|since| self.now >= since + self.settings.ttl && !self.heard_since(since));
        if forgotten || self.now >= self.leading_until() {
            return Some(match current.by_quorum {
                true => Fall::Isolated,
                false => Fall::DeadlinePassed,
            });
        }
        let view = self.view.as_ref()?;
        let taken = view.epoch.as_ref().map(|taken| taken.value.epoch);
        if let Some(later) = taken.filter(|taken| *taken > current.epoch)
            && !mutant!("later-epoch-overlooked")
        {
            return Some(Fall::Elected(later));
        }
        let key_stands = self.own_key().is_some_and(|key| key.value.epoch == current.epoch);
        if current.by_quorum {
            if let Some(node) = self.outpromised() {
                return Some(Fall::Outpromised(node));
            }
            // Gone with the lease or the coordinator's data, it is put again; a stranger's in this
            // epoch is somebody's hand.
            if view.leader.is_some() && !key_stands && taken == Some(current.epoch) {
                return Some(Fall::KeyLost);
            }
            return self.volume_changed();
        }
        if !key_stands {
            return Some(Fall::KeyLost);
        }
        // Only a coordinator that forgot epochs (restored from a backup) gives one that somebody
        // has sealed already. That replica would never follow; the next epoch is past its vow.
        let deaf = view.replicas.values().map(|replica| &replica.value).find(|replica| {
            replica.cluster == Some(current.cluster)
                && replica.node != self.identity.node
                && (replica.promised >= current.epoch || replica.position.epoch > current.epoch)
        });
        if let Some(replica) = deaf {
            return Some(Fall::Outpromised(replica.node.clone()));
        }
        self.volume_changed()
    }

    fn volume_changed(&self) -> Option<Fall> {
        let (current, report) = (self.leadership.current.as_ref()?, self.report.as_ref()?);
        (report.volume != current.volume || report.building).then_some(Fall::VolumeChanged)
    }

    /// Begins the epoch that the view gives to this process, if it has not begun yet.
    ///
    /// How the key came there, and when, does not matter: our transaction may have been answered,
    /// or the answer lost, or it may have happened long after we gave it up. Hence all of its
    /// ground is looked at again; the volume must be what it was when the bid was made, to the
    /// last record. If anything is missing the key is given back.
    fn begin_won(&mut self) {
        let (Some(view), Some(key)) = (&self.view, self.own_key()) else { return };
        let Leader { epoch, volume, .. } = key.value;
        let Some(config) = &view.config else { return };
        if self.leadership.is_over(epoch) {
            return;
        }
        let newest = view.epoch.as_ref().is_some_and(|taken| taken.value.epoch == epoch);
        let promised = self.promise.as_ref().is_some_and(|promise| {
            let begins = (epoch, promise.position.seq.next());
            mutant!("won-on-another-position")
                || promise.volume == volume && config.value.lineage.last() == Some(begins)
        });
        let able = self.report.as_ref().is_some_and(|report| {
            report.volume == volume
                && !report.building
                && report.unfit.is_none()
                && report.leading.is_none()
        });
        let leased = self.lease.is(key.lease) && self.lease.usable(self.now).is_some();
        let cluster = config.value.cluster;
        let by_quorum = config.value.is_sync();
        let (since, shown_at) = (self.now, self.viewed_at);
        let current = Current { epoch, volume, cluster, since, shown_at, by_quorum };
        self.leadership.current = Some(current);
        if !(newest && promised && able && leased) {
            self.leadership.end(Fall::VolumeChanged);
        }
    }
}
