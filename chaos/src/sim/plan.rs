//! What goes wrong in one run, and when: made from a seed, shrunk when it finds something, kept.
//!
//! The fault model stands here, beside what injects it. Permitted, and why each is survivable:
//! - *crash*: the process dies; of its log some records past the last sync may be there, in order
//!   (a torn tail is cut). With *power* the page cache goes too: objects fall back to anything
//!   from the last checkpoint on, which the log replays.
//! - *pause*: nothing of the process runs, then it goes on as if nothing had been. Its clock goes
//!   on, as `CLOCK_BOOTTIME` does; only *freeze* (a virtual machine that is stopped) stops it too,
//!   which leases do not survive, hence in sync only.
//! - *cut*: a direction between two nodes, or to the coordinator, carries nothing.
//! - *drift*: boot clocks run fast or slow. In async by less than the lease's margin, in sync by
//!   whatever they like.
//! - *wipe*: a disk is replaced. Never one that could be the last with an acknowledged op: only
//!   while every other voter still has the disk that it was let in with, and a write quorum is
//!   more than one.
//! - *split*: two sides of the cluster hear nothing of each other; the coordinator is with one of
//!   them or with both.
//! - *outage*: the coordinator answers nobody (members lost). *Election*: it extends all leases, as
//!   etcd does on a change of its own leader. *Restore*: it is set back to an earlier state, where
//!   an election takes a majority of the voters (not with a write quorum of more than that, as with
//!   two voters): else nobody who elects need know of an epoch that the coordinator forgot.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rng::Rng;
use super::scenes;

/// One run: the cluster and all that befalls it. Together with the seed, which also decides every
/// delay, it replays exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where all chance of the run comes from.
    pub seed: u64,
    /// Sync durability, else async.
    pub sync: bool,
    /// How many replicas there are.
    pub nodes: usize,
    /// How many of them are wanted as voters (sync).
    pub voters: usize,
    /// How many copies are asked for (sync); none is a majority of the voters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_quorum: Option<u32>,
    /// A leader without its write quorum goes on with fewer copies (sync).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub degrade: bool,
    /// How many ops an heir may lack (async).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_ops: Option<u64>,
    /// The lease.
    pub ttl_ms: u64,
    /// How much each node's boot clock gains in a million.
    pub drift_ppm: Vec<i64>,
    /// What goes wrong, by time.
    pub faults: Vec<Planned>,
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Milliseconds after the cluster first served.
    pub at_ms: u64,
    /// From then on it lies in wait for this; none: it happens then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cue: Option<Cue>,
    /// What happens.
    pub fault: Fault,
}

/// What a fault lies in wait for: the moments between two steps of the protocol, which chance alone
/// hardly ever hits. Each is about some node, which the fault befalls if it names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cue {
    /// A leadership made its first record; about its node.
    Begins,
    /// A leadership's first record is committed.
    Serves,
    /// A vow is durable; about who promised.
    Promised,
    /// The coordinator gave an epoch; about whom.
    Elected,
    /// A leader acknowledges by the old terms and by new ones.
    Changes,
    /// The coordinator has other rules; about the leader.
    Ruled,
    /// A follower took a record that is not durable yet.
    Appended,
    /// A follower's acknowledgement is on its way.
    Acknowledged,
    /// A leader whose first record is not committed was told that a follower has older ones that
    /// are not applied.
    Courted,
    /// A follower began to fetch what it lacks.
    Fetching,
}

impl Cue {
    /// Each of them.
    pub const ALL: [Cue; 10] = [
        Cue::Begins,
        Cue::Serves,
        Cue::Promised,
        Cue::Elected,
        Cue::Changes,
        Cue::Ruled,
        Cue::Appended,
        Cue::Acknowledged,
        Cue::Courted,
        Cue::Fetching,
    ];
}

