//! What the election's view means for an ambassador's route.

use std::time::Duration;

use mainstay_ambassador::{Address, Moment, RouteState};
use mainstay_election::runner::Observed;
use tokio::sync::watch;

/// Keeps a route's state in step with what is observed, for as long as both ends live.
///
/// A view is trusted for one ttl from when its read was *sent*: a leader whose lease ran out
/// meanwhile has stopped answering by then, and another may lead.
pub async fn keep(
    mut observed: watch::Receiver<Observed>,
    route: watch::Sender<RouteState>,
    ttl: Duration,
) {
    loop {
        let seen = observed.borrow_and_update().clone();
        route.send_replace(state(&seen, ttl));
        if observed.changed().await.is_err() {
            return;
        }
    }
}

fn state(seen: &Observed, ttl: Duration) -> RouteState {
    let Some(view) = &seen.view else { return RouteState::unknown() };
    let leader = view.leader.as_ref().map(|stored| &stored.value);
    let address = leader.and_then(|leader| leader.service.as_deref());
    let parsed = address.and_then(|text| match text.parse::<Address>() {
        Ok(address) => Some(address),
        Err(error) => {
            tracing::error!(%error, "the leader's service address is unusable");
            None
        }
    });
    // Also while nobody leads: word of an older epoch than the last one heard of is taken for late
    // and ignored, and that there is no leader must not be.
    let epoch = view.epoch.as_ref().map_or(0, |stored| stored.value.epoch.0);
    RouteState {
        epoch: leader.map_or(epoch, |leader| leader.epoch.0),
        ready: parsed.is_some() && leader.is_some_and(|leader| leader.ready),
        leader: parsed,
        trusted_until: Moment::from_boot(seen.fresh_at.since_boot()) + ttl,
        attested: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mainstay_election::coordinator::{Contents, Entry, Revision};
    use mainstay_election::values::{self, encode, keys};
    use mainstay_election::view::View;

    use super::*;

    fn entry(key: &str, value: Vec<u8>) -> Entry {
        let at = Revision(1);
        Entry { key: key.to_owned(), value, created: at, modified: at, lease: None }
    }

    fn seen(led: bool) -> Observed {
        let (epoch, nonce) = (values::Epoch(7), values::Nonce([1; 16]));
        let node: values::NodeName = "a".parse().expect("a name");
        let taken = values::EpochTaken { epoch, nonce, holder: node.clone() };
        let mut entries = vec![entry(keys::EPOCH, encode(&taken))];
        if led {
            let leader = values::Leader {
                node,
                volume: values::VolumeId([2; 16]),
                epoch,
                peer: "127.0.0.1:7400".to_owned(),
                service: Some("127.0.0.1:5432".to_owned()),
                ready: true,
                nonce,
            };
            entries.push(entry(keys::LEADER, encode(&leader)));
        }
        let contents = Contents { revision: Revision(1), entries };
        let view = View::parse(&contents).expect("readable values");
        let mut observed = Observed::default();
        observed.view = Some(Arc::new(view));
        observed
    }

    #[test]
    fn a_leaders_absence_is_word_of_the_same_epoch_and_not_of_an_older_one() {
        let ttl = Duration::from_secs(5);
        let (led, alone) = (state(&seen(true), ttl), state(&seen(false), ttl));
        assert!(led.ready && led.leader.is_some());
        assert!(!alone.ready && alone.leader.is_none());
        assert_eq!((led.epoch, alone.epoch), (7, 7));
    }

    #[test]
    fn a_view_is_trusted_for_a_ttl_from_its_reads_beginning() {
        let ttl = Duration::from_secs(5);
        let route = state(&seen(true), ttl);
        assert_eq!(route.trusted_until, Moment::BOOT + ttl);
        assert_eq!(state(&Observed::default(), ttl).trusted_until, Moment::BOOT);
    }
}
