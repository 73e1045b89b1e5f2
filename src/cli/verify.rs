//! `verify`: asks the leader to have all contents compared, and says what came of it.

use std::process::ExitCode;
use std::time::Duration;

use mainstay_election::coordinator::Coordinator;
use mainstay_election::values::{Replica, Request, Role, UnixMs};
use mainstay_election::view::View;

use super::bars::Bars;
use super::complaint::Complaint;
use super::observe::{now, put, view, with_coordinator};
use super::{VERIFY, say};
use crate::config::ClusterConfig;
use crate::status::verified;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A replica's word on it may come so much later than the leader's that it is done.
const WORDS_WITHIN: Duration = Duration::from_secs(10);

/// Asks for it; fails if anything differed, or somebody was not compared.
pub(super) fn ask(cluster: &ClusterConfig, wait: bool) -> Result<ExitCode, Complaint> {
    with_coordinator(cluster, async |coordinator| {
        let seen = view(coordinator).await?;
        if seen.leader.is_none() {
            return Err(Complaint::failure("nobody leads, so there is nothing to compare with")
                .with_fix("see `mainstay status`, and ask again when there is a leader"));
        }
        let at = now();
        put(coordinator, &seen, VERIFY, &Request::Verify { at }).await?;
        if !wait {
            say("asked to compare; `mainstay status --json` shows what comes of it\n")?;
            return Ok(ExitCode::SUCCESS);
        }
        let seen = done(coordinator, at).await?;
        let mut failed = false;
        for replica in followers(&seen) {
            let line = verified::line(replica, now());
            match said_since(replica, at) {
                true => say(&format!("{line}\n"))?,
                // Not connected, or slow: what it once said says nothing of now.
                false => say(&format!("NOT COMPARED NOW: {line}\n"))?,
            }
            failed |= !said_since(replica, at);
            failed |= replica.verified.as_ref().is_some_and(verified::differed);
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

fn said_since(replica: &Replica, asked: UnixMs) -> bool {
    replica.verified.as_ref().is_some_and(|of| of.at >= asked)
}

fn followers(seen: &View) -> impl Iterator<Item = &Replica> {
    let all = seen.replicas.values().map(|replica| &replica.value);
    all.filter(|replica| replica.role == Role::Follower)
}

/// Waits until the leader has removed the request, and the followers have said what they found.
async fn done(coordinator: &dyn Coordinator, asked: UnixMs) -> Result<View, Complaint> {
    let mut left = WORDS_WITHIN;
    let mut bars = Bars::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let seen = view(coordinator).await?;
        if seen.requests.contains_key(VERIFY) {
            bars.show(followers(&seen).filter_map(|of| Some((of.node.as_str(), of.progress?))));
            continue;
        }
        let said = followers(&seen).all(|of| said_since(of, asked));
        left = left.saturating_sub(LOOK_EVERY);
        if said || left.is_zero() {
            bars.clear();
            return Ok(seen);
        }
    }
}
