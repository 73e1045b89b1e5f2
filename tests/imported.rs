//! A running database's directory is adopted: imported offline, it founds the cluster, and every
//! replica has it.

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Cluster, Service};
use support::{assert_equal, binary, can_run, led_by_a, read};

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_directory_founds_the_cluster_and_reaches_every_replica() {
    if !can_run("an_imported_directory_founds_the_cluster_and_reaches_every_replica") {
        return;
    }
    for durability in ["sync", "async"] {
        let mut plan = Plan::new(binary(), Service::Files);
        plan.ttl = "3s".to_owned();
        plan.durability = durability.to_owned();
        let mut cluster = Cluster::create(&plan).await.unwrap_or_else(|error| panic!("{error:#}"));
        let source = cluster.folder().join("existing");
        std::fs::create_dir_all(source.join("base/1")).expect("directories");
        std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o700)).expect("a mode");
        std::fs::write(source.join("base/1/data"), vec![7; 300_000]).expect("a file");
        std::fs::hard_link(source.join("base/1/data"), source.join("again")).expect("a name");
        symlink("base/1", source.join("link")).expect("a link");
        let from = source.display().to_string();
        cluster.replicas[1].ask(&["import", &from]).unwrap_or_else(|error| panic!("{error:#}"));

        // All at once: the two blank ones must not found another cluster.
        for replica in &mut cluster.replicas {
            replica.start().expect("the daemon starts");
        }
        let status = cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(status.leader.as_deref(), Some("b"), "{durability}");
        let tree = assert_equal(&mut cluster).await;
        assert_eq!(tree.difference(&read(&source)), None, "{durability}: as it was imported");
        let refused = cluster.replicas[1].ask(&["import", &from]);
        assert!(refused.is_err(), "{durability}: it is not blank any more");
    }
}

/// It looks like the first op of any cluster, and must not be taken for a prefix of this one.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_imported_beside_a_founded_cluster_is_refused_and_kept() {
    if !can_run("what_was_imported_beside_a_founded_cluster_is_refused_and_kept") {
        return;
    }
    let mut plan = Plan::new(binary(), Service::Files);
    plan.ttl = "3s".to_owned();
    plan.replicas = 1;
    let mut cluster = led_by_a(&plan, |_| ()).await;
    let source = cluster.folder().join("existing");
    std::fs::create_dir(&source).expect("a directory");
    std::fs::write(source.join("precious"), "data").expect("a file");
    let added = cluster.add("b").expect("a node");
    added.ask(&["import", &source.display().to_string()]).unwrap_or_else(|e| panic!("{e:#}"));
    added.start().expect("the daemon starts");
    let said = cluster.reaches("the import to be refused", |status| {
        status.replica("b").is_some_and(|replica| replica.state.contains("knows nothing of"))
    });
    said.await.unwrap_or_else(|error| panic!("{error:#}"));
    let target = cluster.folder().join("kept");
    let b = cluster.node("b").expect("a node");
    b.kill();
    b.export(&target).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(read(&target).difference(&read(&source)), None, "as it was imported");
}