/// Something that goes wrong, or is mended. Nodes are numbers from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The process dies and comes back.
    Crash {
        /// Whose; `None`: whoever leads then.
        node: Option<usize>,
        /// Back after this.
        back_ms: u64,
        /// The machine lost its power.
        power: bool,
    },
    /// All of them lose their power at once.
    Blackout {
        /// Each is back after at most this.
        back_ms: u64,
    },
    /// Everybody but the leader dies.
    Desert {
        /// They are back after this.
        back_ms: u64,
    },
    /// The process stops and goes on.
    Pause {
        /// Whose; `None`: whoever leads then.
        node: Option<usize>,
        /// For so long.
        ms: u64,
        /// Its clock stops too.
        freeze: bool,
    },
    /// Nothing passes from one node to another.
    Cut {
        /// From; `None`: whoever leads then.
        from: Option<usize>,
        /// To; `None`: everybody.
        to: Option<usize>,
        /// Nor the other way.
        both: bool,
        /// Mended after this.
        ms: u64,
    },
    /// A side of the cluster and the rest hear nothing of each other.
    Split {
        /// On that side; `None`: whoever leads then.
        node: Option<usize>,
        /// And these, one bit each.
        others: u64,
        /// The side does not reach the coordinator.
        lonely: bool,
        /// Mended after this.
        ms: u64,
    },
    /// Whatever is cut between nodes is mended.
    Heal,
    /// A node and the coordinator.
    CutCoordinator {
        /// Whose; `None`: whoever leads then. The ambassadors come after the nodes.
        node: Option<usize>,
        /// Requests arrive, answers do not.
        answers_only: bool,
        /// Mended after this.
        ms: u64,
    },
    /// How bad the network is from now on.
    Weather {
        /// Out of a thousand messages to the coordinator so many are lost.
        lost: u32,
        /// So many take up to twice the ttl.
        late: u32,
        /// So many arrive twice.
        twice: u32,
        /// The others take up to this.
        delay_ms: u64,
    },
    /// Syncs of a node take up to this.
    SlowDisk {
        /// Whose; `None`: whoever leads then.
        node: Option<usize>,
        /// The longest sync.
        sync_ms: u64,
        /// Mended after this.
        ms: u64,
    },
    /// A disk is replaced by an empty one.
    Wipe {
        /// Whose.
        node: usize,
    },
    /// The coordinator answers nobody.
    Outage {
        /// For so long.
        ms: u64,
    },
    /// The coordinator elects among its own members: leases begin anew.
    Election,
    /// The coordinator's watches all break.
    BreakWatches,
    /// Watches lag by up to this.
    LagWatches {
        /// The longest lag.
        ms: u64,
    },
    /// The coordinator is set back to how it was.
    Restore {
        /// So long before.
        back_ms: u64,
    },
    /// The coordinator's data is lost.
    Forget,
    /// The leader is asked to resign.
    Resign,
    /// An operator hands leadership over.
    Switchover {
        /// To whom.
        to: usize,
    },
    /// An operator lets the leader go on with fewer copies.
    Degrade,
    /// A wall clock jumps, which must not matter.
    WallJump {
        /// Whose.
        node: usize,
        /// By how much.
        ms: i64,
    },
}

impl Plan {
    /// The plan of run `seed`.
    #[must_use]
    pub fn of(seed: u64) -> Plan {
        let mut rng = Rng::new(seed ^ 0x0070_6c61_6e00);
        let sync = rng.chance(700);
        let nodes = match (sync, rng.below(10)) {
            (true, 0..5) => 3,
            (true, 5..7) => 4,
            (true, 7..9) => 5,
            (true, _) => 2,
            (false, 0..3) => 2,
            (false, 3..8) => 3,
            (false, _) => 4,
        };
        let voters = match nodes {
            5 if rng.chance(700) => 5,
            4 if rng.chance(300) => 4,
            _ => nodes.min(3),
        };
        let copies = rng.between(2, voters as u64);
        let write_quorum = (sync && rng.chance(250)).then(|| u32::try_from(copies).unwrap_or(2));
        let degrade = sync && rng.chance(150);
        let ttl_ms = [3000, 4000, 5000][rng.index(3)];
        // A lease's margin is a quarter of it; what may drift in async is far less.
        let drift: i64 = if sync { [0, 500, 50_000][rng.index(3)] } else { 500 };
        let drift_ppm = (0..nodes)
            .map(|_| i64::try_from(rng.below(2001)).unwrap_or(0) * drift / 1000 - drift)
            .collect();
        let faults = Vec::new();
        let bound_ops = (!sync && rng.chance(600)).then(|| rng.between(4, 40));
        let mut plan = Plan {
            seed,
            sync,
            nodes,
            voters,
            write_quorum,
            degrade,
            bound_ops,
            ttl_ms,
            drift_ppm,
            faults,
        };
        let mut at_ms = 0;
        let mut left = rng.between(4, 22);
        while left > 0 {
            // Bursts: the interesting ones come in the middle of each other's consequences.
            at_ms += if rng.chance(600) { rng.between(0, 400) } else { rng.between(400, 4000) };
            if rng.chance(150) {
                at_ms = scenes::add(&mut plan, &mut rng, at_ms);
                left = left.saturating_sub(4);
                continue;
            }
            let fault = plan.fault(&mut rng);
            let cue = rng.chance(60).then(|| Cue::ALL[rng.index(Cue::ALL.len())]);
            plan.faults.push(Planned { at_ms, cue, fault });
            left -= 1;
        }
        plan
    }

