//! Planned hand-overs of real services: nobody sees an error, nothing is lost, and what cannot be
//! done is refused or undone.

mod support;

use std::process::Stdio;
use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::service::postgres_bin;
use mainstay_chaos::live::{Cluster, PATIENCE, Service, until};
use rustix::process::Signal;
use support::{binary, can_run, led_by_a};

fn ask(cluster: &mut Cluster, words: &[&str]) -> anyhow::Result<String> {
    tokio::task::block_in_place(|| cluster.node("a")?.ask(words))
}

async fn psql(port: u16, query: &str) -> Option<String> {
    let output = tokio::process::Command::new(postgres_bin().join("psql"))
        .args(["--host=127.0.0.1", "--username=postgres", "--port", &port.to_string()])
        .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", query, "postgres"])
        .output()
        .await
        .expect("psql runs");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_reconnect_see_no_error_and_lose_nothing() {
    if !can_run("clients_that_reconnect_see_no_error_and_lose_nothing") {
        return;
    }
    // In sync two ballots would do, and the third voter must not win by being quicker.
    let mut plan = Plan::new(binary(), Service::Postgres);
    plan.durability = "sync".to_owned();
    let mut cluster = led_by_a(&plan, |_| {}).await;
    cluster.start_ambassador().expect("an ambassador");
    let port = cluster.port;
    until("a connection", PATIENCE, Duration::from_millis(50), async || {
        psql(port, "select 1").await
    })
    .await
    .expect("a connection");
    psql(port, "create table kept (n int)").await.expect("a table");
    let script = cluster.folder().join("insert.sql");
    std::fs::write(&script, "insert into kept values (1);\n").expect("a script");
    let clients = tokio::process::Command::new(postgres_bin().join("pgbench"))
        .args(["--host=127.0.0.1", "--username=postgres", "--port", &port.to_string()])
        // A thread for each: one that waits to be connected must not keep another from finishing.
        .args(["--connect", "--client=2", "--jobs=2", "--time=12", "--no-vacuum", "--file"])
        .arg(&script)
        .arg("postgres")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("pgbench runs");
    // They have begun.
    until("writes", PATIENCE, Duration::from_millis(50), async || {
        psql(port, "select count(*) from kept").await.filter(|count| count != "0")
    })
    .await
    .expect("writes");

    let said = ask(&mut cluster, &["switchover", "--to", "b"]);
    let said = said.unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    assert!(said.contains("b leads in epoch 2"), "{said}");
    let ended = clients.wait_with_output().await.expect("pgbench ends");
    let (out, err) =
        (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && !err.contains("error"), "{out}\n{err}\n{said}");
    let done = out.lines().find_map(|line| {
        line.strip_prefix("number of transactions actually processed: ").map(str::to_owned)
    });
    assert_eq!(psql(port, "select count(*) from kept").await, done, "{out}\n{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_before_and_undone_after() {
    if !can_run("what_cannot_be_done_is_refused_before_and_undone_after") {
        return;
    }
    let mut plan = Plan::new(binary(), Service::Redis);
    // A target that hangs is to be noticed by its silence in the log, not by its lease.
    plan.ttl = "30s".to_owned();
    let mut cluster = led_by_a(&plan, |_| {}).await;
    for (target, reason) in [("a", "a leads already"), ("nobody", "is not registered")] {
        let refused = ask(&mut cluster, &["switchover", "--to", target]);
        let refused = format!("{:#}", refused.expect_err("refused"));
        assert!(refused.contains(reason), "{refused}");
    }
    cluster.node("b").expect("b").process().expect("it runs").signal(Signal::STOP);
    let failed = ask(&mut cluster, &["switchover", "--to", "b"]);
    let failed = format!("{:#}", failed.expect_err("undone"));
    assert!(failed.contains("did not take everything"), "{failed}");
    let again = cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!((again.leader.as_deref(), again.epoch), (Some("a"), 1));
    cluster.node("b").expect("b").process().expect("it runs").signal(Signal::CONT);
    cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));

    // For later: nothing happens until then, and it can be withdrawn.
    let past = ask(&mut cluster, &["switchover", "--at", "2001-01-01T00:00:00Z"]);
    assert!(format!("{:#}", past.expect_err("refused")).contains("has passed"));
    let said = ask(&mut cluster, &["switchover", "--to", "b", "--at", "2h"]).expect("scheduled");
    assert!(said.contains("leadership of epoch 1 goes to b at "), "{said}");
    let status = ask(&mut cluster, &["status"]).expect("a status");
    assert!(status.contains("warning: a switchover to b is scheduled for 20"), "{status}");
    ask(&mut cluster, &["switchover", "--cancel"]).expect("withdrawn");
    let nothing = ask(&mut cluster, &["switchover", "--cancel"]).expect_err("nothing is left");
    assert!(format!("{nothing:#}").contains("no switchover is asked for"), "{nothing:#}");
    ask(&mut cluster, &["switchover", "--at", "1s"]).expect("scheduled");
    let led = cluster.reaches("another to lead", |status| status.ready && status.epoch == 2).await;
    let led = led.unwrap_or_else(|error| panic!("{error:#}"));
    // Nobody was named, and a has as much as any: it must not be elected again.
    let second = led.leader.expect("a leader");
    assert_ne!(second, "a");
    ask(&mut cluster, &["switchover", "--cancel"]).expect_err("it is done");
    cluster.quiet().await.unwrap_or_else(|error| panic!("{error:#}"));
    ask(&mut cluster, &["switchover"]).unwrap_or_else(|error| panic!("{error:#}"));
    let led = cluster.serving().await.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(led.epoch == 3 && led.leader.as_ref() != Some(&second), "{led:?}");
}
