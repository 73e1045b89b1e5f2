//! The leader's terms, carried out: by which rule its log commits, whom it hears, and whose copies
//! are complete.
//!
//! The election's machine decides the terms; this applies them and says what came of it. Hazard:
//! a rule that is in force later than the machine believes. So the terms are set before the first
//! record of an epoch, and `covered` is only ever said of terms that are in force.

use std::sync::Arc;
use std::time::Duration;

use mainstay_election::machine::Moment;
use mainstay_election::values::{Member, NodeName, Term, Terms, VolumeId};
use mainstay_sync::position::Seq;
use mainstay_sync::replicate::{FollowerStatus, Leader};
use tokio::sync::watch;

use super::convert;
use super::node::Node;

/// How often it is looked at, beside each change among the followers and of the terms.
const INTERVAL: Duration = Duration::from_millis(200);

/// Acknowledgements come by the thousand; the election need not hear of each.
const PAUSE: Duration = Duration::from_millis(50);

/// Puts the terms in force that the election last said.
pub(super) fn apply(node: &Node, terms: &Terms) {
    node.volume.apply_committed_only(terms.0.iter().any(|term| *term != Term::Local));
    node.volume.commit().set_rule(convert::rule(terms, node.volume.id()));
}

/// Keeps the terms in force and the board told, for as long as the leadership lasts.
pub(super) async fn keep(
    node: Node,
    leader: Arc<Leader>,
    mut terms: watch::Receiver<Option<Terms>>,
    mut in_force: Option<Terms>,
) {
    let mut changes = leader.changes();
    loop {
        let wanted = terms.borrow_and_update().clone();
        if wanted != in_force {
            if let Some(terms) = &wanted {
                apply(&node, terms);
            }
            in_force = wanted;
        }
        tell(&node, &leader, in_force.as_ref());
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = changes.changed() => {}
            _ = terms.changed() => continue,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn tell(node: &Node, leader: &Leader, in_force: Option<&Terms>) {
    let commit = node.volume.commit();
    let committed = commit.committed();
    let followers = leader.followers();
    let ours = convert::volume(node.volume.id());
    let me = Member { node: node.config.node.clone(), volume: ours };
    let mut caught_up = vec![me];
    caught_up.extend(followers.iter().filter_map(|follower| {
        // Before the epoch's start is committed nobody knows what that is. And a voter's copy counts
        // for what was acknowledged, so it must be known to be one.
        let complete = committed > Seq(0)
            && follower.connected
            && follower.compared
            && follower.copy.is_none()
            && follower.durable >= committed;
        let node = follower.node.parse::<NodeName>().ok().filter(|_| complete)?;
        Some(Member { node, volume: convert::volume(follower.volume) })
    }));
    let now = mainstay_election::runner::boot_now();
    let covered = in_force.filter(|_| commit.covered()).cloned();
    node.board.set(|situation| {
        if let Some(terms) = in_force {
            situation.quorum_heard = quorum_heard(terms, ours, &followers, now);
        }
        situation.caught_up = caught_up;
        situation.covered = covered;
    });
}

/// When the newest word was said that every quorum of the terms has answered.
fn quorum_heard(
    terms: &Terms,
    ours: VolumeId,
    followers: &[FollowerStatus],
    now: Moment,
) -> Moment {
    let heard = |voter: &VolumeId| {
        if *voter == ours {
            return now;
        }
        let follower = followers.iter().find(|it| convert::volume(it.volume) == *voter);
        follower.map_or(Moment::NEVER, |it| Moment::new(Duration::from_nanos(it.echo.0)))
    };
    let of = |term: &Term| match term {
        Term::Local => now,
        Term::Quorum { voters, needed } => {
            let mut all: Vec<Moment> = voters.iter().map(heard).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            let last = usize::try_from(*needed).unwrap_or(usize::MAX).max(1) - 1;
            all.get(last).copied().unwrap_or(Moment::NEVER)
        }
    };
    terms.0.iter().map(of).min().unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use mainstay_sync::position;
    use mainstay_sync::replicate::Stamp;

    use super::*;

    fn follower(volume: u8, echo_ms: u64) -> FollowerStatus {
        FollowerStatus {
            node: format!("n{volume}"),
            volume: position::VolumeId([volume; 16]),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            connected: true,
            since: Duration::ZERO,
            heard: Duration::ZERO,
            durable: Seq(0),
            applied: Seq(0),
            sent: Seq(0),
            echo: Stamp(echo_ms * 1_000_000),
            rtt: Duration::ZERO,
            lag_ops: 0,
            lag_bytes: 0,
            lag_ms: 0,
            copy: None,
            compared: true,
            verified: None,
        }
    }

    fn quorum(voters: &[u8], needed: u32) -> Term {
        Term::Quorum { voters: voters.iter().map(|id| VolumeId([*id; 16])).collect(), needed }
    }

    #[test]
    fn a_quorum_was_heard_when_its_slowest_member_was() {
        let at = |ms| Moment::new(Duration::from_millis(ms));
        let heard = |terms: &[Term]| {
            let followers = [follower(2, 700), follower(3, 400), follower(9, 999)];
            quorum_heard(&Terms(terms.to_vec()), VolumeId([1; 16]), &followers, at(1000))
        };
        assert_eq!(heard(&[Term::Local]), at(1000));
        assert_eq!(heard(&[quorum(&[1, 2, 3], 2)]), at(700));
        assert_eq!(heard(&[quorum(&[1, 2, 3], 3)]), at(400));
        assert_eq!(heard(&[quorum(&[1, 2, 3], 2), quorum(&[1, 3], 2)]), at(400), "both count");
        assert_eq!(heard(&[quorum(&[1], 2)]), Moment::NEVER, "more than there are");
        assert_eq!(heard(&[quorum(&[1, 4], 2)]), Moment::NEVER, "one that never followed");
    }
}
