//! Both coordinators keep one contract; what each must survive besides is here too.
#![allow(clippy::print_stderr, reason = "skipped tests and running cases are named there")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mainstay_election::EtcdOptions;
use mainstay_election::coordinator::{
    Compare, Coordinator, CoordinatorError, Event, Outcome, Watch, Write,
};
use support::cases::{self, Store};
use support::etcd::{Cluster, Options, installed};
use support::{PATIENT_TTL, coordinator, eventually, find, next};

struct SqliteStore {
    path: PathBuf,
}

#[async_trait]
impl Store for SqliteStore {
    async fn connect(&self, service: &str) -> Arc<dyn Coordinator> {
        sqlite(&self.path, service).await
    }

    async fn forget_history(&self) {
        raw(&self.path, "DELETE FROM changes WHERE revision < (SELECT max(revision) FROM changes)");
    }
}

async fn sqlite(path: &Path, service: &str) -> Arc<dyn Coordinator> {
    let address = format!("sqlite://{}", path.display());
    coordinator(&address, &EtcdOptions::default(), service, PATIENT_TTL).await
}

/// What no coordinator would do to its file.
fn raw(path: &Path, statements: &str) {
    let connection = rusqlite::Connection::open(path).expect("the file");
    connection.busy_timeout(support::LONG).expect("a timeout");
    connection.execute_batch(statements).expect("the statements");
}

struct EtcdStore {
    cluster: Cluster,
}

#[async_trait]
impl Store for EtcdStore {
    async fn connect(&self, service: &str) -> Arc<dyn Coordinator> {
        etcd(&self.cluster, service, PATIENT_TTL).await
    }

    async fn forget_history(&self) {
        let members = [self.cluster.members()];
        let mut client = etcd_client::Client::connect(members, None).await.expect("a client");
        let now = client.get("k", None).await.expect("a read");
        let now = now.header().expect("a header").revision();
        client.compact(now, None).await.expect("compacted");
    }
}

async fn etcd(cluster: &Cluster, service: &str, ttl: Duration) -> Arc<dyn Coordinator> {
    let address = format!("etcd://{}", cluster.members());
    coordinator(&address, &EtcdOptions::default(), service, ttl).await
}

fn put(key: &str, value: &str) -> Vec<Write> {
    vec![Write::Put(key.into(), value.into(), None)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().expect("a directory");
    cases::all(&SqliteStore { path: directory.path().join("c.db") }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_conforms() {
    if installed("etcd_conforms") {
        cases::all(&EtcdStore { cluster: Cluster::start(1, |_| Options::default()) }).await;
    }
}

#[tokio::test]
async fn a_sqlite_lease_does_not_outlive_its_boot() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("c.db");
    let us = sqlite(&path, "s").await;
    let lease = us.grant(support::LONG).await.expect("a lease").id;
    let writes = vec![Write::Put("leader".into(), b"a".to_vec(), Some(lease))];
    us.transact(vec![], writes).await.expect("written");
    raw(&path, "UPDATE leases SET boot = 'the one before'");
    // The very first transaction after the reboot finds the key gone, not only a read.
    let outcome = us.transact(vec![Compare::Absent("leader".into())], put("k", "v")).await;
    assert!(matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
    assert_eq!(us.keep_alive(lease).await, Err(CoordinatorError::LeaseGone));
}

#[tokio::test]
async fn a_replaced_sqlite_file_is_not_a_second_coordinator() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("c.db");
    let us = sqlite(&path, "s").await;
    us.transact(vec![], put("k", "v")).await.expect("written");
    let mut watch = us.watch(us.read().await.expect("a read").revision).await.expect("a watch");
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", path.display())).expect("removed");
    }
    assert!(matches!(us.read().await, Err(CoordinatorError::Unreachable(_))));
    let other = sqlite(&path, "s").await;
    other.transact(vec![], put("k", "other")).await.expect("written");
    match us.transact(vec![], put("k", "v")).await {
        Err(CoordinatorError::Unreachable(text)) => assert!(text.contains("replaced"), "{text}"),
        answer => panic!("{answer:?}"),
    }
    assert!(matches!(next(&mut watch).await, Event::Broken(_)));
    assert!(us.watch(Default::default()).await.is_err(), "a watch of the other file");
}

#[tokio::test]
async fn a_sqlite_file_does_not_keep_its_history_for_ever() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("c.db");
    let us = sqlite(&path, "s").await;
    us.transact(vec![], put("k", "v")).await.expect("written");
    // A million transactions later.
    raw(&path, "INSERT INTO changes VALUES (1000000, '/mainstay/other/k', x'00', 1, NULL)");
    us.transact(vec![], put("k", "v")).await.expect("written");
    let connection = rusqlite::Connection::open(&path).expect("the file");
    let kept: i64 = connection
        .query_row("SELECT count(*) FROM changes", [], |row| row.get(0))
        .expect("a count");
    assert_eq!(kept, 2);
    let mut watch = us.watch(Default::default()).await.expect("a watch");
    assert!(matches!(next(&mut watch).await, Event::Broken(_)));
}

