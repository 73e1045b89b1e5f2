//! What a follower must do before the leader's next record fits its log. Pure.
//!
//! The leader decides; the follower decides again from the same facts and does nothing on a
//! verdict that it would not have reached itself, so a confused leader cannot make it throw its
//! volume away.

use serde::{Deserialize, Serialize};

use crate::position::{ClusterId, Epoch, Lineage, Position, Seq, VolumeId};

/// The version of the messages. A node refuses any other; so does the handshake, by the name in
/// `transport/config.rs`, which changes with this.
pub const PROTOCOL: u32 = 3;

/// Where a follower stands, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// [`PROTOCOL`] of the follower's build.
    pub protocol: u32,
    /// The service that it replicates.
    pub service: String,
    /// Its node.
    pub node: String,
    /// The cluster that its volume belongs to; `None`: the volume is blank, or was imported and has
    /// founded none.
    pub cluster: Option<ClusterId>,
    /// Its volume.
    pub volume: VolumeId,
    /// Which epochs wrote its log.
    pub lineage: Lineage,
    /// Its last record.
    pub head: Position,
    /// Its last durable record.
    pub durable: Position,
    /// Beyond this no op has left a trace in its objects.
    pub applied: Seq,
    /// An earlier copy did not end: its volume is at no position at all.
    pub building: bool,
    /// Whether it can take a delta.
    pub deltas: bool,
    /// Whether its content was ever compared with a leader's, or is a copy of one's.
    pub compared: bool,
    /// The newest epoch of which it takes no record any more.
    pub promised: Epoch,
    /// The newest epoch that it takes part in, and which volume leads that.
    pub leader: Option<(Epoch, VolumeId)>,
}

/// What the leader's side of the decision needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leading {
    /// [`PROTOCOL`] of the leader's build.
    pub protocol: u32,
    /// The service that it leads.
    pub service: String,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its volume.
    pub volume: VolumeId,
    /// Its leadership.
    pub epoch: Epoch,
    /// Which epochs wrote its log, its own last.
    pub lineage: Lineage,
    /// Its last record.
    pub head: Position,
    /// The oldest record that its log still holds; past `head` if none.
    pub first: Seq,
}

/// What is to be done before records flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Nothing: the leader's records after this one follow.
    Stream {
        /// The follower's head.
        after: Seq,
    },
    /// Drop the records past `after`, none of which was applied; then as `Stream`.
    Truncate {
        /// The last record that both logs share.
        after: Seq,
    },
    /// Fetch what differs since `since`: the leader's log does not go back to it, or records past
    /// it were applied here.
    Delta {
        /// The last record that both logs share.
        since: Seq,
    },
    /// There is nothing in common: set the whole volume aside, and come back blank.
    SetAside {
        /// The last record that both logs share.
        ancestor: Seq,
    },
    /// Fetch the whole volume.
    Copy {
        /// Why nothing less does.
        why: Why,
    },
    /// No session.
    Refuse(Refusal),
}

/// Why a whole copy is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The follower has nothing yet.
    Blank,
    /// An earlier copy was interrupted.
    Unfinished,
    /// The leader's log begins past what the follower has.
    LogReleased {
        /// The oldest record that the leader's log holds.
        oldest: Seq,
    },
}

/// Why a leader takes no session with a follower (or a follower none with a leader).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The two builds do not understand each other.
    #[error("the leader speaks protocol {leader}, this node {follower}: upgrade the older one")]
    Protocol {
        /// The leader's.
        leader: u32,
        /// The follower's.
        follower: u32,
    },
    /// Another service's node was dialled.
    #[error("the leader leads service {leader:?}, this node follows {follower:?}")]
    Service {
        /// The leader's.
        leader: String,
        /// The follower's.
        follower: String,
    },
    /// The follower's volume has another history altogether.
    #[error(
        "this volume belongs to cluster {follower}, the leader's to {leader}: point the node at \
         its own cluster, or move its state directory away to let it join this one"
    )]
    Cluster {
        /// The leader's.
        leader: ClusterId,
        /// The follower's.
        follower: ClusterId,
    },
    /// Two nodes run on copies of one state directory.
    #[error(
        "the leader has the same volume id, {volume}: the state directory was cloned; move the \
         clone's away"
    )]
    Cloned {
        /// Of both.
        volume: VolumeId,
    },
    /// The follower promised this epoch away, or its log already has a newer one.
    #[error("epoch {leader} is over for this node: it has promised or seen epoch {seen}")]
    Superseded {
        /// The epoch of the one that calls itself leader.
        leader: Epoch,
        /// The newest that the follower promised or has a record of.
        seen: Epoch,
    },
    /// The follower takes part in this very epoch, under another leader.
    #[error(
        "epoch {epoch} was given twice, and for this node volume {accepted} leads it: the \
         coordinator forgot the first time; the next election ends this"
    )]
    GivenTwice {
        /// Which epoch.
        epoch: Epoch,
        /// Who leads it, for the follower.
        accepted: VolumeId,
    },
    /// The caller is not whom it says it is, or is not a member.
    #[error("this node may not follow: {why}")]
    NotMember {
        /// What the cluster has against it.
        why: String,
    },
    /// The follower's content was imported, to found a cluster with; copying would drop it.
    #[error(
        "this volume was imported to found a cluster, and the leader's cluster was founded by \
         another: to keep what was imported, stop the others and let this node found its own; to \
         join, move its state directory away"
    )]
    Imported,
}

