//! Following, as a scope: a session with one leader for as long as the directive names it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_election::machine::{Directive, Moment, Settings};
use mainstay_election::runner::boot_now;
use mainstay_election::values::{Epoch, Lag, Progress, Task, UnixMs, Verification};
use mainstay_sync::replicate::{Follower, FollowerOptions, LeaderAddress, Phase, Status};
use tokio::sync::watch;

use super::convert;
use super::node::Node;

/// A leader speaks more often than this, records or not.
const SILENCE: Duration = Duration::from_secs(2);
/// Clocks that differ by more than this are worth a word.
const CLOCK_APART_MS: i64 = 5_000;
/// How often the lag is computed again while nothing else changes.
const INTERVAL: Duration = Duration::from_millis(200);

/// Follows the directive's leader until the directive is another one or the daemon stops.
pub(super) async fn follow(
    node: &Node,
    directive: &Directive,
    directives: &mut watch::Receiver<Directive>,
) {
    let Directive::Follow { leader, epoch, peer, .. } = directive else { return };
    let mut stop = node.stop.clone();
    let over = |now: &Directive| now != directive;
    let Some(address) = (tokio::select! {
        _ = directives.wait_for(over) => None,
        () = stop.requested() => None,
        address = resolve(node, peer) => Some(address),
    }) else {
        return;
    };
    let epoch = *epoch;
    let leader =
        LeaderAddress { node: leader.to_string(), address, epoch: convert::to_log_epoch(epoch) };
    remember_comparison(node).await;
    let sink = Arc::new(node.volume.clone());
    let options = FollowerOptions {
        beat: beat(&node.settings),
        verify_bandwidth: node.config.verify_bandwidth,
        ..FollowerOptions::default()
    };
    let follower = Follower::start(&node.endpoint, sink, leader, options);
    let mut status = follower.status();
    tokio::select! {
        _ = directives.wait_for(over) => {}
        () = stop.requested() => {}
        () = tell(node, epoch, &mut status) => {}
    }
    follower.stop().await;
    node.board.set(|situation| {
        situation.state = "waiting".to_owned();
        situation.progress = None;
    });
}

/// A comparison outlives the process that made it: the volume knows when it was.
async fn remember_comparison(node: &Node) {
    if node.board.read().verified.is_some() {
        return;
    }
    let volume = node.volume.clone();
    let compared = tokio::task::spawn_blocking(move || volume.compared()).await;
    // One without a time is a copy that was made of the leader's bytes.
    if let Ok(Some(compared)) = compared
        && compared.at_s > 0
    {
        let verification = Verification {
            at: UnixMs(compared.at_s.saturating_mul(1000)),
            seq: convert::seq(compared.seq),
            ..Verification::default()
        };
        node.board.set(|situation| situation.verified = Some(verification));
    }
}

/// How often either side of a session speaks, with or without news: several times within what it
/// takes to be missed.
pub(super) fn beat(settings: &Settings) -> Duration {
    (settings.suspect_after / 5).min(Duration::from_millis(500))
}

fn on_boot_clock(at: Instant) -> Moment {
    Moment::new(boot_now().since_boot().saturating_sub(at.elapsed()))
}

