//! The kinds of faults, by name.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What can be done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is described where it is done, and by its row below")]
pub enum Kind {
    KillDaemon,
    KillService,
    KillNode,
    KillFollower,
    KillAll,
    PauseDaemon,
    PauseService,
    PauseNode,
    PauseGuards,
    CutFollowers,
    CutCoordinator,
    CutAll,
    CutOutgoing,
    CutIncoming,
    FlakyLink,
    SlowLink,
    KillEtcdLeader,
    StopEtcd,
    WipeEtcd,
    FillLeader,
    FillFollower,
    FailDisk,
    SlowDisk,
    FlipByte,
    JumpClock,
    Restart,
    Replace,
    Roll,
    Switchover,
}

struct Row {
    kind: Kind,
    name: &'static str,
    /// How long it lasts, in seconds, at least and at most.
    lasts: (u64, u64),
    /// It may take the only other copy, or everything at once: nothing else goes on beside it.
    is_alone: bool,
    needs_etcd: bool,
    /// It is not made unless it is asked for: no machine does that by itself.
    is_asked_for: bool,
    /// For a person who reads the report.
    says: &'static str,
}

const fn row(kind: Kind, name: &'static str, lasts: (u64, u64), says: &'static str) -> Row {
    Row { kind, name, lasts, is_alone: false, needs_etcd: false, is_asked_for: false, says }
}

const ROWS: [Row; 29] = [
    row(Kind::KillDaemon, "kill-daemon", (5, 12), "the leader's daemon is killed"),
    row(Kind::KillService, "kill-service", (3, 6), "the service's main process is killed"),
    row(Kind::KillNode, "kill-node", (8, 15), "all of the leader's node is killed at once"),
    row(Kind::KillFollower, "kill-follower", (5, 15), "all of a follower's node is killed at once"),
    Row {
        is_alone: true,
        ..row(Kind::KillAll, "kill-all", (2, 6), "all nodes are killed at once")
    },
    row(Kind::PauseDaemon, "pause-daemon", (1, 20), "the leader's daemon is stopped"),
    row(Kind::PauseService, "pause-service", (1, 8), "the service's processes are stopped"),
    row(Kind::PauseNode, "pause-node", (1, 20), "all of the leader's node is stopped"),
    Row {
        is_asked_for: true,
        ..row(
            Kind::PauseGuards,
            "pause-guards",
            (8, 14),
            "the leader's daemon and its fencer are stopped; the daemon goes on first",
        )
    },
    row(Kind::CutFollowers, "cut-followers", (5, 15), "the leader and its followers are cut apart"),
    Row {
        needs_etcd: true,
        ..row(Kind::CutCoordinator, "cut-coordinator", (5, 15), "the leader is cut off from etcd")
    },
    row(Kind::CutAll, "cut-all", (5, 15), "the leader is cut off from everything"),
    row(Kind::CutOutgoing, "cut-outgoing", (5, 15), "nothing leaves the leader's host"),
    row(Kind::CutIncoming, "cut-incoming", (5, 15), "nothing reaches the leader's host"),
    row(Kind::FlakyLink, "flaky-link", (5, 20), "leader and a follower lose 3 in 10 packets"),
    row(Kind::SlowLink, "slow-link", (5, 20), "all that the leader sends shares 4 Mbit/s"),
    Row {
        needs_etcd: true,
        ..row(Kind::KillEtcdLeader, "kill-etcd-leader", (4, 10), "etcd's leader is killed")
    },
    Row {
        needs_etcd: true,
        ..row(Kind::StopEtcd, "stop-etcd", (8, 20), "etcd has no quorum, longer than the lease")
    },
    Row {
        is_alone: true,
        needs_etcd: true,
        ..row(Kind::WipeEtcd, "wipe-etcd", (1, 2), "etcd loses everything that it held")
    },
    row(Kind::FillLeader, "fill-leader", (4, 10), "the leader's disk is full"),
    row(Kind::FillFollower, "fill-follower", (4, 10), "a follower's disk is full"),
    row(Kind::FailDisk, "fail-disk", (2, 6), "the leader's disk fails every request"),
    row(Kind::SlowDisk, "slow-disk", (5, 15), "the leader's disk takes 50 ms for each request"),
    Row {
        is_alone: true,
        ..row(
            Kind::FlipByte,
            "flip-byte",
            (1, 2),
            "a byte of a follower's copy is changed, and all are compared",
        )
    },
    row(Kind::JumpClock, "jump-clock", (5, 15), "a node's time of day is wrong by up to ten days"),
    row(Kind::Restart, "restart", (1, 3), "a daemon is stopped and started, as for an upgrade"),
    Row {
        is_alone: true,
        ..row(Kind::Replace, "replace", (1, 2), "a node is replaced by a blank one")
    },
    Row {
        is_alone: true,
        ..row(Kind::Roll, "roll", (1, 2), "every node is replaced by a blank one, in turn")
    },
    row(Kind::Switchover, "switchover", (1, 5), "leadership is handed over, as planned"),
];

impl Kind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Kind> {
        ROWS.iter().map(|row| row.kind)
    }

    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.kind == self).expect("a test finds a row for every kind")
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What happens, in a line.
    #[must_use]
    pub fn says(self) -> &'static str {
        self.row().says
    }

    /// How long it lasts, at least and at most.
    #[must_use]
    pub fn lasts(self) -> (Duration, Duration) {
        let (least, most) = self.row().lasts;
        (Duration::from_secs(least), Duration::from_secs(most))
    }

    /// Whether nothing else may go on beside it: it may take the only other copy of something.
    #[must_use]
    pub fn is_alone(self) -> bool {
        self.row().is_alone
    }

    /// Whether it is made only when it is asked for by name.
    #[must_use]
    pub fn is_asked_for(self) -> bool {
        self.row().is_asked_for
    }

    /// Whether it needs disks that can fail.
    #[must_use]
    pub fn needs_layer(self) -> bool {
        matches!(self, Kind::FailDisk | Kind::SlowDisk)
    }

    /// Whether it keeps an answer that was given from its client for a while: on a link that is cut,
    /// or in a service that is stopped between hearing that a write is safe and saying so.
    #[must_use]
    pub fn delays_answers(self) -> bool {
        let pauses = matches!(self, Kind::PauseService | Kind::PauseNode);
        let cuts = matches!(self, Kind::CutAll | Kind::CutOutgoing | Kind::CutIncoming);
        pauses || cuts || self == Kind::SlowLink
    }

    /// Whether it needs a real etcd.
    #[must_use]
    pub fn needs_etcd(self) -> bool {
        self.row().needs_etcd
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Kind, String> {
        Kind::all().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<_> = Kind::all().map(Kind::name).collect();
            format!("unknown fault {text:?}; there are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_row_and_its_name_is_read_back() {
        assert_eq!(ROWS.len(), Kind::Switchover as usize + 1, "Switchover is the last kind");
        for kind in Kind::all() {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
    }
}
