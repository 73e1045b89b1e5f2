//! Bad input and bad days, seen from outside: what the daemon says, and what it leaves alone.

mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Cluster, PATIENCE, Service, ports, until};
use mainstay_chaos::workload::{Client, Writers, check};
use rustix::process::Signal;
use support::{binary, can_run};

/// Runs the daemon until it ends by itself; it must within a minute.
fn run_to_end(config: &Path) -> Output {
    let output = Command::new("timeout")
        .args(["--kill-after=5", "60"])
        .arg(binary())
        .args(["run", "--config"])
        .arg(config)
        .output()
        .expect("timeout(1) runs");
    let code = output.status.code();
    assert!(!matches!(code, Some(124 | 137)), "it goes on running: {}", said(&output));
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A cluster of one, laid out and not started, with lines of its configuration replaced.
async fn one(replacements: &[(&str, &str)]) -> Cluster {
    let mut plan = Plan::new(binary(), Service::Files);
    plan.replicas = 1;
    plan.ttl = "3s".to_owned();
    let cluster = Cluster::create(&plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    let config = cluster.replicas[0].config();
    let mut text = std::fs::read_to_string(&config).expect("a configuration");
    for (from, to) in replacements {
        assert!(text.contains(from), "{from:?} is not in {text}");
        text = text.replace(from, to);
    }
    std::fs::write(config, text).expect("a configuration");
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_point_that_holds_files_is_refused_and_left_alone() {
    if !can_run("a_mount_point_that_holds_files_is_refused_and_left_alone") {
        return;
    }
    let cluster = one(&[]).await;
    let precious = cluster.replicas[0].mount().join("precious");
    std::fs::write(&precious, "data").expect("a file");
    let output = run_to_end(&cluster.replicas[0].config());
    assert!(!output.status.success());
    assert!(said(&output).contains("precious"), "{}", said(&output));
    assert!(said(&output).contains("import"), "{}", said(&output));
    assert_eq!(std::fs::read(precious).expect("still there"), b"data");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_service_command_is_named() {
    if !can_run("a_missing_service_command_is_named") {
        return;
    }
    let cluster = one(&[("\"sleep\", \"infinity\"", "\"/no/such/program\"")]).await;
    let output = run_to_end(&cluster.replicas[0].config());
    assert!(!output.status.success());
    assert!(said(&output).contains("/no/such/program"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    if !can_run("a_taken_port_is_named") {
        return;
    }
    let port = ports::free().expect("a port");
    let taken = std::net::UdpSocket::bind(("127.0.0.1", port)).expect("a socket");
    let line = format!("[peer]\nlisten = \"127.0.0.1:{port}\" #");
    let cluster = one(&[("[peer]\nlisten = ", &line)]).await;
    let output = run_to_end(&cluster.replicas[0].config());
    assert!(!output.status.success());
    assert!(said(&output).contains(&port.to_string()), "{}", said(&output));
    drop(taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_one_state_directory_is_refused() {
    if !can_run("a_second_daemon_on_one_state_directory_is_refused") {
        return;
    }
    let mut cluster = one(&[]).await;
    cluster.replicas[0].start().expect("the daemon starts");
    cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}"));
    let output = run_to_end(&cluster.replicas[0].config());
    assert!(!output.status.success());
    assert!(said(&output).contains("state"), "{}", said(&output));
    cluster.serving().await.unwrap_or_else(|error| panic!("the first goes on: {error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_with_another_secret_is_told_so_and_copies_nothing() {
    if !can_run("a_follower_with_another_secret_is_told_so_and_copies_nothing") {
        return;
    }
    let mut plan = Plan::new(binary(), Service::Files);
    plan.replicas = 2;
    plan.ttl = "3s".to_owned();
    let mut cluster = Cluster::create(&plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    cluster.replicas[0].start().expect("the daemon starts");
    cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}"));

    let other = Command::new(binary()).args(["secret", "new"]).output().expect("a secret");
    let file = cluster.folder().join("other-secret");
    std::fs::write(&file, other.stdout).expect("a file");
    let config = cluster.replicas[1].config();
    let text = std::fs::read_to_string(&config).expect("a configuration");
    let right = cluster.folder().join("secret").display().to_string();
    std::fs::write(&config, text.replace(&right, &file.display().to_string())).expect("written");
    cluster.replicas[1].start().expect("the daemon starts");
    let log = cluster.replicas[1].log();
    until("the follower to name the secret", PATIENCE, Duration::from_millis(100), async || {
        std::fs::read_to_string(&log).ok()?.contains("secret").then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    assert_eq!(cluster.status().await.expect("a status").leader.as_deref(), Some("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_is_killed_by_its_fencer_and_acknowledges_nothing_late() {
    if !can_run("a_paused_leader_is_killed_by_its_fencer_and_acknowledges_nothing_late") {
        return;
    }
    let mut plan = Plan::new(binary(), Service::Redis);
    plan.ttl = "3s".to_owned();
    let mut cluster = Cluster::start(&plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    let before = cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    let leader = before.leader.clone().expect("a leader");
    let writers = Writers::start(Service::Redis, cluster.port, 2).await.expect("writers");
    writers.advance(100).await.expect("writes");
    let process = cluster.node(&leader).expect("a node").process().expect("it runs");
    // With the daemon stopped no fsync returns, and Redis answers no write before one.
    writers.history.kill(|| process.signal(Signal::STOP));
    let pid = process.pid();
    let after = cluster
        .reaches("another leader", |status| status.ready && status.epoch > before.epoch)
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert_ne!(after.leader, before.leader);
    assert!(!mainstay_chaos::live::process::is_alive(pid), "the paused daemon was not killed");
    writers.advance(50).await.expect("writes go on");
    let (history, present) = writers.finish().await.expect("a reader");
    let verdict = check(&history.writes(), &history.kills(), &present);
    assert!(verdict.is_prefix(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_is_restarted_in_place() {
    if !can_run("a_service_that_dies_is_restarted_in_place") {
        return;
    }
    let mut plan = Plan::new(binary(), Service::Redis);
    plan.replicas = 2;
    plan.ttl = "3s".to_owned();
    let mut cluster = Cluster::start(&plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    let before = cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    let leader = before.leader.clone().expect("a leader");
    let mut client = Client::connect(Service::Redis, cluster.port).await.expect("a client");
    client.write(1, 1).await.expect("a write");
    let daemon = cluster.node(&leader).expect("a node").process().expect("it runs").pid();
    let service = mainstay_chaos::live::process::tree(daemon)
        .into_iter()
        .find(|pid| name_of(*pid) == "redis-server")
        .expect("redis runs below the daemon");
    let killed = rustix::process::Pid::from_raw(service).expect("a pid");
    rustix::process::kill_process(killed, Signal::KILL).expect("it is killed");
    let patience = Duration::from_millis(100);
    let found = until("redis to answer again", PATIENCE, patience, async || {
        Client::connect(Service::Redis, cluster.port).await.ok()?.read_all().await.ok()
    });
    assert_eq!(found.await.unwrap_or_else(|error| panic!("{error:#}")), [(1, 1)]);
    let after = cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!((after.epoch, after.leader), (before.epoch, before.leader), "restarted in place");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_hands_leadership_over_and_loses_nothing() {
    if !can_run("sigterm_hands_leadership_over_and_loses_nothing") {
        return;
    }
    let mut plan = Plan::new(binary(), Service::Redis);
    // Were the lease waited for, the test would take far longer than its patience.
    plan.ttl = "60s".to_owned();
    let mut cluster = Cluster::start(&plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    let before = cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    let writers = Writers::start(Service::Redis, cluster.port, 2).await.expect("writers");
    writers.advance(100).await.expect("writes");
    let leader = before.leader.clone().expect("a leader");
    cluster.node(&leader).expect("a node").stop().await.unwrap_or_else(|error| {
        panic!("{error:#}");
    });
    let handed_over = tokio::time::timeout(
        Duration::from_secs(50),
        cluster.reaches("another leader", |status| status.ready && status.epoch > before.epoch),
    );
    let after = handed_over.await.expect("without waiting for the lease").expect("a leader");
    assert_ne!(after.leader, before.leader);
    writers.advance(50).await.expect("writes go on");
    let (history, present) = writers.finish().await.expect("a reader");
    // No kill is noted: a clean end must lose nothing at all.
    let verdict = check(&history.writes(), &[], &present);
    assert!(verdict.lost.is_empty() && verdict.is_prefix(), "{verdict}");
}

fn name_of(pid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    text.trim().to_owned()
}
