//! A voter that was away for longer than the log reaches back: it comes back by what changed, while
//! writes go on, and then counts again.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Cluster, PATIENCE, Service, until};
use support::{assert_equal, binary, bounded, can_run, led_by_a};

const PAGE: usize = 8192;
/// A file of which little changes.
const BIG: usize = 48 << 20;
/// As many of its pages are written while the voter is away.
const CHANGED: u64 = 60;
/// What the log may hold; more is written while the voter is away.
const LOG: &str = "64MiB";

/// What the leader said of the deltas that it sent, in bytes.
fn deltas(log: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let bytes = |line: &str| {
        let (_, rest) = line.split_once("a delta is sent").filter(|_| line.contains("node=c"))?;
        let (_, bytes) = rest.split_once("bytes=")?;
        bytes.split_whitespace().next()?.parse().ok()
    };
    text.lines().filter_map(bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_behind_a_released_log_comes_back_by_what_changed_and_counts_again() {
    if !can_run("a_voter_behind_a_released_log_comes_back_by_what_changed_and_counts_again") {
        return;
    }
    let mut plan = Plan::new(binary(), Service::Files);
    plan.ttl = "3s".to_owned();
    plan.durability = "sync".to_owned();
    plan.extra = format!("[log]\nmax = \"{LOG}\"\n");
    let mut cluster = led_by_a(&plan, |_| ()).await;
    let mount = cluster.replicas[0].mount();
    let root = mount.clone();
    bounded(move || {
        let file = File::create(root.join("big")).expect("a file");
        let block: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8 + 1).collect();
        (0..BIG as u64 >> 20).for_each(|at| file.write_all_at(&block, at << 20).expect("a write"));
        file.sync_all().expect("acknowledged");
    })
    .await;
    voters(&cluster, "all three to be voters").await;

    cluster.replicas[2].stop().await.unwrap_or_else(|error| panic!("{error:#}"));
    let root = mount.clone();
    bounded(move || {
        let big = File::options().write(true).open(root.join("big")).expect("a file");
        for page in 0..CHANGED {
            big.write_all_at(&[0xee; PAGE], page * 97 * PAGE as u64).expect("a write");
        }
        big.sync_all().expect("acknowledged");
        // One place, again and again, until the log cannot reach back to before.
        let small = File::create(root.join("small")).expect("a file");
        let block = vec![3; 1 << 19];
        (0..200).for_each(|_| small.write_all_at(&block, 0).expect("a write"));
        small.sync_all().expect("acknowledged");
    })
    .await;

    let stop = Arc::new(AtomicBool::new(false));
    let (ended, root) = (stop.clone(), mount.clone());
    let writing = std::thread::spawn(move || {
        let file = File::create(root.join("busy")).expect("a file");
        let mut count = 0_u64;
        while !ended.load(Ordering::Acquire) {
            file.write_all_at(&count.to_le_bytes(), count % 1000 * 8).expect("a write");
            file.sync_all().expect("acknowledged");
            count += 1;
        }
        count
    });
    cluster.replicas[2].start().expect("the daemon starts");
    voters(&cluster, "c to follow again").await;
    let leader_says = cluster.replicas[0].log();
    let step = Duration::from_millis(100);
    let sent = until("the leader to say what it sent", PATIENCE, step, async || {
        deltas(&leader_says).last().copied()
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    stop.store(true, Ordering::Release);
    assert!(bounded(move || writing.join().expect("a writer")).await > 0, "writes went on");
    assert!(sent >= CHANGED * PAGE as u64, "{sent} bytes are less than what changed");
    // The pages, the place that was written again and again, and what was written meanwhile, which
    // may go as whole chunks. How near that is to the least is for the benchmark to say.
    assert!(sent <= BIG as u64 / 10, "{sent} bytes for a few pages of {BIG}");

    // It counts: with the other follower gone, a write needs it.
    cluster.replicas[1].kill();
    let root = mount.clone();
    bounded(move || {
        let file = File::create(root.join("late")).expect("a file");
        file.write_all_at(b"counts", 0).expect("a write");
        file.sync_all().expect("acknowledged by a and c");
    })
    .await;
    cluster.replicas[1].start().expect("the daemon starts");
    let tree = assert_equal(&mut cluster).await;
    assert!(tree.has("late".as_ref()));
}

/// Waits until the leader serves and both others follow and may take over.
async fn voters(cluster: &Cluster, what: &str) {
    let nodes = ["a", "b", "c"];
    let reached = cluster.reaches(what, |status| {
        let may = |node: &&str| status.replica(node).is_some_and(|of| of.leads() || of.follows());
        status.ready && nodes.iter().all(may)
    });
    reached.await.unwrap_or_else(|error| panic!("{error:#}"));
}
