//! What a replica is to be, and why it is not more than that.

use std::fmt;

use crate::values::{ClusterId, Epoch, NodeName, VolumeId};

/// What the replica is to be now. It holds until the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Run the service, as the leader of `epoch`. The gate is open before this is said.
    Lead {
        /// The leadership, never used before.
        epoch: Epoch,
        /// The cluster that the volume belongs to from now on.
        cluster: ClusterId,
    },
    /// Take the log of this leader.
    Follow {
        /// Who leads.
        leader: NodeName,
        /// In which epoch.
        epoch: Epoch,
        /// Where it takes peers.
        peer: String,
        /// The cluster that a blank volume joins with this.
        cluster: ClusterId,
    },
    /// Nobody leads: keep the volume as it is and take no records.
    Freeze(Waiting),
    /// The leadership of `epoch` is over and the gate is shut: kill the service at once, without
    /// letting it see an error, then report `leading: None`. Any directive but
    /// [`Directive::Lead`] of the same epoch means this too.
    StepDown {
        /// The leadership that ended.
        epoch: Epoch,
        /// How it ended.
        why: Fall,
    },
    /// This replica can neither lead nor follow until somebody acts.
    Blocked(Blocked),
}

/// Why a leadership ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fall {
    /// Nothing was heard about the lease until its deadline.
    DeadlinePassed,
    /// Neither the coordinator nor a write quorum was heard until the deadline (sync).
    Isolated,
    /// The coordinator says that the lease is gone.
    LeaseGone,
    /// Somebody took a later epoch.
    Elected(Epoch),
    /// The leader's key is gone or not ours.
    KeyLost,
    /// A replica promised to take nothing of this epoch, or has records of a later one, and the
    /// leadership cannot go on in another: it has served nobody yet, or too few answer it.
    Outpromised(NodeName),
    /// The volume is no longer the one that was elected.
    VolumeChanged,
    /// The replica asked for it.
    Resigned(String),
}

impl fmt::Display for Fall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fall::DeadlinePassed => f.write_str(
                "the coordinator did not confirm the lease in time; check that it can be reached",
            ),
            Fall::Isolated => f.write_str(
                "neither the coordinator nor enough voters were heard in time; check this node's \
                 network",
            ),
            Fall::LeaseGone => f.write_str(
                "the coordinator ended the lease; this node was paused or cut off for too long",
            ),
            Fall::Elected(epoch) => write!(f, "epoch {epoch} has begun elsewhere"),
            Fall::KeyLost => f.write_str("the leader's key was removed from the coordinator"),
            Fall::Outpromised(node) => write!(
                f,
                "replica {node} takes nothing of this epoch any more: an election that came to \
                 nothing, or that the coordinator forgot (was it restored from a backup?); the next \
                 epoch is past it"
            ),
            Fall::VolumeChanged => f.write_str("the volume is not the one that was elected"),
            Fall::Resigned(why) => f.write_str(why),
        }
    }
}

