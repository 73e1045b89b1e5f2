//! What status says of services in every state that an operator may meet at night.

use std::time::Duration;

use mainstay::status::{Facts, Report, render};
use mainstay_election::coordinator::Revision;
use mainstay_election::values::{
    ClusterId, Config, Difference, Durability, Epoch, EpochTaken, Lag, Leader, Lineage, MaxLag,
    Member, NodeName, Nonce, Position, Progress, Reign, Replica, Request, Role, Seq, Tags, Task,
    UnixMs, Verification, VolumeId,
};
use mainstay_election::view::{Stored, View};

use crate::golden::compare;

const NOW: UnixMs = UnixMs(1_800_000_000_000);

fn stored<T>(value: T) -> Stored<T> {
    let (created, modified) = (Revision(1), Revision(1));
    Stored { value, raw: Vec::new(), created, modified, lease: None }
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn member(name: &str) -> Member {
    Member { node: node(name), volume: VolumeId([name.as_bytes()[0]; 16]) }
}

fn replica(name: &str, role: Role, state: &str, behind: u64) -> Replica {
    let seq = Seq(10_432 - behind);
    Replica {
        node: node(name),
        volume: member(name).volume,
        cluster: Some(ClusterId([7; 16])),
        peer: format!("10.0.0.{name}:7400"),
        api: None,
        role,
        state: state.to_owned(),
        position: Position { epoch: Epoch(7), seq },
        applied: seq,
        head: seq,
        lag: Lag { ops: behind, bytes: behind * 4096, ms: behind * 20 },
        promised: Epoch(7),
        suspects: None,
        stored: None,
        quorum_lost_ms: None,
        verified: None,
        progress: None,
        building: false,
        time: UnixMs(NOW.0 - 800),
        version: "0.1.0".to_owned(),
        tags: Tags::default(),
    }
}

/// a leads, b and c follow closely.
fn healthy() -> View {
    let members = ["a", "b", "c"].map(member).to_vec();
    let nonce = Nonce([1; 16]);
    let epoch = Some(stored(EpochTaken { epoch: Epoch(7), nonce, holder: node("a") }));
    let mut view = View { epoch, ..View::default() };
    view.leader = Some(stored(Leader {
        node: node("a"),
        volume: member("a").volume,
        epoch: Epoch(7),
        peer: "10.0.0.1:7400".to_owned(),
        service: Some("10.0.0.1:5432".to_owned()),
        ready: true,
        nonce,
    }));
    view.config = Some(stored(Config {
        cluster: ClusterId([7; 16]),
        voters: members.clone(),
        write_quorum: 2,
        durability: Durability::Async,
        max_lag: MaxLag { bytes: Some(64 << 20), ms: Some(10_000) },
        eligible: members,
        lineage: Lineage::default(),
        version: 1,
        degraded: false,
    }));
    for line in [
        replica("a", Role::Leader, "serving", 0),
        replica("b", Role::Follower, "streaming", 0),
        replica("c", Role::Follower, "streaming", 3),
    ] {
        view.replicas.insert(line.node.to_string(), stored(line));
    }
    view
}

fn check(name: &str, view: &View) {
    let ttl = Duration::from_secs(5);
    let report = Report::of(&Facts { service: "orders-db", view, ttl, now: NOW });
    compare(&format!("status/{name}.txt"), &render(&report));
    compare(&format!("status/{name}.json"), &(report.to_json() + "\n"));
}

#[test]
fn all_is_well() {
    check("all-is-well", &healthy());
}

#[test]
fn not_started() {
    check("not-started", &View::default());
}

#[test]
fn one_follower_is_gone() {
    let mut view = healthy();
    view.replicas.remove("b");
    check("one-follower-is-gone", &view);
}

#[test]
fn one_was_mended_and_one_compares() {
    let mut view = healthy();
    view.replicas.get_mut("b").unwrap().value.verified = Some(Verification {
        at: UnixMs(NOW.0 - 180_000),
        seq: Seq(9_000),
        chunks: 16_384,
        moved_on: 3,
        mended: 1,
        leader_wrong: 0,
        differences: vec![Difference {
            file: "base/5/16384".to_owned(),
            offset: 196_608,
            leader: "51e0b2d49a77c3f8".to_owned(),
            here: "9c1d6a20b7e4f013".to_owned(),
            done: "mended from the leader; what was here is in quarantine".to_owned(),
        }],
    });
    view.replicas.get_mut("c").unwrap().value.progress = Some(Progress {
        task: Task::Comparing,
        done: 4_096,
        total: 16_384,
        bytes_per_second: 32 << 20,
        ms_left: Some(24_000),
    });
    check("one-was-mended", &view);
}

#[test]
fn the_leader_is_alone() {
    let mut view = healthy();
    view.replicas.remove("b");
    view.replicas.get_mut("c").unwrap().value.building = true;
    view.replicas.get_mut("c").unwrap().value.state = "copying: 31 of 74 GiB".to_owned();
    check("the-leader-is-alone", &view);
}

#[test]
fn the_leader_died() {
    let mut view = healthy();
    view.leader = None;
    view.replicas.remove("a");
    for name in ["b", "c"] {
        let replica = &mut view.replicas.get_mut(name).unwrap().value;
        replica.role = Role::Idle;
        replica.state = "waits for ballots for epoch 8".to_owned();
    }
    check("the-leader-died", &view);
}

#[test]
fn a_service_that_is_not_ready() {
    let mut view = healthy();
    view.leader.as_mut().unwrap().value.ready = false;
    view.replicas.get_mut("a").unwrap().value.state = "the service recovers".to_owned();
    check("not-ready", &view);
}

#[test]
fn a_replica_that_hangs() {
    let mut view = healthy();
    view.replicas.get_mut("b").unwrap().value.time = UnixMs(NOW.0 - 12_300);
    check("a-replica-hangs", &view);
}

#[test]
fn paused_without_a_leader() {
    let mut view = healthy();
    view.leader = None;
    view.replicas.remove("a");
    let reason = "moving the rack".to_owned();
    view.requests.insert("pause".to_owned(), stored(Request::Pause { reason, at: NOW }));
    check("paused-without-a-leader", &view);
}

#[test]
fn after_a_failover_that_lost_something() {
    let mut view = healthy();
    let reign = Reign {
        epoch: Epoch(7),
        node: node("a"),
        first: Seq(10_000),
        at: NOW,
        cause: "failover".to_owned(),
        lost_ops: Some(41),
        previous: Some(node("b")),
    };
    view.history.insert("0000000007".to_owned(), stored(reign));
    view.replicas.get_mut("b").unwrap().value.cluster = Some(ClusterId([9; 16]));
    view.replicas.get_mut("c").unwrap().value.tags.nofailover = true;
    check("after-a-loss", &view);
}
