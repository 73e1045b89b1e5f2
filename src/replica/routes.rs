//! What the election's view means for an ambassador's route.

use std::time::{Duration, Instant};

use mainstay_ambassador::RouteState;
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
    let Some((view, age)) = seen.view.as_ref().zip(seen.age()) else {
        return RouteState::default();
    };
    let trusted_until = Instant::now() + ttl.saturating_sub(age);
    let leader = view.leader.as_ref().map(|stored| &stored.value);
    RouteState {
        epoch: leader.map_or(0, |leader| leader.epoch.0),
        leader: leader.and_then(|leader| leader.service.clone()),
        ready: leader.is_some_and(|leader| leader.ready),
        trusted_until: Some(trusted_until),
    }
}
