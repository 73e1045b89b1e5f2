//! What the API tells of this replica, made anew a few times a second from what the parts say.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mainstay_ambassador::{Ambassador, prometheus_text};
use mainstay_election::runner::boot_now;
use mainstay_election::values::{Term, UnixMs};
use tokio::sync::watch;

use super::node::Node;
use crate::api::{Attestation, Condition, Snapshot};
use crate::status::{Facts, Report};
use crate::telemetry::metrics::Metrics;

const INTERVAL: Duration = Duration::from_millis(500);
/// The board changes with every acknowledgement; a snapshot is not made for each.
const PACE: Duration = Duration::from_millis(100);

/// Publishes snapshots until the receivers are gone.
pub(super) async fn publish(
    node: Node,
    proxy: watch::Receiver<Option<Arc<Ambassador>>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
) {
    let mut situation = node.board.subscribe();
    while !snapshots.is_closed() {
        situation.borrow_and_update();
        let next = snapshot(&node, proxy.borrow().as_deref());
        snapshots.send_replace(Arc::new(next));
        let _ = tokio::time::timeout(INTERVAL, situation.changed()).await;
        tokio::time::sleep(PACE).await;
    }
}

/// How this replica is now.
pub(super) fn snapshot(node: &Node, proxy: Option<&Ambassador>) -> Snapshot {
    let mut metrics = metrics(node).render();
    let ambassador = proxy.map(|proxy| Arc::new(proxy.stats()));
    if let Some(stats) = &ambassador {
        metrics.push_str(&prometheus_text(stats));
    }
    let (condition, status) = (condition(node), status(node));
    let attestation = attestation(node);
    Snapshot { condition, status, metrics, attestation, ambassador, at: Instant::now() }
}

/// What a write quorum's last word is worth, as the election's gate counts it.
fn attestation(node: &Node) -> Option<Attestation> {
    let situation = node.board.read();
    let epoch = situation.leading.filter(|_| situation.ready)?;
    let by_quorum = situation
        .covered
        .as_ref()
        .is_some_and(|terms| terms.0.iter().any(|term| matches!(term, Term::Quorum { .. })));
    let settings = &node.settings;
    let until = situation.quorum_heard + settings.ttl.saturating_sub(settings.kill_margin);
    let left = until.since(boot_now());
    (by_quorum && !left.is_zero()).then(|| Attestation {
        service: node.config.cluster.service.clone(),
        epoch: epoch.0,
        until: Instant::now() + left,
    })
}

fn condition(node: &Node) -> Condition {
    let situation = node.board.read();
    match (situation.ready, situation.state.as_str()) {
        (true, _) => Condition::Leading,
        (false, "streaming") => Condition::Following,
        (false, other) => Condition::Unwell(other.to_owned()),
    }
}

/// The whole cluster as the coordinator shows it; says so if it cannot be reached.
fn status(node: &Node) -> String {
    let observed = node.observed.borrow().clone();
    let Some(view) = observed.view else {
        let why = observed.silence.unwrap_or_else(|| "it has not answered yet".to_owned());
        return serde_json::json!({ "error": format!("no view of the coordinator: {why}") })
            .to_string();
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let facts = Facts {
        service: &node.config.cluster.service,
        view: &view,
        ttl: node.settings.ttl,
        now: UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
    };
    Report::of(&facts).to_json()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are floats")]
fn metrics(node: &Node) -> Metrics {
    let (volume, situation) = (&node.volume, node.board.read());
    let mut metrics = Metrics::default();
    let none: &[(&str, &str)] = &[];
    let mut gauge = |name, help, value: u64| metrics.gauge(name, help, none, value as f64);
    gauge("mainstay_leading", "1 while this replica leads", situation.leading.is_some().into());
    gauge("mainstay_ready", "1 while it leads and the service answers", situation.ready.into());
    gauge("mainstay_epoch", "Epoch of the last record in the log", volume.head().epoch.0);
    gauge("mainstay_head_seq", "Last record in the log", volume.head().seq.0);
    gauge("mainstay_durable_seq", "Last durable record", volume.durable().seq.0);
    gauge("mainstay_applied_seq", "Last record in the objects", volume.applied().0);
    gauge("mainstay_committed_seq", "Last committed record", volume.commit().committed().0);
    gauge("mainstay_promised_epoch", "No record up to this epoch is taken", volume.promised().0);
    gauge("mainstay_building", "1 while the copy is not complete", volume.building().into());
    gauge("mainstay_log_bytes", "Log that no checkpoint covers", volume.log().unreleased_bytes());
    let age = node.observed.borrow().age().unwrap_or(Duration::MAX);
    metrics.gauge(
        "mainstay_coordinator_age_seconds",
        "How long ago the coordinator was last read",
        none,
        age.as_secs_f64().min(1e9),
    );
    let followers = node.followers.borrow().as_ref().map(|leader| leader.followers());
    for follower in followers.unwrap_or_default() {
        let label = [("follower", follower.node.as_str())];
        let connected = u8::from(follower.connected);
        let mut gauge = |name, help, value: f64| metrics.gauge(name, help, &label, value);
        gauge("mainstay_follower_connected", "1 while its session lives", connected.into());
        gauge("mainstay_follower_lag_ops", "Records not durable there", follower.lag_ops as f64);
        gauge("mainstay_follower_lag_bytes", "Bytes of those", follower.lag_bytes as f64);
        let seconds = follower.lag_ms as f64 / 1e3;
        gauge("mainstay_follower_lag_seconds", "Age of the oldest of those", seconds);
        gauge("mainstay_follower_rtt_seconds", "There and back", follower.rtt.as_secs_f64());
    }
    metrics
}
