//! What comparing the replicas' contents found, in words.

use mainstay_election::values::{Replica, UnixMs, Verification};

use super::table;

/// What must be done something about.
pub(super) fn warning(replica: &Replica) -> Option<String> {
    let found = replica.verified.filter(|of| of.mended + of.leader_wrong > 0)?;
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

/// One replica's line, for `mainstay verify`.
pub(crate) fn line(replica: &Replica, now: UnixMs) -> String {
    let node = &replica.node;
    let Some(Verification { at, seq, chunks, moved_on, mended, leader_wrong }) = replica.verified
    else {
        return format!("{node}: never compared in its process' life");
    };
    let found = match (mended, leader_wrong) {
        (0, 0) => "no difference".to_owned(),
        (mended, 0) => format!("{mended} differed and were mended"),
        (mended, wrong) => {
            format!("{mended} differed and were mended, {wrong} wrong on the leader")
        }
    };
    let age = table::span_text(now.0.saturating_sub(at.0));
    format!(
        "{node}: {found} in {chunks} chunks as of op {seq}, {age} ago ({moved_on} were written \
         meanwhile)"
    )
}
