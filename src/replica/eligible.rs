//! Who may take over: the leader keeps the cluster's list true.
//!
//! A follower is let in once everything that was committed when it was looked at is durable
//! there, and it is taken out when it falls behind the configured bound. Without a bound, a copy
//! that was once complete may take over however old it is, if nobody better is there: then that is
//! what its operator asked for, and status shows the lag.

use std::sync::Arc;
use std::time::Duration;

use mainstay_election::values::{Config, MaxLag, NodeName};
use mainstay_sync::position::Seq;
use mainstay_sync::replicate::{FollowerStatus, Leader};

use super::convert;
use super::node::Node;

/// How often the list is looked at, beside each change among the followers.
const INTERVAL: Duration = Duration::from_millis(500);

/// Keeps the list true for as long as the leadership lasts.
pub(super) async fn keep(node: Node, leader: Arc<Leader>) {
    let mut changes = leader.changes();
    loop {
        let config = node
            .observed
            .borrow()
            .view
            .as_ref()
            .and_then(|view| view.config.as_ref().map(|stored| stored.value.clone()));
        if let Some(config) = config {
            let committed = node.volume.commit().committed();
            for follower in leader.followers() {
                let Ok(name) = follower.node.parse::<NodeName>() else { continue };
                let volume = convert::volume(follower.volume);
                let listed = is_listed(&config, &name, volume);
                // Before the epoch's start is committed nobody knows what that is.
                let caught_up = committed > Seq(0)
                    && follower.connected
                    && follower.copy.is_none()
                    && follower.durable >= committed;
                if !listed && caught_up {
                    tracing::info!(node = %name, "has caught up and may take over");
                    node.runner.set_eligible(name, volume, true).await;
                } else if listed && is_beyond(&follower, config.max_lag) {
                    tracing::warn!(node = %name, lag = ?follower, "is too far behind to take over");
                    node.runner.set_eligible(name, volume, false).await;
                }
            }
        }
        let _ = tokio::time::timeout(INTERVAL, changes.changed()).await;
        // Records come by the thousand; the list need not be looked at for each.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_listed(
    config: &Config,
    name: &NodeName,
    volume: mainstay_election::values::VolumeId,
) -> bool {
    config.eligible.iter().any(|member| member.node == *name && member.volume == volume)
}

fn is_beyond(follower: &FollowerStatus, bound: MaxLag) -> bool {
    bound.bytes.is_some_and(|bytes| follower.lag_bytes > bytes)
        || bound.ms.is_some_and(|ms| follower.lag_ms > ms)
}
