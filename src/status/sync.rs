//! What sync durability is worth now, in words: how many copies, whether writes wait, and since
//! when.

use std::time::Duration;

use mainstay_election::values::{Config, Replica, majority};
use mainstay_election::view::View;

use super::table;

/// What an acknowledged fsync is worth now, and why not more.
pub(super) fn guarantee(view: &View, config: &Config) -> (String, String) {
    let voters = config.voters.len();
    let copies = config.write_quorum;
    let worth = match copies {
        1 => format!("an acknowledged fsync is on 1 disk of {voters}"),
        _ => format!("an acknowledged fsync is on {copies} disks of {voters} and survives any one"),
    };
    let now = match waiting(view) {
        Some(since) => format!(
            "writes wait: the leader has not heard the {copies} of {voters} voters that a write \
             needs for {}; {worth}",
            table::span_text(since)
        ),
        None => worth,
    };
    let why_not_more = if config.degraded {
        "fewer copies are kept than were asked for, until enough voters are back".to_owned()
    } else if voters < 3 {
        format!("{voters} of the replicas are voters; with three, one may be lost")
    } else {
        String::new()
    };
    (now, why_not_more)
}

/// Fewer copies than asked for, or none at all any more.
pub(super) fn is_short(view: &View) -> bool {
    let config = view.config.as_ref().map(|config| &config.value);
    config.is_some_and(|config| {
        config.is_sync() && (config.degraded || config.voters.len() < 2 || waiting(view).is_some())
    })
}

/// What an operator can do about it.
pub(super) fn to_do(view: &View) -> Option<String> {
    let config = view.config.as_ref().map(|config| &config.value).filter(|it| it.is_sync())?;
    waiting(view)?;
    let absent: Vec<&str> = config
        .voters
        .iter()
        .filter(|voter| !view.replicas.contains_key(voter.node.as_str()))
        .map(|voter| voter.node.as_str())
        .collect();
    let start = match absent.as_slice() {
        [] => "mend the network between the leader and its voters".to_owned(),
        some => format!("start {}", some.join(" or ")),
    };
    let needed = majority(config.voters.len());
    Some(format!(
        "{start}: a write needs {needed} of {} voters; or go on with fewer copies: mainstay degrade",
        config.voters.len()
    ))
}

/// For how long the leader has had no write quorum.
fn waiting(view: &View) -> Option<u64> {
    let leader = &view.leader.as_ref()?.value;
    let replica: &Replica = &view.replicas.get(leader.node.as_str())?.value;
    replica.quorum_lost_ms.filter(|ms| *ms > SHORT_MS)
}

/// A shorter wait is not worth a word.
const SHORT_MS: u64 = Duration::from_secs(1).as_millis() as u64;