/// Why nobody leads, or not this replica, and what it waits for. Passes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The coordinator has not answered yet.
    Coordinator(String),
    /// The replica has not reported yet.
    Report,
    /// No lease yet, so that nothing can be registered.
    Lease,
    /// The registration is not seen yet.
    Registration,
    /// The key of a leadership that ended on this node, in this process or a former one, is still
    /// there.
    FormerKey,
    /// The leadership that ended here is not wound up yet.
    WindingUp(Epoch),
    /// This copy may not take over, and nobody who may is here.
    NotEligible(Vec<NodeName>),
    /// This replica is no voter (sync), and nobody who is one leads.
    NotVoter(Vec<NodeName>),
    /// This copy is half built.
    Building,
    /// This replica says that it should not lead.
    Unfit(String),
    /// An operator paused failovers.
    Paused,
    /// Others have not balloted yet.
    Ballots(Vec<NodeName>),
    /// Too few voters have promised to know what was acknowledged (sync).
    Voters {
        /// How many have.
        ballots: usize,
        /// How many have to.
        needed: usize,
    },
    /// Too few voters miss the leader to elect another one (sync).
    Suspicion {
        /// How many do.
        suspects: usize,
        /// How many have to.
        needed: usize,
    },
    /// The coordinator lost the config, or has an older one than a replica's disk; the newest one
    /// is put back once all of its voters are here.
    ConfigLost {
        /// Whose disk has the newest config.
        holder: NodeName,
        /// Which of its voters are not here.
        missing: Vec<NodeName>,
    },
    /// A better placed replica has the first claim.
    Better(NodeName),
    /// The promise is on its way to the disk.
    Promise(Epoch),
    /// A transaction is on its way.
    Outcome,
    /// The first start: others may bring a volume with content.
    FirstStart,
    /// Another replica brings content and founds the cluster.
    Founder(NodeName),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::Coordinator(why) => write!(f, "waiting for the coordinator: {why}"),
            Waiting::Report => f.write_str("waiting for the volume to be opened"),
            Waiting::Lease => f.write_str("waiting for a lease from the coordinator"),
            Waiting::Registration => f.write_str("waiting to be registered"),
            Waiting::FormerKey => {
                f.write_str("waiting to remove the key of this node's leadership that ended")
            }
            Waiting::WindingUp(epoch) => {
                write!(f, "waiting for the leadership of epoch {epoch} to be wound up here")
            }
            Waiting::NotEligible(nodes) if nodes.is_empty() => {
                f.write_str("no replica may take over: the config names none")
            }
            Waiting::NotEligible(nodes) => write!(
                f,
                "this copy is not known to be near enough to the last leader's to take over; \
                 waiting for one that is ({}): start it, or allow the loss with a forced failover",
                names(nodes)
            ),
            Waiting::Building => f.write_str(
                "this copy is not complete and cannot lead; waiting for a replica that is",
            ),
            Waiting::Unfit(why) => write!(f, "this replica does not stand for leader: {why}"),
            Waiting::Paused => {
                f.write_str("failovers are paused; `mainstay resume` allows them again")
            }
            Waiting::Ballots(nodes) => write!(f, "waiting for the ballot of {}", names(nodes)),
            Waiting::NotVoter(voters) => write!(
                f,
                "this replica is no voter, so it may lack what was acknowledged; waiting for one \
                 that is ({}): start it",
                names(voters)
            ),
            Waiting::Voters { ballots, needed } => write!(
                f,
                "{ballots} of the {needed} voters that an election needs have promised; start another"
            ),
            Waiting::Suspicion { suspects, needed } => write!(
                f,
                "{suspects} of the {needed} voters that have to miss the leader before another is \
                 elected do; start another, or mend the network"
            ),
            Waiting::ConfigLost { holder, missing } if missing.is_empty() => {
                write!(f, "the coordinator lost the cluster's config; {holder} puts it back")
            }
            Waiting::ConfigLost { holder, missing } => write!(
                f,
                "the coordinator lost the cluster's config, or has an old one; the newest is on \
                 {holder}, and is put back once all of its voters are here: start {}, or, if they \
                 are lost, `mainstay recover`",
                names(missing)
            ),
            Waiting::Better(node) => {
                write!(f, "waiting for replica {node}, which is better placed to lead")
            }
            Waiting::Promise(epoch) => {
                write!(f, "promising to take nothing of epoch {epoch} or before")
            }
            Waiting::Outcome => f.write_str("waiting for the coordinator's word on a transaction"),
            Waiting::FirstStart => f.write_str(
                "first start: giving a replica with imported content the time to come forward",
            ),
            Waiting::Founder(node) => {
                write!(f, "waiting for replica {node}, which brings content, to found the cluster")
            }
        }
    }
}

fn names(nodes: &[NodeName]) -> String {
    let all: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// Why this replica cannot take part. Lasts until somebody acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The volume is another cluster's.
    ForeignCluster {
        /// The volume's.
        ours: ClusterId,
        /// The coordinator's.
        theirs: ClusterId,
    },
    /// The volume has content that no leader of this cluster wrote.
    ForeignContent(ClusterId),
    /// The coordinator knows of no cluster, but a volume belongs to one.
    ConfigLost {
        /// Who has such a volume.
        node: NodeName,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// Another live process runs under this node's name.
    NameTaken {
        /// The name.
        node: NodeName,
        /// The other one's volume.
        volume: VolumeId,
    },
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocked::ForeignCluster { ours, theirs } => write!(
                f,
                "this volume belongs to cluster {ours}, the coordinator's is {theirs}; check \
                 `service` and `coordination`, or start with an empty state directory"
            ),
            Blocked::ForeignContent(theirs) => write!(
                f,
                "this volume has content that cluster {theirs} knows nothing of; export it if it \
                 is needed, then start with an empty state directory"
            ),
            Blocked::ConfigLost { node, cluster } => write!(
                f,
                "the volume of replica {node} belongs to cluster {cluster}, of which the \
                 coordinator knows nothing; check `service` and `coordination`, or restore the \
                 coordinator's data"
            ),
            Blocked::NameTaken { node, volume } => write!(
                f,
                "another process runs as node {node}, with volume {volume}; give each node its \
                 own name, or wait for the lease of one that died"
            ),
        }
    }
}
