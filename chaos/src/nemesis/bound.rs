//! How long writes may stand still by a fault: what the protocol needs, and no more. Each module says
//! it of its own faults (`stands_still`), and why; the report's judge holds the run to it, with what
//! a busy machine may add.

use std::time::Duration;

use super::{Kind, clock, coordinator, disk, kill, membership, network, pause};
use crate::judge::Promise;

/// A voter that does not hear its leader for so long says so: the default of `suspect_after`.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// Promises, ballots and one transaction; half of it is the best candidate's share of patience.
const ELECTION: Duration = Duration::from_secs(2);

/// A new leader applies what its log holds, mounts, starts the service on what looks like a crash,
/// probes it, and the ambassadors release who waits.
pub(super) const START: Duration = Duration::from_secs(4);

/// What a bound depends on.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// From the fault's begin until it was undone.
    pub lasted: Duration,
    /// The lease's time to live.
    pub lease: Duration,
    /// The durability.
    pub promise: Promise,
}

impl Terms {
    /// From the loss of a leader to clients of the next one. In sync the voters notice; in async the
    /// lease must be over.
    pub(super) fn failover(&self) -> Duration {
        let noticed = match self.promise {
            Promise::Sync => SUSPECT_AFTER,
            Promise::Async => self.lease,
        };
        noticed + ELECTION + START
    }
}

/// How long nobody's writes may come through because of a fault of this kind.
#[must_use]
pub fn stands_still(kind: Kind, terms: &Terms) -> Duration {
    match kind {
        Kind::KillDaemon
        | Kind::KillService
        | Kind::KillNode
        | Kind::KillFollower
        | Kind::KillAll => kill::stands_still(kind, terms),
        Kind::PauseDaemon | Kind::PauseService | Kind::PauseNode | Kind::PauseGuards => {
            pause::stands_still(kind, terms)
        }
        Kind::CutFollowers
        | Kind::CutCoordinator
        | Kind::CutAll
        | Kind::CutOutgoing
        | Kind::CutIncoming
        | Kind::FlakyLink
        | Kind::SlowLink => network::stands_still(kind, terms),
        Kind::KillEtcdLeader | Kind::StopEtcd | Kind::WipeEtcd => {
            coordinator::stands_still(kind, terms)
        }
        Kind::FillLeader
        | Kind::FillFollower
        | Kind::FailDisk
        | Kind::SlowDisk
        | Kind::FlipByte => disk::stands_still(kind, terms),
        Kind::JumpClock => clock::STANDS_STILL,
        Kind::Restart | Kind::Replace | Kind::Roll | Kind::Switchover => {
            membership::stands_still(kind, terms)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bound_is_longer_than_the_fault_and_two_failovers() {
        for promise in [Promise::Sync, Promise::Async] {
            let seconds = Duration::from_secs;
            let terms = Terms { lasted: seconds(10), lease: seconds(5), promise };
            let failover = terms.failover();
            let most = |kind| stands_still(kind, &terms) <= terms.lasted + 2 * failover;
            assert!(Kind::all().all(most));
            assert!(stands_still(Kind::KillNode, &terms) >= failover);
            assert_eq!(stands_still(Kind::KillFollower, &terms), Duration::ZERO);
        }
    }
}
