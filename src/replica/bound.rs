//! What a failover may lose in async durability: the bound, as a rule.
//!
//! Whoever is on the cluster's list may take over without asking anybody, so what the service
//! writes has to wait while somebody on it would lack more than `max_lag` by that. It waits until
//! that follower has caught up, or until the list says that it may not take over any more;
//! whichever is better for the service. Hence no failover that nobody asked for loses more than
//! the bound, whatever happens and in whatever order.

use std::time::Duration;

use mainstay_election::values::{MaxLag, NodeName};

/// The largest single write; room for less is no room.
pub(super) const WRITE_BYTES: u64 = (1 << 20) + 4096;

/// A follower that may take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heir {
    pub node: NodeName,
    pub lag_bytes: u64,
    pub lag_ms: u64,
    /// Its link lives.
    pub connected: bool,
    /// How long ago it was heard.
    pub silent: Duration,
}

/// What the leader does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Bytes that may be written on top of what is written; `None`: as many as come.
    pub bytes: Option<u64>,
    /// For how long anything may be written; `None`: for as long as this holds.
    pub time: Option<Duration>,
    /// Who is to go from the list, so that the service need not wait for it.
    pub dismissed: Vec<NodeName>,
    /// For whom the service's writes wait.
    pub slowed_by: Option<NodeName>,
}

/// Decides. `waiting`: a write waits for room; `patience`: how long a follower may be silent
/// before the service no longer waits for it.
///
/// With somebody else left who may take over, a follower at the bound goes from the list at once:
/// it comes back when it has caught up. The last one is waited for, for as long as it is heard:
/// the service is slowed to its pace.
pub(super) fn decide(bound: MaxLag, heirs: &[Heir], waiting: bool, patience: Duration) -> Decision {
    let bytes_left =
        |heir: &Heir| bound.bytes.map_or(u64::MAX, |max| max.saturating_sub(heir.lag_bytes));
    let ms_left = |heir: &Heir| bound.ms.map_or(u64::MAX, |max| max.saturating_sub(heir.lag_ms));
    let at_bound = |heir: &&Heir| {
        let breached = bound.bytes.is_some_and(|max| heir.lag_bytes > max)
            || bound.ms.is_some_and(|max| heir.lag_ms > max);
        breached || (waiting && (bytes_left(heir) < WRITE_BYTES || ms_left(heir) == 0))
    };
    let behind: Vec<&Heir> = heirs.iter().filter(at_bound).collect();
    let others = behind.len() < heirs.len();
    let is_heard = |heir: &Heir| heir.connected && heir.silent < patience;
    let goes = |heir: &&&Heir| others || (!is_heard(heir) && heir.silent >= patience);
    let stays = behind.iter().filter(|heir| !goes(heir));
    Decision {
        bytes: bound.bytes.and_then(|_| heirs.iter().map(bytes_left).min()),
        time: bound.ms.and_then(|_| heirs.iter().map(ms_left).min()).map(Duration::from_millis),
        dismissed: behind.iter().filter(goes).map(|heir| heir.node.clone()).collect(),
        slowed_by: stays.min_by_key(|heir| (heir.lag_bytes, heir.lag_ms)).map(|h| h.node.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);
    const BOUND: MaxLag = MaxLag { bytes: Some(64 << 20), ms: Some(10_000) };

    fn heir(node: &str, lag_bytes: u64, lag_ms: u64) -> Heir {
        let node = node.parse().expect("a name");
        Heir { node, lag_bytes, lag_ms, connected: true, silent: Duration::ZERO }
    }

    fn names(decision: &Decision) -> Vec<&str> {
        decision.dismissed.iter().map(NodeName::as_str).collect()
    }

    #[test]
    fn nobody_on_the_list_and_no_bound_bound_nothing() {
        assert_eq!(decide(BOUND, &[], true, PATIENCE), Decision::default());
        let far = [heir("b", u64::MAX, u64::MAX)];
        assert_eq!(decide(MaxLag::default(), &far, true, PATIENCE), Decision::default());
    }

    #[test]
    fn the_room_is_that_of_whoever_is_furthest_behind() {
        let heirs = [heir("b", 1 << 20, 3_000), heir("c", 4 << 20, 20)];
        let decision = decide(BOUND, &heirs, false, PATIENCE);
        assert_eq!(decision.bytes, Some(60 << 20));
        assert_eq!(decision.time, Some(Duration::from_secs(7)));
        assert!(decision.dismissed.is_empty() && decision.slowed_by.is_none(), "{decision:?}");
    }

    #[test]
    fn one_of_two_at_the_bound_goes_at_once_and_the_last_is_waited_for() {
        let two = [heir("b", 64 << 20, 0), heir("c", 0, 0)];
        assert_eq!(names(&decide(BOUND, &two, true, PATIENCE)), ["b"]);
        let last = [heir("b", 64 << 20, 0)];
        let decision = decide(BOUND, &last, true, PATIENCE);
        assert_eq!(names(&decision), Vec::<&str>::new());
        assert_eq!(decision.slowed_by, Some("b".parse().expect("a name")));
        assert_eq!(decision.bytes, Some(0));
    }

    #[test]
    fn the_last_one_goes_when_it_is_not_heard_any_more() {
        let mut last = heir("b", 0, 10_000);
        last.connected = false;
        last.silent = Duration::from_millis(900);
        assert!(decide(BOUND, &[last.clone()], true, PATIENCE).dismissed.is_empty());
        last.silent = PATIENCE;
        assert_eq!(names(&decide(BOUND, &[last.clone()], true, PATIENCE)), ["b"]);
        // Paused: its link lives on for a while.
        last.connected = true;
        assert_eq!(names(&decide(BOUND, &[last], true, PATIENCE)), ["b"]);
    }

    #[test]
    fn one_that_is_gone_but_lacks_nothing_may_stay() {
        let mut gone = heir("b", 0, 0);
        (gone.connected, gone.silent) = (false, Duration::from_secs(3600));
        assert!(decide(BOUND, &[gone], false, PATIENCE).dismissed.is_empty());
    }

    #[test]
    fn beyond_the_bound_goes_also_if_nothing_waits() {
        let beyond = [heir("b", (64 << 20) + 1, 0), heir("c", 0, 10_001), heir("d", 0, 0)];
        assert_eq!(names(&decide(BOUND, &beyond, false, PATIENCE)), ["b", "c"]);
    }
}
