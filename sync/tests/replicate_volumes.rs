//! Real volumes over real links: what three replicas hold after copies, restarts and failovers.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_sync::position::{ClusterId, Epoch};
use mainstay_sync::replicate::{
    Follower, FollowerOptions, Leader, LeaderAddress, LeaderOptions, Phase,
};
use mainstay_sync::transport::{Endpoint, EndpointOptions, Peer, Secret};
use mainstay_sync::volume::Volume;
use support::{Writer, births, contents, options};

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn endpoint(secret: &Secret, node: &str) -> Endpoint {
    let name = Peer { service: "db".into(), node: node.into() };
    // Patient, since the machine may be busy with anything.
    let options =
        EndpointOptions { idle_timeout: Duration::from_secs(30), ..EndpointOptions::default() };
    Endpoint::bind("127.0.0.1:0".parse().unwrap(), secret, name, &options).unwrap()
}

fn open(dir: &Path) -> Volume {
    Volume::open(dir, options()).unwrap()
}

fn lead(endpoint: &Endpoint, volume: &Volume, epoch: u64) -> Leader {
    let options = LeaderOptions { beat: Duration::from_millis(50), ..LeaderOptions::default() };
    Leader::start(endpoint, Arc::new(volume.clone()), Epoch(epoch), options).0
}

fn follow(endpoint: &Endpoint, volume: &Volume, leader: &Endpoint, epoch: u64) -> Follower {
    let options = FollowerOptions {
        beat: Duration::from_millis(50),
        retry_max: Duration::from_millis(200),
        ..FollowerOptions::default()
    };
    let (node, address) = (leader.name().node.clone(), leader.local_address().unwrap());
    let leader = LeaderAddress { node, address, epoch: Epoch(epoch) };
    Follower::start(endpoint, Arc::new(volume.clone()), leader, options)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited two minutes for: {what}");
}

/// Waits until `follower` is where `leader` is, and compares everything.
async fn equal(follower: &Volume, leader: &Volume) {
    until("it is at the leader's head", || {
        !follower.building() && follower.durable() == leader.head()
    })
    .await;
    let (follower, leader) = (follower.clone(), leader.clone());
    tokio::task::spawn_blocking(move || {
        let (ours, theirs) = (contents(&follower), contents(&leader));
        assert_eq!(ours.entries, theirs.entries);
        for (id, node) in &theirs.nodes {
            assert!(ours.nodes.get(id) == Some(node), "file {id} differs: {:?}", node.attributes);
        }
        assert_eq!(ours.nodes.len(), theirs.nodes.len());
        assert_eq!(births(&follower), births(&leader), "births are the leader's on every replica");
        assert_eq!(follower.lineage(), leader.lineage());
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_volumes_are_equal_after_copies_under_writes_a_restart_and_a_failover() {
    let secret = Secret::generate();
    let (a, b, c) = (endpoint(&secret, "a"), endpoint(&secret, "b"), endpoint(&secret, "c"));
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [one, two, three] = [0, 1, 2].map(|at| open(dirs[at].path()));
    one.found(CLUSTER).unwrap();
    let led = one.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::new(&led, Epoch(1), 1);
    writer.random_ops(300);
    one.checkpoint().unwrap();
    let leading = lead(&a, &one, 1);

    // Both are copied while the writer goes on.
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, checkpointed) = (stop.clone(), one.clone());
    let writing = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            writer.random_ops(40);
            // Lets go of all log that nothing holds.
            checkpointed.checkpoint().unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        writer
    });
    let following_two = follow(&b, &two, &a, 1);
    let following_three = follow(&c, &three, &a, 1);
    for (volume, following) in [(&two, &following_two), (&three, &following_three)] {
        let status = following.status();
        until("the copy is done", || {
            !volume.building() && status.borrow().phase == Phase::Streaming
        })
        .await;
    }
    // One is away for a while, and its process with it; the log is held for it.
    let id = three.id();
    let (held, pin) = loop {
        // Again only if a whole segment was written and let go in between.
        let held = one.head().seq;
        if let Ok(pin) = one.log().pin(held) {
            break (held, pin);
        }
    };
    until("it has what is not held", || three.head().seq >= held).await;
    following_three.stop().await;
    three.close().unwrap();
    let three = open(dirs[2].path());
    let following_three = follow(&c, &three, &a, 1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.store(true, Ordering::SeqCst);
    let mut writer = tokio::task::spawn_blocking(move || writing.join().unwrap()).await.unwrap();
    writer.random_ops(50);
    equal(&two, &one).await;
    equal(&three, &one).await;
    assert_eq!(three.id(), id, "its log covered what it missed, so it was not copied again");
    drop(pin);
    writer.model.check(&contents(&two));
    let nodes: Vec<_> = leading.followers().into_iter().map(|of| (of.node, of.lag_ops)).collect();
    assert_eq!(nodes.len(), 2, "{nodes:?}");

    // The leader goes, with ops that nobody has; two leads, and the old one comes back.
    leading.stop().await;
    writer.random_ops(20);
    drop((writer, led));
    following_two.stop().await;
    following_three.stop().await;
    let led = two.lead(Epoch(2), "b").unwrap();
    let leading = lead(&b, &two, 2);
    let _following_three = follow(&c, &three, &b, 2);
    let following_one = follow(&a, &one, &b, 2);
    Writer::new(&led, Epoch(2), 2).create(mainstay_sync::op::Kind::File);
    equal(&three, &two).await;
    equal(&one, &two).await;
    let kept = std::fs::read_dir(dirs[0].path().join("quarantine")).unwrap().count();
    assert!(kept > 0, "what the old leader had alone is kept");
    assert_eq!(three.id(), id, "a follower of the old leader just goes on");
    following_one.stop().await;
    leading.stop().await;
}

/// Away for longer than the log is kept, and cut off in the middle of coming back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_for_too_long_takes_only_what_changed() {
    let secret = Secret::generate();
    let (a, b) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [one, two] = [0, 1].map(|at| open(dirs[at].path()));
    one.found(CLUSTER).unwrap();
    let led = one.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::new(&led, Epoch(1), 5);
    let big = writer.create(mainstay_sync::op::Kind::File);
    for chunk in 0..64_u64 {
        writer.write(big, chunk * 65536, &[chunk as u8 + 1; 65536]);
    }
    let leading = lead(&a, &one, 1);
    let following = follow(&b, &two, &a, 1);
    equal(&two, &one).await;
    following.stop().await;
    let id = two.id();
    // More than the segments that are kept, over and over the same chunk.
    while one.log().first() <= two.head().seq.next() {
        writer.write(big, 65536, &[7; 65536]);
        one.wait_applied(one.head().seq).unwrap();
        one.checkpoint().unwrap();
    }
    writer.write(big, 5 * 65536 + 8192, &[9; 100]);
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, checkpointed) = (stop.clone(), one.clone());
    let writing = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            writer.random_ops(5);
            checkpointed.checkpoint().unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        writer
    });
    for _ in 0..3 {
        let following = follow(&b, &two, &a, 1);
        let status = following.status();
        until("it catches up", || {
            let phase = status.borrow().phase.clone();
            matches!(phase, Phase::CatchingUp { chunks_total: 1.., .. } | Phase::Streaming)
        })
        .await;
        following.stop().await;
    }
    let _following = follow(&b, &two, &a, 1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.store(true, Ordering::SeqCst);
    let writer = tokio::task::spawn_blocking(move || writing.join().unwrap()).await.unwrap();
    equal(&two, &one).await;
    writer.model.check(&contents(&two));
    assert_eq!(two.id(), id, "it was not copied anew");
    leading.stop().await;
}
