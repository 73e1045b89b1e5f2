//! Sync durability on bad days: what waits, what an operator can do about it, and that it costs
//! only what the command says.

mod support;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Cluster, Service, Status};
use support::{assert_equal, binary, bounded, can_run, led_by_a};

fn plan() -> Plan {
    let mut plan = Plan::new(binary(), Service::Files);
    plan.durability = "sync".to_owned();
    plan.ttl = "3s".to_owned();
    plan
}

/// Three voters, led by a.
async fn three_voters() -> Cluster {
    let cluster = led_by_a(&plan(), |_| ()).await;
    text_says(&cluster, "2 disks of 3").await;
    cluster
}

/// A file that is on as many disks as its cluster promises once this returns.
async fn synced(at: &Path) {
    let at = at.to_owned();
    bounded(move || {
        let mut file = File::create(at).expect("a file");
        file.write_all(b"kept").expect("a write");
        file.sync_all().expect("synced");
    })
    .await;
}

async fn reaches(cluster: &Cluster, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
    let reached = cluster.reaches(what, is_so).await;
    reached.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Waits until `mainstay status`, for people, has these words.
async fn text_says(cluster: &Cluster, words: &str) {
    let mut last = String::new();
    let step = std::time::Duration::from_millis(200);
    let said =
        mainstay_chaos::live::until(words, mainstay_chaos::live::PATIENCE, step, async || {
            last = match cluster.replicas[0].ask(&["status"]) {
                Ok(text) => text,
                // It exits with 3 when nobody serves; the text is in the error then.
                Err(error) => format!("{error:#}"),
            };
            last.contains(words).then_some(())
        })
        .await;
    said.unwrap_or_else(|error| panic!("{error:#}\n{last}\n{}", cluster.last_words()));
}

fn ask(cluster: &Cluster, words: &[&str]) -> String {
    let said = cluster.replicas[0].ask(words);
    said.unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()))
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_wait_for_a_quorum_until_an_operator_degrades() {
    if !can_run("writes_wait_for_a_quorum_until_an_operator_degrades") {
        return;
    }
    let mut cluster = three_voters().await;
    for node in ["b", "c"] {
        cluster.node(node).expect("a node").kill();
    }
    let writing = tokio::spawn({
        let at = cluster.replicas[0].mount().join("alone");
        async move { synced(&at).await }
    });
    text_says(&cluster, "writes wait").await;
    assert!(!writing.is_finished(), "an fsync was acknowledged by one of three voters");
    ask(&cluster, &["degrade", "--yes"]);
    writing.await.expect("the write went on");
    text_says(&cluster, "fewer copies").await;
    for node in ["b", "c"] {
        cluster.node(node).expect("a node").start().expect("the daemon starts");
    }
    text_says(&cluster, "2 disks of 3").await;
    let tree = assert_equal(&mut cluster).await;
    assert!(tree.has("alone".as_ref()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_lost_everything_is_rebuilt_from_the_replicas() {
    if !can_run("a_coordinator_that_lost_everything_is_rebuilt_from_the_replicas") {
        return;
    }
    let mut cluster = three_voters().await;
    synced(&cluster.replicas[0].mount().join("precious")).await;
    let before = cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}")).epoch;
    for replica in &mut cluster.replicas {
        replica.kill();
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(cluster.folder().join(format!("coord.db{suffix}")));
    }
    // Two of three could elect, but a later config may have others as voters: an operator knows.
    for node in ["a", "b"] {
        cluster.node(node).expect("a node").start().expect("the daemon starts");
    }
    let words = "once all of its voters are here: start c";
    reaches(&cluster, words, |status| {
        status.replicas.iter().any(|replica| replica.state.contains(words))
    })
    .await;
    let newest = ["a", "b"].into_iter().find(|node| {
        let recovered = cluster.replicas[0].ask(&["recover", "--from", node, "--yes"]);
        recovered.is_ok_and(|said| !said.contains("NEWER"))
    });
    assert!(newest.is_some(), "{}", cluster.last_words());
    let led = reaches(&cluster, "a leader", |status| status.ready).await;
    assert!(led.epoch > before, "epoch {} was used before", led.epoch);
    cluster.node("c").expect("a node").start().expect("the daemon starts");
    text_says(&cluster, "2 disks of 3").await;
    let tree = assert_equal(&mut cluster).await;
    assert!(tree.has("precious".as_ref()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_voter_that_an_operator_names_leads_and_lacks_nothing() {
    if !can_run("the_voter_that_an_operator_names_leads_and_lacks_nothing") {
        return;
    }
    let mut cluster = three_voters().await;
    synced(&cluster.replicas[0].mount().join("precious")).await;
    let refused = cluster.replicas[0].ask(&["failover", "--to", "c"]);
    let refused = format!("{:#}", refused.expect_err("a leads"));
    assert!(refused.contains("switchover --to c"), "{refused}");
    // So that nobody takes over before c is named.
    ask(&cluster, &["pause", "--reason", "test"]);
    cluster.node("a").expect("a node").kill();
    reaches(&cluster, "nobody to lead", |status| !status.ready).await;
    ask(&cluster, &["failover", "--to", "c"]);
    let led = reaches(&cluster, "c to lead", |status| {
        status.ready && status.leader.as_deref() == Some("c")
    })
    .await;
    assert!(led.epoch > 1, "{led:?}");
    ask(&cluster, &["resume"]);
    cluster.node("a").expect("a node").start().expect("the daemon starts");
    let tree = assert_equal(&mut cluster).await;
    assert!(tree.has("precious".as_ref()));
}
