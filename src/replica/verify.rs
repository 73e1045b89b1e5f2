//! When the followers compare their content with the leader's: on a schedule, when an operator asks,
//! and soon where it never was, as such a copy makes no voter.

use std::sync::Arc;
use std::time::Duration;

use mainstay_election::coordinator::Write;
use mainstay_election::values::{Difference, Request, UnixMs, Verification, keys};
use mainstay_sync::replicate::{Leader, Mismatch, Outcome, Verified};
use tokio::time::{Instant, sleep};

use super::{convert, node::Node};
use crate::cli::VERIFY;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A follower that was never compared is asked again after so long.
const UNCOMPARED_EVERY: Duration = Duration::from_secs(60);
/// Differences that the coordinator is told of; the node's log and its quarantine have them all.
const DIFFERENCES_MAX: usize = 10;
/// A follower that does not get done keeps an operator waiting for so long.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Asks for comparisons for as long as the leadership lasts.
pub(super) async fn keep(node: Node, leader: Arc<Leader>) {
    let mut last = Instant::now();
    loop {
        sleep(LOOK_EVERY).await;
        let asked = asked(&node);
        let uncompared = leader
            .followers()
            .iter()
            .any(|of| of.connected && !of.compared && of.copy.is_none() && of.lag_ops == 0);
        let since = last.elapsed();
        let every = node.config.verify_every;
        let due = every.is_some_and(|every| since >= every)
            || (uncompared && since >= UNCOMPARED_EVERY.min(every.unwrap_or(UNCOMPARED_EVERY)));
        if !due && asked.is_none() {
            continue;
        }
        last = Instant::now();
        let run = leader.verify();
        tracing::info!(run, "the followers compare their content");
        if asked.is_some() {
            done(&leader, run).await;
            let delete = Write::Delete(keys::request(VERIFY));
            if let Err(error) = node.coordinator.transact(Vec::new(), vec![delete]).await {
                tracing::warn!(%error, "the request to verify could not be removed");
            }
        }
    }
}

fn asked(node: &Node) -> Option<UnixMs> {
    let view = node.observed.borrow().view.clone()?;
    match &view.requests.get(VERIFY)?.value {
        Request::Verify { at } => Some(*at),
        _ => None,
    }
}

/// Waits until every follower that is connected has done it.
async fn done(leader: &Leader, run: u64) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let of = leader.followers();
        let left = |of: &mainstay_sync::replicate::FollowerStatus| {
            of.connected && of.verified.as_ref().is_none_or(|of| of.run < run)
        };
        if !of.iter().any(left) {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What a follower tells of it.
pub(super) fn told(of: &Verified) -> Verification {
    let count = |outcome| {
        let found = of.mismatches.iter().filter(|of| of.outcome == outcome).count();
        u64::try_from(found).unwrap_or(u64::MAX)
    };
    let (leader_wrong, left) = (count(Outcome::LeaderIsWrong), count(Outcome::MovedOn));
    Verification {
        at: super::clock::wall(),
        seq: convert::seq(of.at),
        chunks: of.compared,
        moved_on: of.moved_on + left,
        mended: of.mismatched.saturating_sub(leader_wrong + left),
        leader_wrong,
        differences: of.mismatches.iter().take(DIFFERENCES_MAX).map(difference).collect(),
    }
}

fn difference(of: &Mismatch) -> Difference {
    let done = match of.outcome {
        Outcome::Mended => "mended from the leader; what was here is in quarantine",
        Outcome::LeaderIsWrong => "the leader's disk has changed it, nothing was done",
        Outcome::MovedOn => "written meanwhile, left to the next comparison",
    };
    Difference {
        file: of.file.clone(),
        offset: of.offset,
        leader: of.leader.clone(),
        here: of.follower.clone(),
        done: done.to_owned(),
    }
}