#[tokio::test]
async fn a_file_that_is_no_coordinators_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let none = EtcdOptions::default();
    let path = directory.path().join("letter.txt");
    let letter = "Dear database,\n".repeat(100);
    std::fs::write(&path, &letter).expect("written");
    let address = format!("sqlite://{}", path.display()).parse().expect("an address");
    match mainstay_election::connect(&address, &none, "s", PATIENT_TTL).await {
        Err(CoordinatorError::Invalid(text)) => assert!(text.contains("letter.txt"), "{text}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a letter was taken for a coordinator"),
    }
    assert_eq!(std::fs::read_to_string(&path).expect("readable"), letter);

    let path = directory.path().join("newer.db");
    raw(&path, "PRAGMA user_version = 99");
    let address = format!("sqlite://{}", path.display()).parse().expect("an address");
    let answer = mainstay_election::connect(&address, &none, "s", PATIENT_TTL).await;
    assert!(matches!(answer, Err(CoordinatorError::Invalid(text)) if text.contains("99")));
}

/// Calls that fail at once or soon, as a replica's do.
const TTL: Duration = Duration::from_secs(8);

/// Answers again, whoever leads the cluster now.
async fn written(us: &Arc<dyn Coordinator>, key: &str) {
    eventually(&format!("{key} can be written"), async || {
        match us.transact(vec![], put(key, "v")).await {
            Ok(_) => Some(()),
            Err(CoordinatorError::Unreachable(_)) => None,
            Err(other) => panic!("{other}"),
        }
    })
    .await;
}

async fn readable(us: &Arc<dyn Coordinator>, key: &str) {
    let contents = eventually("a read", async || us.read().await.ok()).await;
    assert!(find(&contents, key).is_some(), "{key} was acknowledged and is gone");
}