/// The verdict on `follower`.
#[must_use]
pub fn plan(follower: &Standing, leader: &Leading) -> Verdict {
    if let Some(refusal) = refuse(follower, leader) {
        return Verdict::Refuse(refusal);
    }
    if follower.building && !mutant!("half-a-copy-streams") {
        return Verdict::Copy { why: Why::Unfinished };
    }
    if follower.head.seq == Seq(0) {
        return Verdict::Copy { why: Why::Blank };
    }
    let ancestor =
        leader.lineage.common_ancestor(leader.head.seq, &follower.lineage, follower.head.seq).seq;
    // Not `ancestor == 0`: a volume may have been imported, so even a log that begins with its
    // first record does not begin with an empty tree.
    if follower.head.seq <= leader.head.seq && mutant!("lineages-not-compared") {
        return Verdict::Stream { after: follower.head.seq };
    }
    let covered = ancestor > Seq(0) && leader.first <= ancestor.next();
    let delta = follower.deltas && ancestor > Seq(0);
    if ancestor == follower.head.seq {
        return match (covered, delta) {
            (true, _) => Verdict::Stream { after: ancestor },
            (false, true) => Verdict::Delta { since: ancestor },
            (false, false) => Verdict::Copy { why: Why::LogReleased { oldest: leader.first } },
        };
    }
    // Also where the log does not cover it: what is left is a prefix, which takes a delta.
    if (covered || delta) && (follower.applied <= ancestor || mutant!("applied-tail-truncated")) {
        return Verdict::Truncate { after: ancestor };
    }
    let since = if mutant!("delta-since-the-head") { follower.head.seq } else { ancestor };
    if delta { Verdict::Delta { since } } else { Verdict::SetAside { ancestor } }
}

fn refuse(follower: &Standing, leader: &Leading) -> Option<Refusal> {
    if follower.protocol != leader.protocol {
        let (leader, follower) = (leader.protocol, follower.protocol);
        return Some(Refusal::Protocol { leader, follower });
    }
    if follower.service != leader.service {
        let (leader, follower) = (leader.service.clone(), follower.service.clone());
        return Some(Refusal::Service { leader, follower });
    }
    if let Some(cluster) = follower.cluster
        && cluster != leader.cluster
    {
        return Some(Refusal::Cluster { leader: leader.cluster, follower: cluster });
    }
    // Not by lineage: every import begins like every cluster, in epoch 1 at seq 1.
    if follower.cluster.is_none() && follower.head.seq > Seq(0) && !follower.building {
        return Some(Refusal::Imported);
    }
    if follower.volume == leader.volume {
        return Some(Refusal::Cloned { volume: leader.volume });
    }
    if let Some((epoch, accepted)) = follower.leader
        && epoch == leader.epoch
        && accepted != leader.volume
        && !mutant!("epoch-led-twice")
    {
        return Some(Refusal::GivenTwice { epoch, accepted });
    }
    let over = (follower.promised >= leader.epoch && !mutant!("promises-do-not-bind"))
        || follower.head.epoch > leader.epoch;
    let over = over && !mutant!("epochs-counted-by-the-coordinator-alone");
    let seen = follower.promised.max(follower.head.epoch);
    over.then_some(Refusal::Superseded { leader: leader.epoch, seen })
}

/// What is wrong with what a leader says of itself, if anything: a lineage that no election
/// writes would make every later check of a record worthless.
///
/// # Errors
/// The contradiction, for people.
pub fn sound(leader: &Leading) -> Result<(), String> {
    let entries = &leader.lineage.0;
    let rising = |pair: &[(Epoch, Seq)]| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1;
    if !entries.windows(2).all(rising) {
        return Err("its lineage does not rise".to_owned());
    }
    let Some((epoch, first)) = entries.last().copied() else {
        return Err("it has no lineage".to_owned());
    };
    if epoch != leader.epoch || leader.head.epoch != epoch {
        return Err(format!(
            "it leads epoch {} and its log ends in epoch {}, its lineage in {epoch}",
            leader.epoch, leader.head.epoch
        ));
    }
    if leader.head.seq < first || entries[0].1 == Seq(0) {
        return Err(format!("its epoch begins at {first} and its log ends at {}", leader.head.seq));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
