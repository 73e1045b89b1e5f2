//! The leader's side of a planned hand-over: notice the request, let clients leave, stop the
//! service, see that who is to lead holds everything. Then leadership is given up like at a stop.
//!
//! Hazard: from the moment that the service is stopped nobody is served. So each step is bounded,
//! and until leadership is given up every failure leads back: the service is started again, in the
//! same epoch, and the request is answered with the reason.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_election::coordinator::{Compare, Write};
use mainstay_election::runner::Observed;
use mainstay_election::values::{Epoch, NodeName, Request, UnixMs, encode, keys};
use tokio::time::{sleep, timeout};

use super::lead::Scope;
use super::node::Node;
use super::service;
use crate::switchover::{Refusal, choose, still_connected, still_forwarding};
use crate::when;

const KEY: &str = "switchover";
/// How long the successor may take to have everything after the service has stopped.
const CATCH_UP: Duration = Duration::from_secs(5);
/// The ambassadors may take so long to say that they hold new clients: a hold must begin before
/// the stop. Longer than any that lives takes, and no longer, for the sake of those that do not.
const HOLD_WITHIN: Duration = Duration::from_secs(2);
/// What is scheduled is not carried out later than this after its time.
const LATE_MAX: Duration = Duration::from_secs(300);
/// Wall clocks are set, so a long wait looks at the clock again.
const CLOCK_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The coordinator did not take an answer; it is given again.
const RETRY: Duration = Duration::from_secs(1);

/// A request that is to be carried out.
#[derive(Clone, Debug)]
pub(super) struct Order {
    target: Option<NodeName>,
    epoch: Epoch,
    /// The request as it stands, so that no later one is answered in its place.
    raw: Vec<u8>,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Some(target) => write!(f, "switchover to {target}"),
            None => f.write_str("switchover"),
        }
    }
}

/// Waits for a request that can be carried out. Answers those that cannot, and removes those of
/// epochs that are over. Cancel-safe.
pub(super) async fn wanted(node: &Node, ours: Epoch) -> Order {
    let mut observed = node.observed.clone();
    loop {
        let view = observed.borrow_and_update().view.clone();
        let mut pause = Duration::MAX;
        let request = view.as_ref().and_then(|view| view.requests.get(KEY));
        if let (Some(view), Some(request)) = (&view, request) {
            let raw = request.raw.clone();
            match &request.value {
                Request::Switchover { target, epoch, .. } if *epoch == ours => {
                    let order = Order { target: target.clone(), epoch: ours, raw };
                    match choose(view, target.as_ref()) {
                        Ok(_) => return order,
                        Err(refusal) => refuse(node, &order, &refusal).await,
                    }
                }
                Request::SwitchoverScheduled { target, epoch, due, .. } if *epoch == ours => {
                    match until(*due) {
                        Due::In(wait) => pause = wait.min(CLOCK_EVERY),
                        Due::Now => match choose(view, target.as_ref()) {
                            Ok((_, target)) => begin(node, raw, target, ours).await,
                            Err(refusal) => {
                                let order = Order { target: target.clone(), epoch: ours, raw };
                                refuse(node, &order, &refusal).await;
                            }
                        },
                        Due::Missed => {
                            let order = Order { target: target.clone(), epoch: ours, raw };
                            let what = format!(
                                "its time, {}, passed while the service was not ready",
                                when::text(*due)
                            );
                            let refusal = Refusal::new(what, "schedule it anew");
                            refuse(node, &order, &refusal).await;
                        }
                    }
                }
                Request::Switchover { epoch, .. }
                | Request::SwitchoverScheduled { epoch, .. }
                | Request::SwitchoverRefused { epoch, .. }
                    if *epoch < ours =>
                {
                    answer(node, raw, Write::Delete(keys::request(KEY))).await;
                }
                _ => {}
            }
        }
        if let Ok(Err(_)) = timeout(pause, observed.changed()).await {
            // The election's task has ended; the leadership is about to.
            std::future::pending::<()>().await;
        }
    }
}

/// When something is due, by this node's wall clock.
enum Due {
    In(Duration),
    Now,
    Missed,
}

fn until(due: UnixMs) -> Due {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let due = Duration::from_millis(due.0);
    match due.checked_sub(now) {
        Some(wait) if !wait.is_zero() => Due::In(wait),
        _ if now.saturating_sub(due) > LATE_MAX => Due::Missed,
        _ => Due::Now,
    }
}

/// Puts the switchover itself in the place of the scheduled one, unless that has changed.
async fn begin(node: &Node, raw: Vec<u8>, target: NodeName, epoch: Epoch) {
    tracing::info!(%epoch, "a scheduled switchover is due");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let request = Request::Switchover { target: Some(target), epoch, at };
    answer(node, raw, Write::Put(keys::request(KEY), encode(&request), None)).await;
}