/// The peer's address, asked for again until there is one: in a container network a leader's name
/// may come up after it does.
async fn resolve(node: &Node, peer: &str) -> SocketAddr {
    loop {
        match tokio::net::lookup_host(peer).await.map(|mut found| found.next()) {
            Ok(Some(address)) => return address,
            Ok(None) => node.board.say(format!("the leader's address {peer} has no IP address")),
            Err(error) => {
                node.board.say(format!("the leader's address {peer} cannot be resolved: {error}"));
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Puts what the session says on the board.
async fn tell(node: &Node, epoch: Epoch, status: &mut watch::Receiver<Status>) {
    let mut said: Option<String> = None;
    let mut clock_said = false;
    let mut verified = 0;
    loop {
        let now = status.borrow_and_update().clone();
        if now.trouble != said {
            said.clone_from(&now.trouble);
            if let Some(trouble) = &said {
                tracing::warn!(%trouble, "following");
            }
        }
        let ahead = now.leader_clock_ahead_ms.unwrap_or(0);
        if ahead.abs() >= CLOCK_APART_MS && !clock_said {
            clock_said = true;
            tracing::warn!(
                leader_ahead_ms = ahead,
                "this node's clock and the leader's are far apart; nothing is decided by either, \
                 but lag and times of day are wrong: check the time service on both"
            );
        }
        if let Some(of) = now.verified.as_ref().filter(|of| of.run != verified) {
            verified = of.run;
            let verification = super::verify::told(of);
            node.board.set(|situation| situation.verified = Some(verification));
        }
        let head = now.leader_head.0;
        let durable = node.volume.durable().seq.0;
        node.board.set(|situation| {
            situation.state = describe(&now);
            situation.progress = progress(&now);
            if let Some(heard) = now.heard {
                // A leader that said goodbye is not waited for.
                let at = if now.goodbye { Moment::NEVER } else { on_boot_clock(heard) };
                situation.heard = Some((epoch, at));
            }
            let ops = head.saturating_sub(durable);
            // A leader that is silent may have written more than anybody here knows: then the lag
            // is at least as old as its last word.
            let silent = now.heard.map_or(Duration::ZERO, |heard| heard.elapsed());
            let silent = silent.saturating_sub(SILENCE).as_millis();
            let ms = now.behind_ms.max(u64::try_from(silent).unwrap_or(u64::MAX));
            situation.lag = match ops {
                0 if silent == 0 => Lag::default(),
                ops => Lag { ops, bytes: now.behind_bytes, ms },
            };
        });
        let changed = tokio::time::timeout(INTERVAL, status.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            tracing::error!("the follower's task ended; it is started again");
            tokio::time::sleep(Duration::from_secs(1)).await;
            return;
        }
    }
}

/// What takes long enough for people to watch.
fn progress(status: &Status) -> Option<Progress> {
    match &status.phase {
        Phase::Copying { bytes, bytes_total, bytes_per_second } => Some(Progress {
            task: Task::Copying,
            done: *bytes,
            total: *bytes_total,
            bytes_per_second: *bytes_per_second,
            ms_left: (bytes_total.saturating_sub(*bytes))
                .saturating_mul(1000)
                .checked_div(*bytes_per_second),
        }),
        Phase::CatchingUp { chunks, chunks_total, bytes_per_second, ms_left, .. } => {
            Some(Progress {
                task: Task::CatchingUp,
                done: *chunks,
                total: *chunks_total,
                bytes_per_second: *bytes_per_second,
                ms_left: *ms_left,
            })
        }
        _ => status.verifying.map(|of| Progress {
            task: Task::Comparing,
            done: of.chunks,
            total: of.chunks_total,
            bytes_per_second: of.bytes_per_second,
            ms_left: of.ms_left,
        }),
    }
}

fn describe(status: &Status) -> String {
    let trouble = status.trouble.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match &status.phase {
        Phase::Connecting => format!("connecting{trouble}"),
        Phase::Copying { bytes, bytes_total, bytes_per_second } => {
            let percent = (bytes * 100).checked_div(*bytes_total).unwrap_or(0).min(100);
            format!(
                "copying: {} of {} MiB ({percent} %), {} MiB/s",
                bytes >> 20,
                bytes_total >> 20,
                bytes_per_second >> 20
            )
        }
        Phase::CatchingUp { bytes, chunks, chunks_total, bytes_per_second, ms_left } => {
            let percent = (chunks * 100).checked_div(*chunks_total).unwrap_or(0).min(100);
            let left = ms_left.map(|ms| format!(", {} s left", ms.div_ceil(1000)));
            format!(
                "catching up: {chunks} of {chunks_total} chunks compared ({percent} %), {} MiB \
                 fetched at {} MiB/s{}",
                bytes >> 20,
                bytes_per_second >> 20,
                left.unwrap_or_default()
            )
        }
        Phase::Streaming => "streaming".to_owned(),
        Phase::Refused(refusal) => format!("refused by the leader: {refusal}"),
    }
}
