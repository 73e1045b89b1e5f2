//! A real etcd that loses its leader, or all of itself, under a running cluster.

mod support;

use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Cluster, Coordination, PATIENCE, Service, until};
use mainstay_chaos::workload::{Client, Writers, check};
use support::{binary, can_run, has};

async fn start(ttl: &str) -> Cluster {
    start_with(ttl, "async").await
}

async fn start_with(ttl: &str, durability: &str) -> Cluster {
    let mut plan = Plan::new(binary(), Service::Redis);
    plan.durability = durability.to_owned();
    plan.coordination = Coordination::Etcd(3);
    plan.ttl = ttl.to_owned();
    Cluster::start(&plan).await.unwrap_or_else(|error| panic!("{error:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_etcds_leader_is_not_felt() {
    let name = "the_death_of_etcds_leader_is_not_felt";
    if !can_run(name) || !has(name, "etcd") {
        return;
    }
    // etcd needs up to two seconds to elect another leader, and on a busy machine more: a lease
    // must be several times that to be kept.
    let mut cluster = start("12s").await;
    let before = cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    let writers = Writers::start(Service::Redis, cluster.port, 2).await.expect("writers");
    writers.advance(50).await.expect("writes");
    let etcd = cluster.etcd.as_mut().expect("an etcd");
    let leader = etcd.leader().await.expect("etcd leads");
    etcd.kill_member(leader);
    etcd.answers().await.expect("etcd elects another");
    // Longer than the lease: had it been lost, a new epoch would have come by now.
    tokio::time::sleep(Duration::from_secs(13)).await;
    writers.advance(50).await.expect("writes go on");
    let after = cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}"));
    let (history, present) = writers.finish().await.expect("a reader");
    let verdict = check(&history.writes(), &history.kills(), &present);
    assert_eq!(after.epoch, before.epoch, "the leader kept its key\n{}", cluster.last_words());
    assert!(verdict.lost.is_empty() && verdict.is_prefix(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_the_leader_steps_down_and_comes_back_by_itself() {
    let name = "without_etcd_the_leader_steps_down_and_comes_back_by_itself";
    if !can_run(name) || !has(name, "etcd") {
        return;
    }
    let mut cluster = start("4s").await;
    let before = cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    let leader = before.leader.clone().expect("a leader");
    let service_port = cluster.node(&leader).expect("a node").service_port;
    let direct = async || tokio::net::TcpStream::connect(("127.0.0.1", service_port)).await.is_ok();
    let writers = Writers::start(Service::Redis, cluster.port, 2).await.expect("writers");
    writers.advance(50).await.expect("writes");
    let began = writers.history.now();
    assert!(direct().await, "the leader's service listens");
    cluster.etcd.as_mut().expect("an etcd").kill_all();
    // Its service must be gone, not only its gate shut: nobody else may lead while it runs.
    until("the leader's service to end", PATIENCE, Duration::from_millis(50), async || {
        (!direct().await).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    writers.history.killed_since(began);

    let etcd = cluster.etcd.as_mut().expect("an etcd");
    for member in 0..etcd.size() {
        etcd.start_member(member).expect("etcd starts again");
    }
    etcd.answers().await.expect("etcd answers again");
    let after = cluster
        .reaches("a leader of a newer epoch", |status| status.ready && status.epoch > before.epoch)
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    writers.advance(50).await.expect("writes go on by themselves");
    let (history, present) = writers.finish().await.expect("a reader");
    let verdict = check(&history.writes(), &history.kills(), &present);
    assert!(verdict.is_prefix(), "{verdict}");
    // The old leader's clean end left nobody behind: all of its writes were there to be elected.
    assert!(after.leader.is_some());
    Client::connect(Service::Redis, cluster.port).await.expect("the ambassador forwards");
}

/// In sync durability its voters are what makes a leader; and its clients go on by its own word.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_its_voters_hear_outlives_etcd_and_so_do_its_clients() {
    let name = "a_leader_that_its_voters_hear_outlives_etcd_and_so_do_its_clients";
    if !can_run(name) || !has(name, "etcd") {
        return;
    }
    let ttl = Duration::from_secs(4);
    let mut cluster = start_with("4s", "sync").await;
    let before = cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    let writers = Writers::start(Service::Redis, cluster.port, 2).await.expect("writers");
    writers.advance(50).await.expect("writes");
    cluster.etcd.as_mut().expect("an etcd").kill_all();
    // Every lease and every view of etcd is worth nothing after this.
    tokio::time::sleep(3 * ttl).await;
    writers.advance(50).await.expect("writes go on without etcd");
    // The driver asks the server who it is.
    let new = tokio::time::timeout(PATIENCE, Client::connect(Service::Redis, cluster.port));
    new.await.expect("a new client is not held").expect("it is answered");

    let etcd = cluster.etcd.as_mut().expect("an etcd");
    for member in 0..etcd.size() {
        etcd.start_member(member).expect("etcd starts again");
    }
    etcd.answers().await.expect("etcd answers again");
    tokio::time::sleep(2 * ttl).await;
    writers.advance(50).await.expect("writes go on with etcd");
    let after = cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(after.epoch, before.epoch, "nobody took over\n{}", cluster.last_words());
    let (history, present) = writers.finish().await.expect("a reader");
    let verdict = check(&history.writes(), &history.kills(), &present);
    assert!(verdict.lost.is_empty() && verdict.is_prefix(), "{verdict}");
}