/// Stops the service in order and waits until a successor holds everything. On an error the
/// service may have been stopped, and this leadership is to go on.
pub(super) async fn prepare(scope: &mut Scope<'_>, order: &Order) -> Result<(), Refusal> {
    tracing::info!(epoch = %scope.epoch, %order, "handing over");
    scope.node.board.set(|situation| {
        situation.ready = false;
        situation.state = format!("{order}: letting clients leave");
    });
    drain(scope.node).await;
    scope.node.board.say(format!("{order}: stopping the service"));
    service::stop(scope).await;
    scope.node.board.say(format!("{order}: waiting until its data is there"));
    if let Some(mount) = scope.mount.clone() {
        let written = scope.blocking(move || mount.barrier()).await;
        let failed = match written {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failed {
            return Err(Refusal::new(error, "see this node's messages"));
        }
    }
    let head = scope.node.volume.head().seq;
    // Heard since now: one that hangs may hold everything too, if the service wrote nothing.
    let stopped = std::time::Instant::now();
    let there = async {
        loop {
            let followers = scope.followers.as_ref().map(|leader| leader.followers());
            let holds_all = followers.unwrap_or_default().iter().any(|follower| {
                let meant =
                    order.target.as_ref().is_none_or(|target| target.as_str() == follower.node);
                meant
                    && follower.connected
                    && follower.copy.is_none()
                    && follower.heard < stopped.elapsed()
                    && follower.durable >= head
            });
            if holds_all {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(CATCH_UP, there).await.map_err(|_| {
        let who = order.target.as_ref().map_or("no follower", |target| target.as_str());
        Refusal::new(
            match order.target {
                Some(_) => format!("{who} did not take everything within {CATCH_UP:?}"),
                None => format!("{who} took everything within {CATCH_UP:?}"),
            },
            "see in `mainstay status` whether it is connected and how far it lags",
        )
    })
}

/// Waits until the ambassadors hold new clients, and until those that are here have left, each
/// within its bound.
async fn drain(node: &Node) {
    let mut observed = node.observed.clone();
    let told = |seen: &Observed| {
        let leader = seen.view.as_ref().and_then(|view| view.leader.as_ref());
        leader.is_some_and(|leader| !leader.value.ready)
    };
    let held = |seen: &Observed| {
        told(seen) && seen.view.as_ref().is_some_and(|view| still_forwarding(view).is_empty())
    };
    if timeout(HOLD_WITHIN, observed.wait_for(held)).await.is_err() {
        let view = node.observed.borrow().view.clone();
        let late = view.as_deref().map(still_forwarding).unwrap_or_default().join(", ");
        tracing::warn!(late, "not every ambassador says that it holds new clients");
    }
    let bound = node.config.drain_timeout;
    let left = async {
        // What comes through ambassadors, from wherever, and what this network namespace sees of
        // clients that come by themselves.
        loop {
            let through = node.observed.borrow().view.as_deref().map_or(0, still_connected);
            let here = service_port(node).map_or(0, open_connections);
            if through == 0 && here == 0 {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    };
    if timeout(bound, left).await.is_err() {
        tracing::warn!(?bound, "clients are still connected; the service is stopped under them");
    }
}

fn service_port(node: &Node) -> Option<u16> {
    node.config.process.address.as_ref()?.rsplit_once(':')?.1.parse().ok()
}

/// Established connections whose local end is `port`, as this network namespace knows them.
fn open_connections(port: u16) -> usize {
    let table = |path| std::fs::read_to_string(path).unwrap_or_default();
    let tables = [table("/proc/net/tcp"), table("/proc/net/tcp6")];
    tables.iter().map(|table| established(table, port)).sum()
}

fn established(table: &str, port: u16) -> usize {
    let local_port = format!(":{port:04X}");
    let is_open = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().is_some_and(|local| local.ends_with(&local_port));
        local && words.nth(1) == Some("01")
    };
    table.lines().filter(is_open).count()
}

/// Puts the reason in the request's place. Returns once the coordinator has taken it.
pub(super) async fn refuse(node: &Node, order: &Order, refusal: &Refusal) {
    tracing::warn!(%order, %refusal, "leadership is not handed over");
    let answer_value = Request::SwitchoverRefused { epoch: order.epoch, why: refusal.to_string() };
    let write = Write::Put(keys::request(KEY), encode(&answer_value), None);
    answer(node, order.raw.clone(), write).await;
}

/// Makes `write` if the request is still as it was; asks again while nothing is heard. Returns
/// when the view shows it, so that nobody acts on the answered request again.
async fn answer(node: &Node, raw: Vec<u8>, write: Write) {
    let unchanged = Compare::Value(keys::request(KEY), raw.clone());
    while let Err(error) =
        node.coordinator.transact(vec![unchanged.clone()], vec![write.clone()]).await
    {
        tracing::warn!(%error, "a switchover's request cannot be answered");
        sleep(RETRY).await;
    }
    let is_gone = |seen: &Observed| {
        let request = seen.view.as_ref().and_then(|view| view.requests.get(KEY));
        request.is_none_or(|request| request.raw != raw)
    };
    let _ = node.observed.clone().wait_for(is_gone).await;
}

#[cfg(test)]
mod tests {
    use super::established;

    #[test]
    fn only_established_connections_of_the_services_own_end_count() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
             0: 0100007F:1538 00000000:0000 0A 00000000:00000000\n\
             1: 0100007F:1538 0100007F:9C40 01 00000000:00000000\n\
             2: 0100007F:9C40 0100007F:1538 01 00000000:00000000\n\
             3: 0100007F:1538 0100007F:9C42 06 00000000:00000000\n";
        assert_eq!(established(table, 0x1538), 1);
    }
}
