//! A volume without a server: nodes die at random moments, and every replica's plain files end
//! up equal, byte and metadata.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Cluster, Service};
use mainstay_chaos::workload::churn::Churn;
use support::{assert_equal, binary, can_run, read};

/// Of every kind that a volume takes.
const OPERATIONS: usize = 10_000;

async fn start() -> Cluster {
    let mut plan = Plan::new(binary(), Service::Files);
    plan.ttl = "3s".to_owned();
    Cluster::start(&plan).await.unwrap_or_else(|error| panic!("{error:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_of_all_replicas_equal_the_mount_after_churn() {
    if !can_run("exports_of_all_replicas_equal_the_mount_after_churn") {
        return;
    }
    let mut cluster = start().await;
    let mount = cluster.leader().await.expect("a leader").mount();
    let plain = tempfile::tempdir().expect("a plain directory");
    // As a new volume's root is.
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(plain.path(), private).expect("a mode");
    Churn::new(7).run(&mount, OPERATIONS).expect("churn on the mount");
    Churn::new(7).run(plain.path(), OPERATIONS).expect("the same churn on a plain directory");
    cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    let mounted = read(&mount);
    let exported = assert_equal(&mut cluster).await;
    assert_eq!(mounted.difference(&exported), None, "the mount and its export differ");
    let (here, there) = (read(plain.path()).without_times(), exported.without_times());
    assert_eq!(here.difference(&there), None, "a plain directory and the export differ");
    assert!(there.len() > 200, "the churn left {} files", there.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_may_die_at_any_moment() {
    if !can_run("any_node_may_die_at_any_moment") {
        return;
    }
    let mut cluster = start().await;
    for (seed, victims) in [(1, "follower"), (2, "leader"), (3, "all")] {
        let leader = cluster.leader().await.unwrap_or_else(|error| panic!("{error:#}"));
        let (leader, mount) = (leader.node.clone(), leader.mount());
        let churning = std::thread::spawn(move || {
            // Ends with the mount's death, if that comes first.
            let _ = Churn::new(seed).run(&mount, 4_000);
        });
        tokio::time::sleep(Duration::from_millis(300 + 211 * seed)).await;
        let doomed: Vec<_> = cluster
            .replicas
            .iter()
            .map(|replica| replica.node.clone())
            .filter(|node| match victims {
                "leader" => *node == leader,
                "follower" => *node != leader,
                _ => true,
            })
            .take(if victims == "follower" { 1 } else { 3 })
            .collect();
        for node in &doomed {
            cluster.node(node).expect("a node").kill();
        }
        churning.join().expect("the churn's thread");
        for node in &doomed {
            cluster.node(node).expect("a node").start().expect("the daemon starts again");
        }
        cluster.quiet().await.unwrap_or_else(|error| panic!("after {victims}: {error:#}"));
    }
    assert_equal(&mut cluster).await;
}
