//! Disks that are full: the service is told, nobody else suffers, and nothing is lost.

mod support;

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Cluster, PATIENCE, Service, until};
use support::{assert_equal, binary, bounded, can_run, led_by_a};

/// Enough for the log's segments and a few files, in MiB.
const SMALL: u64 = 80;
const AMPLE: u64 = 1024;

fn plan() -> Plan {
    let mut plan = Plan::new(binary(), Service::Files);
    plan.replicas = 2;
    plan.ttl = "3s".to_owned();
    plan
}

/// Stores a file of 1 MiB as a service does that wants to be sure.
fn store(mount: &Path, number: usize) -> io::Result<()> {
    let mut file = File::create(mount.join(number.to_string()))?;
    file.write_all(&content(number))?;
    file.sync_all()
}

fn content(number: usize) -> Vec<u8> {
    number.to_string().into_bytes().into_iter().cycle().take(1 << 20).collect()
}

/// Stores files `from`.. until one is refused or there are `count`; says how many were stored.
fn store_until_refused(mount: &Path, count: usize) -> (usize, Option<io::Error>) {
    for number in 0..count {
        if let Err(error) = store(mount, number) {
            return (number, Some(error));
        }
    }
    (count, None)
}

async fn assert_stored(mount: PathBuf, count: usize) {
    bounded(move || {
        for number in 0..count {
            let found = std::fs::read(mount.join(number.to_string())).expect("a file");
            assert!(found == content(number), "file {number} is not what was stored");
        }
    })
    .await;
}

async fn says_full(cluster: &Cluster, node: &str) {
    let is_full = |state: &str| state.contains("full") || state.contains("space");
    let said = cluster.reaches("the node to say that its disk is full", |status| {
        status.replica(node).is_some_and(|replica| is_full(&replica.state))
    });
    said.await.unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaders_full_disk_reaches_the_service_as_such_and_loses_nothing() {
    if !can_run("a_leaders_full_disk_reaches_the_service_as_such_and_loses_nothing") {
        return;
    }
    let mut cluster = led_by_a(&plan(), |cluster| {
        cluster.replicas[0].limit_disk(SMALL).unwrap_or_else(|error| panic!("{error:#}"));
    })
    .await;
    let mount = cluster.replicas[0].mount();
    let storing = mount.clone();
    let (stored, refused) = bounded(move || store_until_refused(&storing, 300)).await;
    let refused = refused.expect("the disk cannot hold all of them");
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "after {stored} files: {refused}");
    says_full(&cluster, "a").await;
    assert_stored(mount.clone(), stored).await;

    cluster.replicas[0].limit_disk(AMPLE).expect("the disk grows");
    let (from, step) = (mount.clone(), Duration::from_millis(200));
    until("writes to be taken again", PATIENCE, step, async || {
        let from = from.clone();
        bounded(move || store(&from, stored)).await.ok()
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    assert_stored(mount, stored + 1).await;
    assert_equal(&mut cluster).await;
    assert_stored(cluster.folder().join("export-b"), stored + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followers_full_disk_is_its_own_affair_and_it_recovers() {
    if !can_run("a_followers_full_disk_is_its_own_affair_and_it_recovers") {
        return;
    }
    let mut cluster = led_by_a(&plan(), |cluster| {
        cluster.replicas[1].limit_disk(SMALL).unwrap_or_else(|error| panic!("{error:#}"));
    })
    .await;
    let before = cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}"));
    let mount = cluster.replicas[0].mount();
    let count = usize::try_from(SMALL).expect("a small number") + 20;
    let (stored, refused) = bounded(move || store_until_refused(&mount, count)).await;
    assert!(refused.is_none(), "the leader has room: {refused:?} after {stored}");
    says_full(&cluster, "b").await;
    let after = cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!((after.epoch, after.leader), (before.epoch, before.leader));

    cluster.replicas[1].limit_disk(AMPLE).expect("the disk grows");
    assert_equal(&mut cluster).await;
    assert_stored(cluster.folder().join("export-b"), count).await;
}
