//! Who has a place in a cluster: blank volumes, volumes of other clusters, an absent coordinator.

mod support;

use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Cluster, Coordination, PATIENCE, Service, until};
use mainstay_sync::vow::Vow;
use support::{assert_equal, binary, can_run, has, led_by_a};

fn plan(replicas: usize) -> Plan {
    let mut plan = Plan::new(binary(), Service::Files);
    plan.replicas = replicas;
    plan.ttl = "3s".to_owned();
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_never_leads_and_is_filled_again() {
    if !can_run("a_wiped_node_never_leads_and_is_filled_again") {
        return;
    }
    let mut cluster = led_by_a(&plan(2), |_| ()).await;
    let precious = cluster.replicas[0].mount().join("precious");
    std::fs::write(precious, "data").expect("a file");
    let before = cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    for replica in &mut cluster.replicas {
        replica.kill();
    }
    cluster.replicas[1].wipe().expect("an empty disk");
    cluster.replicas[1].start().expect("the daemon starts");
    let said = cluster.reaches("the blank node to say why it does not lead", |status| {
        let blank = status.replica("b");
        status.leader.is_none() && blank.is_some_and(|blank| blank.state.contains("not known"))
    });
    said.await.unwrap_or_else(|error| panic!("{error:#}"));
    // Whatever it might still be waiting for comes within a few leases.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let alone = cluster.status().await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!((alone.epoch, alone.leader), (before.epoch, None));

    cluster.replicas[0].start().expect("the daemon starts");
    let tree = assert_equal(&mut cluster).await;
    assert!(tree.has("precious".as_ref()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_another_cluster_is_refused_with_both_ids() {
    if !can_run("a_volume_of_another_cluster_is_refused_with_both_ids") {
        return;
    }
    let mut ours = led_by_a(&plan(1), |_| ()).await;
    let mut theirs = led_by_a(&plan(1), |_| ()).await;
    theirs.replicas[0].stop().await.unwrap_or_else(|error| panic!("{error:#}"));
    let foreign = theirs.replicas[0].state();
    let id = |state: &std::path::Path| {
        let vow = Vow::load(state).expect("a vow").expect("it is there");
        vow.cluster.expect("a founded cluster").to_string()
    };
    let ids = [id(&foreign), id(&ours.replicas[0].state())];
    let added = ours.add("b").expect("a node");
    std::fs::rename(foreign, added.state()).expect("a state directory that moves");
    added.start().expect("the daemon starts");
    let said = ours.reaches("both clusters to be named", |status| {
        let state = status.replica("b").map(|replica| replica.state.as_str());
        state.is_some_and(|state| ids.iter().all(|id| state.contains(id)))
    });
    let status = said.await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(status.leader.as_deref(), Some("a"));
    let refused = status.replica("b").expect("it is there");
    assert!(!refused.may_take_over, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_etcd_is_named_and_waited_for() {
    let name = "an_absent_etcd_is_named_and_waited_for";
    if !can_run(name) || !has(name, "etcd") {
        return;
    }
    let mut plan = plan(1);
    plan.coordination = Coordination::Etcd(1);
    let mut cluster = Cluster::create(&plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    let etcd = cluster.etcd.as_mut().expect("an etcd");
    let address = etcd.address().trim_start_matches("etcd://").to_owned();
    etcd.kill_all();
    cluster.replicas[0].start().expect("the daemon starts");
    let log = cluster.replicas[0].log();
    let step = Duration::from_millis(100);
    until("etcd's address to be named", PATIENCE, step, async || {
        let log = std::fs::read_to_string(&log).ok()?;
        let is_clear = |line: &str| line.contains(&address) && line.contains("WARN");
        log.lines().any(is_clear).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    let process = cluster.replicas[0].process().expect("it was started");
    assert_eq!(process.ended(), None, "it waits");
    cluster.etcd.as_mut().expect("an etcd").start_member(0).expect("etcd starts");
    cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}"));
}
