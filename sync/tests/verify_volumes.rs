//! Comparing content: never a false alarm while writes go on, never a flipped bit missed.

mod support;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_sync::position::{ClusterId, Epoch, FileId, Seq};
use mainstay_sync::replicate::{
    Follower, FollowerOptions, Leader, LeaderAddress, LeaderOptions, Outcome, Verified,
};
use mainstay_sync::transport::{Endpoint, EndpointOptions, Peer, Secret};
use mainstay_sync::volume::Volume;
use support::{Writer, contents, object_path, options};

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn endpoint(secret: &Secret, node: &str) -> Endpoint {
    let name = Peer { service: "db".into(), node: node.into() };
    let options =
        EndpointOptions { idle_timeout: Duration::from_secs(30), ..EndpointOptions::default() };
    Endpoint::bind("127.0.0.1:0".parse().unwrap(), secret, name, &options).unwrap()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited a minute for: {what}");
}

/// Two replicas that stream.
struct Two {
    dirs: [tempfile::TempDir; 2],
    one: Volume,
    two: Volume,
    leading: Leader,
    following: Follower,
    writer: Writer,
    led: mainstay_sync::volume::Leading,
    ends: [Endpoint; 2],
}

async fn two(seed: u64) -> Two {
    let secret = Secret::generate();
    let (a, b) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [one, two] = [0, 1].map(|at| Volume::open(dirs[at].path(), options()).unwrap());
    one.found(CLUSTER).unwrap();
    let led = one.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::new(&led, Epoch(1), seed);
    writer.random_ops(150);
    let beat = Duration::from_millis(50);
    let leading = LeaderOptions { beat, ..LeaderOptions::default() };
    let (leading, _events) = Leader::start(&a, Arc::new(one.clone()), Epoch(1), leading);
    let options = FollowerOptions { beat, verify_bandwidth: 1 << 30, ..FollowerOptions::default() };
    let leader =
        LeaderAddress { node: "a".into(), address: a.local_address().unwrap(), epoch: Epoch(1) };
    let following = Follower::start(&b, Arc::new(two.clone()), leader, options);
    until("it has the copy", || !two.building() && two.durable() == one.head()).await;
    Two { dirs, one, two, leading, following, writer, led, ends: [a, b] }
}

async fn verify(leading: &Leader) -> Verified {
    let run = leading.verify();
    let found = || leading.followers().into_iter().find_map(|of| of.verified);
    until("it is verified", || found().is_some_and(|of| of.run == run)).await;
    found().unwrap()
}

fn flip(state: &Path, id: FileId, offset: u64) {
    let path = object_path(state, id);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_under_writes_never_finds_what_is_not_there() {
    let Two { dirs, one, two, leading, mut writer, following: _following, led: _led, ends: _ends } =
        two(1).await;
    let _dirs = dirs;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, checkpointed) = (stop.clone(), one.clone());
    let writing = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            // Cuts and regrowth among them, and checkpoints that take hashes away.
            writer.random_ops(5);
            if writer.last.0.is_multiple_of(3) {
                checkpointed.checkpoint().unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        writer
    });
    let (mut compared, mut at) = (0, Seq(0));
    for _ in 0..6 {
        let outcome = verify(&leading).await;
        assert_eq!(outcome.mismatched, 0, "{outcome:?}");
        assert!(outcome.at > at, "each as of a later op");
        at = outcome.at;
        compared += outcome.compared;
    }
    assert!(compared > 50, "{compared} chunks were compared");
    stop.store(true, Ordering::SeqCst);
    let writer = tokio::task::spawn_blocking(move || writing.join().unwrap()).await.unwrap();
    until("it is at the end", || two.applied() == one.head().seq).await;
    let outcome = verify(&leading).await;
    assert_eq!((outcome.mismatched, outcome.moved_on), (0, 0), "{outcome:?}");
    writer.model.check(&contents(&two));
    assert!(two.compared().is_some_and(|of| of.seq == outcome.at && of.at_s > 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_on_a_follower_is_told_kept_and_mended() {
    let Two { dirs, one, two, leading, mut writer, following: _following, led: _led, ends: _ends } =
        two(2).await;
    let file = writer.create(mainstay_sync::op::Kind::File);
    writer.write(file, 0, &[7; 200_000]);
    until("it is there", || two.applied() == one.head().seq).await;
    assert_eq!(verify(&leading).await.mismatched, 0);
    flip(dirs[1].path(), file, 70_000);
    let outcome = verify(&leading).await;
    assert_eq!(outcome.mismatched, 1, "{outcome:?}");
    let found = &outcome.mismatches[0];
    assert_eq!((found.offset, found.outcome), (65_536, Outcome::Mended));
    assert!(found.file.contains("f1-"), "by its name: {found:?}");
    assert_ne!(found.leader, found.follower);
    let (ours, theirs) = (contents(&two), contents(&one));
    assert!(ours == theirs, "it is mended");
    let kept = mainstay_sync::quarantine::list(dirs[1].path()).unwrap();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].manifest.why.contains(&found.file), "{:?}", kept[0].manifest);
    let bad = dirs[1].path().join("quarantine").join(&kept[0].name).join(format!("{file}-1"));
    assert_eq!(std::fs::read(bad).unwrap()[70_000 - 65_536], 7 ^ 0x10);
    assert_eq!(verify(&leading).await.mismatched, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_on_the_leader_spoils_no_follower() {
    let Two { dirs, one, two, leading, mut writer, following: _following, led: _led, ends: _ends } =
        two(3).await;
    let file = writer.create(mainstay_sync::op::Kind::File);
    writer.write(file, 0, &[7; 200_000]);
    until("it is there", || two.applied() == one.head().seq).await;
    one.checkpoint().unwrap();
    two.checkpoint().unwrap();
    // Both remember what they agreed on.
    assert_eq!(verify(&leading).await.mismatched, 0);
    let before = contents(&two);
    flip(dirs[0].path(), file, 100);
    let outcome = verify(&leading).await;
    assert_eq!(outcome.mismatched, 1, "{outcome:?}");
    assert_eq!(outcome.mismatches[0].outcome, Outcome::LeaderIsWrong);
    assert!(contents(&two) == before, "the follower keeps the good bytes");
}