    fn fault(&self, rng: &mut Rng) -> Fault {
        let any = rng.index(self.nodes);
        // Most of what is interesting happens to leaders.
        let node = if rng.chance(500) { None } else { Some(any) };
        let back_ms = if rng.chance(500) { rng.between(20, 500) } else { rng.between(500, 8000) };
        match rng.below(100) {
            0..22 => Fault::Crash { node, back_ms, power: rng.chance(500) },
            22..25 => Fault::Blackout { back_ms },
            25..35 => {
                let freeze = self.sync && rng.chance(300);
                Fault::Pause { node, ms: rng.between(50, self.ttl_ms * 2), freeze }
            }
            35..45 => {
                let to = if rng.chance(500) { None } else { Some(rng.index(self.nodes)) };
                Fault::Cut { from: node, to, both: rng.chance(500), ms: rng.between(200, 9000) }
            }
            45..50 => {
                let (others, lonely) = (rng.below(1 << self.nodes), rng.chance(500));
                Fault::Split { node, others, lonely, ms: rng.between(200, 9000) }
            }
            50..58 => {
                let node = if rng.chance(400) { Some(self.nodes) } else { node };
                let answers_only = rng.chance(400);
                Fault::CutCoordinator { node, answers_only, ms: rng.between(200, 9000) }
            }
            58..64 => Fault::Weather {
                lost: u32::try_from(rng.below(150)).unwrap_or(0),
                late: u32::try_from(rng.below(150)).unwrap_or(0),
                twice: u32::try_from(rng.below(100)).unwrap_or(0),
                delay_ms: rng.between(1, 200),
            },
            64..73 => {
                let sync_ms = rng.between(50, 2500);
                Fault::SlowDisk { node, sync_ms, ms: rng.between(500, 8000) }
            }
            73..78 => Fault::Wipe { node: any },
            78..83 => Fault::Outage { ms: rng.between(200, self.ttl_ms * 3) },
            83..86 => Fault::Election,
            86..89 => Fault::BreakWatches,
            89..92 => Fault::LagWatches { ms: rng.between(50, 3000) },
            92 if self.sync => Fault::Restore { back_ms: rng.between(100, 20_000) },
            93 if self.sync => Fault::Forget,
            94 if self.sync => Fault::Degrade,
            92..95 => Fault::Resign,
            95..98 => Fault::Switchover { to: any },
            _ => Fault::WallJump {
                node: any,
                ms: i64::try_from(rng.below(7_200_000)).unwrap_or(0) - 3_600_000,
            },
        }
    }

    /// The lease.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.sync { "sync" } else { "async" };
        writeln!(
            f,
            "seed {}: {kind}, {} nodes, {} voters, write quorum {:?}, bound {:?} ops{}, ttl {} ms, \
             drift {:?} ppm",
            self.seed,
            self.nodes,
            self.voters,
            self.write_quorum,
            self.bound_ops,
            if self.degrade { ", degrades" } else { "" },
            self.ttl_ms,
            self.drift_ppm
        )?;
        for Planned { at_ms, cue, fault } in &self.faults {
            let on = cue.map(|cue| format!("on {cue:?}: ")).unwrap_or_default();
            writeln!(f, "  +{at_ms:>6} ms {on}{fault:?}")?;
        }
        Ok(())
    }
}
