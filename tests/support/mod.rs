//! What every whole-system test needs to know of the machine.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::process::send;
use mainstay_chaos::live::{Cluster, PATIENCE, until};
use mainstay_chaos::workload::tree::Tree;
use rustix::process::Signal;

/// The built daemon.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_mainstay"))
}

/// Whether this machine can mount and make namespaces; says loudly that it cannot.
pub fn can_run(name: &str) -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if !std::fs::metadata("/dev/fuse").is_ok_and(|dev| dev.file_type().is_char_device()) {
        "no /dev/fuse"
    } else {
        return true;
    };
    skip(name, reason);
    false
}

/// Whether `program` is installed; says loudly that it is not.
pub fn has(name: &str, program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
        || Path::new(program).exists();
    if !found {
        skip(name, &format!("no {program}"));
    }
    found
}

/// A running cluster that node `a` leads, since it was there before the others.
pub async fn led_by_a(plan: &Plan, prepare: impl FnOnce(&mut Cluster)) -> Cluster {
    let mut cluster = Cluster::create(plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    prepare(&mut cluster);
    cluster.replicas[0].start().expect("the daemon starts");
    cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}"));
    for replica in &mut cluster.replicas[1..] {
        replica.start().expect("the daemon starts");
    }
    cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    cluster
}

/// Stops a process and waits until none of its threads runs.
pub async fn freeze(pid: i32) {
    send(pid, Signal::STOP);
    until("a process to stop", PATIENCE, Duration::from_millis(10), async || {
        let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        tasks
            .all(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
            })
            .then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

/// Does `work` on a thread that may get stuck in a mount; that is then a failure, and the
/// cluster's end frees the thread.
pub async fn bounded<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let task = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work));
    task.await.expect("stuck in the mount").expect("no panic")
}

/// Waits until all are equal by their own account, stops everything, and compares plain files.
pub async fn assert_equal(cluster: &mut Cluster) -> Tree {
    cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    // Followers first: a leader that stops hands over, and its successor would write.
    let leader = cluster.leader().await.expect("a leader").node.clone();
    let mut nodes: Vec<_> = cluster.replicas.iter().map(|replica| replica.node.clone()).collect();
    nodes.sort_by_key(|node| *node == leader);
    for node in &nodes {
        cluster.node(node).expect("a node").kill();
    }
    let mut trees = Vec::new();
    for node in &nodes {
        let target = cluster.folder().join(format!("export-{node}"));
        let _ = std::fs::remove_dir_all(&target);
        cluster.node(node).expect("a node").export(&target).unwrap_or_else(|error| {
            panic!("{error:#}");
        });
        trees.push((node.clone(), read(&target)));
    }
    for (node, tree) in &trees[1..] {
        assert_eq!(trees[0].1.difference(tree), None, "{} and {node} differ", trees[0].0);
    }
    trees.swap_remove(0).1
}

/// Everything below `path`.
pub fn read(path: &Path) -> Tree {
    Tree::read(path).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Says loudly that a test could not run here.
pub fn skip(name: &str, reason: &str) {
    use std::io::Write;
    // Past the test harness's capture, so that a skipped test is always seen.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {reason}");
}