/// Until the watch breaks, and why. A write that nobody answered may still arrive before that.
async fn broken(watch: &mut Box<dyn Watch>) -> String {
    loop {
        if let Event::Broken(cause) = next(watch).await {
            return cause;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_cluster_may_lose_any_member_and_come_back_from_losing_all() {
    if !installed("an_etcd_cluster_may_lose_any_member_and_come_back_from_losing_all") {
        return;
    }
    let mut cluster = Cluster::start(3, |_| Options::default());
    let us = etcd(&cluster, "s", TTL).await;
    written(&us, "first").await;
    // A lease so long that only a wrong answer could end it here.
    let lease = eventually("a lease", async || us.grant(20 * support::LONG).await.ok()).await.id;

    // One after another, so the cluster's leader is among them.
    for index in 0..3 {
        cluster.kill(index);
        written(&us, &format!("without-{index}")).await;
        readable(&us, "first").await;
        let kept = eventually("a keepalive", async || match us.keep_alive(lease).await {
            Ok(ttl) => Some(ttl),
            Err(CoordinatorError::Unreachable(_)) => None,
            Err(other) => panic!("{other}"),
        });
        assert!(kept.await >= 20 * support::LONG);
        cluster.restart(index);
    }

    // A member that hangs keeps its connections: only our own patience finds out.
    for index in 0..3 {
        cluster.pause(index);
        written(&us, &format!("paused-{index}")).await;
        readable(&us, "first").await;
        cluster.resume(index);
    }
    // Nor may that depend on a caller who waits for as long as we do.
    for index in 0..3 {
        cluster.pause(index);
        eventually("a hasty read", async || {
            tokio::time::timeout(TTL / 6, us.read()).await.ok()?.ok()
        })
        .await;
        cluster.resume(index);
    }

    let mut watch = eventually("a watch", async || {
        let known = us.read().await.ok()?.revision;
        us.watch(known).await.ok()
    })
    .await;
    (0..3).for_each(|index| cluster.kill(index));
    let answer = us.transact(vec![], put("lost", "v")).await;
    assert!(matches!(answer, Err(CoordinatorError::Unreachable(_))), "{answer:?}");
    assert!(matches!(us.read().await, Err(CoordinatorError::Unreachable(_))));
    assert!(matches!(us.keep_alive(lease).await, Err(CoordinatorError::Unreachable(_))));
    broken(&mut watch).await;

    (0..3).for_each(|index| cluster.restart(index));
    written(&us, "back").await;
    for key in ["first", "without-0", "without-2", "paused-2", "back"] {
        readable(&us, key).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_member_breaks_its_watches() {
    if !installed("a_hanging_member_breaks_its_watches") {
        return;
    }
    let cluster = Cluster::start(1, |_| Options::default());
    let us = etcd(&cluster, "s", TTL).await;
    written(&us, "k").await;
    // Longer than it takes to be thought dead: a quiet stream whose member lives is not broken.
    // (Where the machine stalls for as long, it is: then once more.)
    let mut attempts = 0;
    let mut watch = loop {
        let known = eventually("a read", async || us.read().await.ok()).await.revision;
        let mut watch = eventually("a watch", async || us.watch(known).await.ok()).await;
        match tokio::time::timeout(TTL, watch.next()).await {
            Err(_) => break watch,
            Ok(event) => assert!(attempts < 5, "{event:?}"),
        }
        attempts += 1;
    };
    cluster.pause(0);
    let cause = broken(&mut watch).await;
    assert!(cause.contains("silent"), "{cause}");
    cluster.resume(0);
    written(&us, "k").await;
}

/// A follower cut off from its cluster must not answer from memory: read, watch or keepalive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_leader_answers_nothing() {
    if !installed("a_member_without_a_leader_answers_nothing") {
        return;
    }
    let mut cluster = Cluster::start(3, |_| Options::default());
    let us = etcd(&cluster, "s", TTL).await;
    written(&us, "k").await;
    let lease = eventually("a lease", async || us.grant(20 * support::LONG).await.ok()).await.id;
    let last = format!("etcd://{}", cluster.member(2));
    let last = coordinator(&last, &EtcdOptions::default(), "s", TTL).await;
    let mut watch = eventually("a watch", async || {
        let known = last.read().await.ok()?.revision;
        last.watch(known).await.ok()
    })
    .await;
    cluster.kill(0);
    cluster.kill(1);
    broken(&mut watch).await;
    // The last one may take a moment to notice; from then on it is silent for good.
    eventually("no answer", async || us.read().await.is_err().then_some(())).await;
    eventually("no keepalive", async || us.keep_alive(lease).await.is_err().then_some(())).await;
    let answer = us.keep_alive(lease).await;
    assert!(matches!(answer, Err(CoordinatorError::Unreachable(_))), "{answer:?}");
    cluster.restart(0);
    readable(&us, "k").await;
}
