//! Who may take over: the leader keeps the cluster's list true, and in async durability the
//! service's writes within what that list promises (the rule is in [`bound`]).
//!
//! A follower is let in once everything that was committed when it was looked at is durable
//! there. Order matters: it counts for the bound from before the list is asked to name it, and
//! until a view of the coordinator shows the list without it. A takeover compares the config that
//! it was decided by, so nobody can win by an older list than that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_election::values::{Config, MaxLag, NodeName, VolumeId};
use mainstay_election::view::View;
use mainstay_sync::position::Seq;
use mainstay_sync::replicate::{FollowerStatus, Leader};
use mainstay_sync::volume::Allowance;

use super::bound::{self, Heir, WRITE_BYTES};
use super::convert;
use super::node::Node;

/// How often the list is looked at, beside each change among the followers.
const INTERVAL: Duration = Duration::from_millis(500);
/// Records come by the thousand; the list need not be looked at for each.
const PACE: Duration = Duration::from_millis(50);
/// The same while the service waits.
const PACE_SLOWED: Duration = Duration::from_millis(2);

/// Those that count for the bound beside the list: asked to be on it, and perhaps asked to be off
/// again at that moment. A request under way may still come true; for how long is up to the
/// coordinator, and the ttl is longer than it waits for any.
type Asked = BTreeMap<NodeName, (VolumeId, Option<Instant>)>;

/// Keeps the list true for as long as the leadership lasts.
pub(super) async fn keep(node: Node, leader: Arc<Leader>) {
    let mut changes = leader.changes();
    let mut views = node.observed.clone();
    let mut asked = Asked::new();
    let began = Instant::now();
    loop {
        let view = views.borrow_and_update().view.clone();
        let mut slowed = false;
        if let Some(view) = &view
            && let Some(config) = view.config.as_ref().map(|stored| &stored.value)
        {
            let bound = if config.is_sync() { MaxLag::default() } else { config.max_lag };
            // Before anything else is looked at: what is appended from here on is not in the lags.
            let appended = node.volume.appended_bytes();
            let followers = leader.followers();
            let heirs = heirs(&node, view, config, &followers, &asked, began);
            slowed = node.volume.wants_to_append();
            let decision = bound::decide(bound, &heirs, slowed, node.settings.suspect_after);
            allow(&node, appended, &decision);
            for name in &decision.dismissed {
                let listed = config.eligible.iter().find(|member| member.node == *name);
                let volume = match (listed, asked.get_mut(name)) {
                    (Some(member), _) => member.volume,
                    (None, Some((_, Some(_)))) | (None, None) => continue,
                    (None, Some((volume, off))) => {
                        *off = Some(Instant::now());
                        *volume
                    }
                };
                let lag = heirs.iter().find(|heir| heir.node == *name);
                tracing::warn!(node = %name, ?lag, "is too far behind to take over");
                node.runner.set_eligible(name.clone(), volume, false).await;
            }
            if ask(&node, config, bound, &followers, &decision.dismissed, &mut asked).await {
                // It is bounded for from the next look on, and only then asked for.
                continue;
            }
        }
        // What the service's writes wait for may be said by any of these.
        tokio::select! {
            () = tokio::time::sleep(if slowed { PACE } else { INTERVAL }) => {}
            _ = changes.changed() => {}
            _ = views.changed() => {}
        }
        tokio::time::sleep(if slowed { PACE_SLOWED } else { PACE }).await;
    }
}

fn allow(node: &Node, appended: u64, decision: &bound::Decision) {
    let bounded = decision.bytes.is_some() || decision.time.is_some();
    node.volume.allow_appends(bounded.then(|| Allowance {
        bytes: decision.bytes.map_or(u64::MAX, |room| appended.saturating_add(room)),
        until: decision.time.map(|left| Instant::now() + left),
    }));
    let held_up = decision.slowed_by.as_ref().map(|heir| {
        format!("writes wait for {heir}, the only one who may take over, at the bound of max_lag")
    });
    node.board.set(|situation| situation.held_up = held_up);
}

