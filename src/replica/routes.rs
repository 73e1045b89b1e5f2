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
    RouteState {
        epoch: leader.map_or(0, |leader| leader.epoch.0),
        ready: parsed.is_some() && leader.is_some_and(|leader| leader.ready),
        leader: parsed,
        trusted_until: Moment::from_boot(seen.fresh_at.since_boot()) + ttl,
        attested: None,
    }
}
