//! A leader that was stopped for longer than its lease: what it still holds must harm nobody.

mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::process::{is_alive, send, tree};
use mainstay_chaos::live::{Cluster, Coordination, PATIENCE, Service, until};
use mainstay_chaos::workload::Client;
use rustix::process::Signal;
use support::{assert_equal, binary, can_run, freeze, has, led_by_a};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

fn plan(service: Service) -> Plan {
    let mut plan = Plan::new(binary(), service);
    plan.replicas = 2;
    plan.ttl = "3s".to_owned();
    plan
}

/// A process that has opened `path` and writes to it when it is told to; it succeeds if the write
/// does. Not a thread of this process: to start another one closes its files' copies, and in the
/// mount of a stopped daemon that takes for ever.
async fn writer(path: &Path) -> Child {
    let script = format!("exec 3>{} && echo open && read go && echo late >&3", path.display());
    let mut child = Command::new("bash")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("bash runs");
    let mut said = [0; 5];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut said).await.expect("a word");
    assert_eq!(&said, b"open\n");
    child
}

/// The leader's fencer, among its daemon's children.
fn fencer_of(daemon: i32) -> i32 {
    let is_fencer = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"fencer")
    };
    tree(daemon).into_iter().find(is_fencer).expect("a daemon has a fencer")
}

async fn another_leads(cluster: &Cluster, before: u64) {
    let led = cluster.reaches("another leader", |status| status.ready && status.epoch > before);
    led.await.unwrap_or_else(|error| panic!("{error:#}"));
}

/// Both who would kill the service are stopped past the lease, so only the mount's gate is left
/// between a late write and its acknowledgement.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_answers_nothing_after_the_lease() {
    if !can_run("a_mount_answers_nothing_after_the_lease") {
        return;
    }
    let mut cluster = led_by_a(&plan(Service::Files), |_| ()).await;
    let before = cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}")).epoch;
    let mount = cluster.replicas[0].mount();
    let mut writers = Vec::new();
    for index in 0..8 {
        writers.push(writer(&mount.join(index.to_string())).await);
    }
    cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    let daemon = cluster.replicas[0].process().expect("it runs").pid();
    let fencer = fencer_of(daemon);
    freeze(fencer).await;
    freeze(daemon).await;
    // Each of these is on its way when the lease ends; not one may be told that it is done.
    for writer in &mut writers {
        let go = writer.stdin.as_mut().expect("a pipe");
        go.write_all(b"go\n").await.expect("it listens");
    }
    another_leads(&cluster, before).await;
    send(daemon, Signal::CONT);
    for writer in writers {
        let ended = tokio::time::timeout(PATIENCE, writer.wait_with_output()).await;
        let output = ended.expect("the mount is aborted").expect("it ended");
        assert!(!output.status.success(), "a write was acknowledged after the lease");
    }
    send(fencer, Signal::CONT);
    // The old leader may take part again, or have been killed by its fencer as it woke up.
    cluster.replicas[0].kill();
    cluster.replicas[0].start().expect("the daemon starts");
    assert_equal(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_the_middle_of_a_query_is_cut_when_its_leader_is_deposed() {
    if !can_run("a_client_in_the_middle_of_a_query_is_cut_when_its_leader_is_deposed") {
        return;
    }
    let mut cluster = led_by_a(&plan(Service::Redis), |_| ()).await;
    cluster.start_ambassador().expect("the ambassador starts");
    let step = Duration::from_millis(100);
    until("the ambassador to forward", PATIENCE, step, async || {
        Client::connect(Service::Redis, cluster.port).await.ok()
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
    let mut client = TcpStream::connect(("127.0.0.1", cluster.port)).await.expect("a client");
    let mut answer = [0; 7];
    client.write_all(b"PING\r\n").await.expect("a question");
    client.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"+PONG\r\n");
    client.write_all(b"BLPOP nothing 0\r\n").await.expect("a question without an end");

    // The whole machine stands still: its service neither answers nor hangs up.
    for pid in tree(cluster.replicas[0].process().expect("it runs").pid()) {
        send(pid, Signal::STOP);
    }
    let heard = tokio::time::timeout(PATIENCE, client.read(&mut answer)).await;
    let cut = heard.expect("the client is not left hanging").expect_err("no answer");
    assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset, "{cut}");
    let mut again = Client::connect(Service::Redis, cluster.port).await.expect("the new leader");
    again.write(1, 1).await.expect("a write");
}

/// It does not touch its mount, so nothing but a kill ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leaders_service_is_killed_by_its_daemon() {
    let name = "a_deposed_leaders_service_is_killed_by_its_daemon";
    if !can_run(name) || !has(name, "etcd") {
        return;
    }
    let mut plan = plan(Service::Files);
    plan.replicas = 1;
    plan.coordination = Coordination::Etcd(1);
    let mut cluster = led_by_a(&plan, |_| ()).await;
    let daemon = cluster.replicas[0].process().expect("it runs").pid();
    let is_service = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == b"sleep\0infinity\0"
    };
    let service = tree(daemon).into_iter().find(is_service).expect("the service runs");
    cluster.etcd.as_mut().expect("an etcd").kill_all();
    let step = Duration::from_millis(50);
    until("the service to end", PATIENCE, step, async || (!is_alive(service)).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
}