/// Asks to let in those who have caught up, in two steps: at the first look it only counts for the
/// bound, and once that is in force the list is asked to name it. Says whether somebody is new.
async fn ask(
    node: &Node,
    config: &Config,
    bound: MaxLag,
    followers: &[FollowerStatus],
    dismissed: &[NodeName],
    asked: &mut Asked,
) -> bool {
    let over = |off: &Option<Instant>| off.is_some_and(|off| off.elapsed() > node.settings.ttl);
    asked.retain(|name, (volume, off)| !is_listed(config, name, *volume) && !over(off));
    let committed = node.volume.commit().committed();
    let mut new = false;
    for follower in followers {
        let Ok(name) = follower.node.parse::<NodeName>() else { continue };
        let volume = convert::volume(follower.volume);
        if is_listed(config, &name, volume) || dismissed.contains(&name) {
            continue;
        }
        // This look has bounded what may be written by what it lacks.
        if asked.get(&name) == Some(&(volume, None)) {
            node.runner.set_eligible(name, volume, true).await;
            continue;
        }
        // Before the epoch's start is committed nobody knows what that is.
        let caught_up = committed > Seq(0)
            && follower.connected
            && follower.copy.is_none()
            && follower.durable >= committed;
        // At a bound that is nearly reached it would be asked to go again.
        let fits = bound.bytes.is_none_or(|max| follower.lag_bytes + WRITE_BYTES <= max / 2)
            && bound.ms.is_none_or(|max| follower.lag_ms <= max / 2);
        if caught_up && fits {
            tracing::info!(node = %name, "has caught up and may take over");
            asked.insert(name, (volume, None));
            new = true;
        }
    }
    new
}

/// Everybody who may take over, or may have been let in by now, with what it lacks.
fn heirs(
    node: &Node,
    view: &View,
    config: &Config,
    followers: &[FollowerStatus],
    asked: &Asked,
    began: Instant,
) -> Vec<Heir> {
    let listed = config.eligible.iter().map(|member| (member.node.clone(), member.volume));
    let asked = asked.iter().map(|(name, (volume, _))| (name.clone(), *volume));
    let mut all: BTreeMap<NodeName, VolumeId> = asked.collect();
    all.extend(listed.filter(|(name, _)| *name != node.config.node));
    let heir = |(name, volume): (NodeName, VolumeId)| {
        let status = followers.iter().find(|follower| {
            follower.node == name.as_str() && convert::volume(follower.volume) == volume
        });
        match status {
            Some(follower) => Heir {
                node: name,
                lag_bytes: follower.lag_bytes,
                lag_ms: follower.lag_ms,
                connected: follower.connected,
                silent: follower.heard,
            },
            None => unheard(node, view, name, volume, began.elapsed()),
        }
    };
    all.into_iter().map(heir).collect()
}

/// One that has not come to this leader yet: what it lacks by what it says of itself elsewhere.
fn unheard(node: &Node, view: &View, name: NodeName, volume: VolumeId, silent: Duration) -> Heir {
    let position = view
        .replicas
        .get(name.as_str())
        .filter(|replica| replica.value.volume == volume)
        .map(|replica| replica.value.position);
    let lineage = node.volume.lineage();
    let ours = lineage.0.last().map_or(Seq(0), |(_, first)| *first);
    let shared = position.filter(|position| {
        let epoch = lineage.epoch_at(Seq(position.seq.0));
        epoch.is_some_and(|epoch| epoch.0 == position.epoch.0)
    });
    let seq = shared.map_or(Seq(0), |position| Seq(position.seq.0));
    let lag_bytes =
        if seq < node.volume.head().seq { node.volume.log().bytes_after(seq) } else { 0 };
    // What it lacks of earlier leaders' times is of an age that nobody knows.
    let lag_ms = match () {
        () if lag_bytes == 0 => 0,
        () if seq.next() >= ours => u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
        () => u64::MAX,
    };
    Heir { node: name, lag_bytes, lag_ms, connected: false, silent }
}

fn is_listed(config: &Config, name: &NodeName, volume: VolumeId) -> bool {
    config.eligible.iter().any(|member| member.node == *name && member.volume == volume)
}
