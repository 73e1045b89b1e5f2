//! What comparing the replicas' contents found, in words.

use std::fmt::Write;

use mainstay_election::values::{Difference, Replica, Role, UnixMs, Verification};

use super::{ReplicaLine, Report, table};

/// When the replicas' contents were last compared with the leader's, if one's ever was; for status.
pub(super) fn compared(report: &Report) -> Option<String> {
    let followers = report.replicas.iter().filter(|of| of.role == Some(Role::Follower));
    let said = |of: &ReplicaLine| match &of.verified {
        Some(found) => {
            let age = table::span_text(report.now.0.saturating_sub(found.at.0));
            format!("{} {age} ago", of.node)
        }
        None => format!("{} not yet", of.node),
    };
    let any = followers.clone().any(|of| of.verified.is_some());
    any.then(|| followers.map(said).collect::<Vec<_>>().join(", "))
}

/// What must be done something about.
pub(super) fn warning(replica: &Replica) -> Option<String> {
    let found = replica.verified.as_ref().filter(|of| of.mended + of.leader_wrong > 0)?;
    let node = &replica.node;
    Some(match found.leader_wrong {
        0 => format!(
            "{} chunks on {node} differed from the leader's and were mended from there; what was \
             on {node} is in its quarantine: check its disk",
            found.mended
        ),
        wrong => format!(
            "{wrong} chunks are wrong on the leader's disk and right on {node}: hand over to {node}, \
             and check the leader's disk"
        ),
    })
}

/// Whether anything differed, mended or not.
pub(crate) fn differed(of: &Verification) -> bool {
    of.mended + of.leader_wrong > 0 || !of.differences.is_empty()
}

/// One replica's line, for `mainstay verify`.
pub(crate) fn line(replica: &Replica, now: UnixMs) -> String {
    let node = &replica.node;
    let Some(Verification { at, seq, chunks, moved_on, mended, leader_wrong, differences }) =
        &replica.verified
    else {
        return format!("{node}: never compared");
    };
    let found = match (mended, leader_wrong) {
        (0, 0) if differences.is_empty() => "no difference".to_owned(),
        (0, 0) => "differences that were written over meanwhile".to_owned(),
        (mended, 0) => format!("{mended} differed and were mended"),
        (mended, wrong) => {
            format!("{mended} differed and were mended, {wrong} wrong on the leader")
        }
    };
    let age = table::span_text(now.0.saturating_sub(at.0));
    let mut text = format!(
        "{node}: {found} in {chunks} chunks as of op {seq}, {age} ago ({moved_on} were written \
         meanwhile)"
    );
    for Difference { file, offset, leader, here, done } in differences {
        let _ = write!(
            text,
            "\n  {file} at {offset}: {here} on {node}, {leader} on the leader; {done}"
        );
    }
    if mended + leader_wrong > u64::try_from(differences.len()).unwrap_or(u64::MAX) {
        let _ = write!(text, "\n  and more, which {node}'s log and quarantine name");
    }
    text
}
