//! Async durability: what a failover loses is bounded by making the service wait, and whoever
//! lacks more takes over only when an operator gives that up.

mod support;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::process::send;
use mainstay_chaos::live::{Cluster, Service};
use rustix::process::Signal;
use support::{assert_equal, binary, bounded, can_run, freeze, led_by_a};

const MIB: u64 = 1 << 20;
const BOUND: u64 = 4 * MIB;
const WRITTEN: u64 = 24 * MIB;
/// What is on its way when the bound is reached: a write for each thread of the mount.
const UNDER_WAY: u64 = 4 * MIB;

/// Two replicas with the bound; `suspect_after` is how long a silent follower is waited for.
fn plan(suspect_after: &str) -> Plan {
    let mut plan = Plan::new(binary(), Service::Files);
    plan.replicas = 2;
    plan.ttl = "3s".to_owned();
    plan.extra = format!(
        "max_lag = {{ bytes = \"4MiB\", time = \"0s\" }}\nsuspect_after = \"{suspect_after}\"\n"
    );
    plan
}

/// Writes `WRITTEN` bytes on a thread of its own, and counts.
fn write(at: &Path) -> (Arc<AtomicU64>, impl Future<Output = ()> + use<>) {
    let count = Arc::new(AtomicU64::new(0));
    let (at, counted) = (at.to_owned(), Arc::clone(&count));
    let writing = bounded(move || {
        let mut file = File::create(at).expect("a file");
        while counted.load(Relaxed) < WRITTEN {
            file.write_all(&[7; 256 * 1024]).expect("a write");
            counted.fetch_add(256 * 1024, Relaxed);
        }
    });
    let task = tokio::spawn(writing);
    (count, async move { task.await.expect("no panic") })
}

async fn says(cluster: &Cluster, node: &str, words: &str) {
    let said = cluster.reaches(words, |status| {
        status.replica(node).is_some_and(|replica| replica.state.contains(words))
    });
    said.await.unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_wait_at_the_bound_for_the_last_who_may_take_over() {
    if !can_run("writes_wait_at_the_bound_for_the_last_who_may_take_over") {
        return;
    }
    let mut cluster = led_by_a(&plan("60s"), |_| ()).await;
    let follower = cluster.replicas[1].process().expect("it runs").pid();
    freeze(follower).await;
    let (count, writing) = write(&cluster.replicas[0].mount().join("file"));
    says(&cluster, "a", "writes wait for b").await;
    let written = count.load(Relaxed);
    assert!(written < BOUND + UNDER_WAY, "{written} bytes were written past a bound of {BOUND}");
    send(follower, Signal::CONT);
    writing.await;
    let tree = assert_equal(&mut cluster).await;
    assert!(tree.has("file".as_ref()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_beyond_the_bound_takes_over_only_when_data_loss_is_allowed() {
    if !can_run("one_beyond_the_bound_takes_over_only_when_data_loss_is_allowed") {
        return;
    }
    let mut cluster = led_by_a(&plan("1s"), |_| ()).await;
    let before = cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}")).epoch;
    let follower = cluster.replicas[1].process().expect("it runs").pid();
    freeze(follower).await;
    // Not for ever: who is silent may not take over any more, and then nothing waits for it.
    let (_, writing) = write(&cluster.replicas[0].mount().join("file"));
    writing.await;
    cluster.replicas[0].kill();
    send(follower, Signal::CONT);
    says(&cluster, "b", "near enough").await;
    let refused = cluster.replicas[1].ask(&["failover", "--to", "b", "--allow-data-loss"]);
    let refused = refused.expect_err("nobody was asked").to_string();
    assert!(refused.contains("--yes"), "{refused}");
    // Whatever it might still be waiting for comes within a few leases.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let alone = cluster.status().await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!((alone.epoch, alone.leader), (before, None));

    let asked = cluster.replicas[1].ask(&["failover", "--to", "b", "--allow-data-loss", "--yes"]);
    asked.unwrap_or_else(|error| panic!("{error:#}"));
    let led = cluster.reaches("b to lead", |status| {
        status.ready && status.epoch > before && status.leader.as_deref() == Some("b")
    });
    led.await.unwrap_or_else(|error| panic!("{error:#}"));
}
