//! What a lost leader had and nobody else: set aside, shown, and never mixed with what won.

mod support;

use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Cluster, PATIENCE, Service, until};
use mainstay_chaos::workload::{Writers, check};
use rustix::process::Signal;
use support::{assert_equal, binary, bounded, can_run, led_by_a};

/// More than the sockets of a stopped follower take in.
const BACKLOG: usize = 12 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_nobody_got_is_kept_in_quarantine_and_the_rest_is_equal() {
    if !can_run("a_tail_that_nobody_got_is_kept_in_quarantine_and_the_rest_is_equal") {
        return;
    }
    let mut plan = Plan::new(binary(), Service::Files);
    plan.ttl = "3s".to_owned();
    let mut cluster = led_by_a(&plan, |_| ()).await;
    let mount = cluster.replicas[0].mount();
    std::fs::write(mount.join("shared"), "before").expect("a file");
    let before = cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));

    for replica in &mut cluster.replicas[1..] {
        replica.process().expect("it runs").signal(Signal::STOP);
    }
    bounded(move || {
        std::fs::write(mount.join("backlog"), vec![1; BACKLOG]).expect("a file");
        // Changes in place, so that the objects of both sides differ under one id.
        std::fs::write(mount.join("shared"), "lost it").expect("a file");
        std::fs::write(mount.join("loser"), "content").expect("a file");
        let file = std::fs::File::open(mount.join("loser")).expect("a file");
        file.sync_all().expect("acknowledged");
    })
    .await;
    cluster.replicas[0].kill();
    for replica in &mut cluster.replicas[1..] {
        replica.process().expect("it runs").signal(Signal::CONT);
    }
    // The status that is asked for is any node's view of the coordinator.
    let after = cluster.reaches("another leader", |now| now.ready && now.epoch > before.epoch);
    after.await.unwrap_or_else(|error| panic!("{error:#}"));
    cluster.replicas[0].start().expect("the daemon starts");
    let step = Duration::from_millis(200);
    until("the old leader to set its tail aside", PATIENCE, step, async || {
        let list = cluster.replicas[0].ask(&["quarantine", "list"]).ok()?;
        list.contains("diverged").then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    let tree = assert_equal(&mut cluster).await;
    assert!(!tree.has("loser".as_ref()));
    let shared = std::fs::read(cluster.folder().join("export-a/shared")).expect("a file");
    assert_eq!(shared, b"before");

    let list = cluster.replicas[0].ask(&["quarantine", "list"]).expect("a list");
    assert!(list.contains("the last op in common"), "only what lost was set aside: {list}");
    let name = list.split_whitespace().next().expect("a name");
    let kept = cluster.folder().join("kept");
    let to = kept.display().to_string();
    cluster.replicas[0].ask(&["quarantine", "export", name, &to]).expect("an export");
    let found = find(&kept, "loser").expect("what lost is there");
    assert_eq!(std::fs::read(found).expect("a file"), b"content");
}

fn find(below: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(below).ok()?.flatten() {
        let path = entry.path();
        if path.file_name().is_some_and(|found| found == name) {
            return Some(path);
        }
        if let Some(found) = path.is_dir().then(|| find(&path, name)).flatten() {
            return Some(found);
        }
    }
    None
}

/// A kill takes nothing that was acknowledged from the one who acknowledged it: it is in the log
/// before the answer, and the objects hold nothing that is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_lone_replica_loses_no_acknowledged_write_to_kills() {
    if !can_run("a_lone_replica_loses_no_acknowledged_write_to_kills") {
        return;
    }
    let mut plan = Plan::new(binary(), Service::Redis);
    plan.replicas = 1;
    plan.ttl = "3s".to_owned();
    let mut cluster = Cluster::start(&plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    let writers = Writers::start(Service::Redis, cluster.port, 8).await.expect("writers");
    for _ in 0..3 {
        writers.advance(200).await.expect("writes");
        let replica = &mut cluster.replicas[0];
        writers.history.kill(|| replica.kill());
        cluster.replicas[0].start().expect("the daemon starts");
    }
    writers.advance(50).await.expect("writes go on");
    let (history, present) = writers.finish().await.expect("a reader");
    let verdict = check(&history.writes(), &history.kills(), &present);
    assert!(verdict.lost.is_empty() && verdict.is_prefix(), "{verdict}");
}
