//! What each service says of its own data.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::live::service::postgres_bin;
use crate::live::{Cluster, PATIENCE, Service, until};
use crate::workload::client::connect_postgres;

/// What its being sound is called in a report.
#[must_use]
pub fn name(service: Service) -> &'static str {
    match service {
        Service::Postgres => "pg_amcheck: every heap and index is sound",
        Service::Redis => "redis-check-aof: the append-only file is sound",
        Service::MariaDb => "mariadb-check: every table is sound",
        Service::Store => "the store: snapshot and journal are sound",
        Service::Files => "no checker",
    }
}

/// Runs the service's own checker on the present leader.
///
/// # Errors
/// What it found.
pub async fn run(service: Service, cluster: &mut Cluster) -> Result<()> {
    match service {
        Service::Postgres => check_postgres(cluster).await,
        Service::Redis => check_redis(cluster).await,
        Service::MariaDb => check_mariadb(cluster).await,
        Service::Store => check_store(cluster).await,
        Service::Files => Ok(()),
    }
}

/// Ends the sessions that clients have left behind. A server process that waits for a lock does not
/// see that its client is gone; and where the clock was set back meanwhile, Postgres' timer for
/// deadlocks may not ring for days, so that a checker would wait for their locks as long.
///
/// # Errors
/// There is no leader to ask.
pub async fn end_sessions(service: Service, cluster: &mut Cluster) -> Result<()> {
    if service != Service::Postgres {
        return Ok(());
    }
    let leader = cluster.leader().await?;
    let client = connect_postgres((leader.address(), leader.service_port).into()).await?;
    let others = "select pg_terminate_backend(pid) from pg_stat_activity \
         where backend_type = 'client backend' and pid <> pg_backend_pid()";
    Ok(client.batch_execute(others).await?)
}

/// `pg_amcheck` over every table and index of the served database, heaps against their indexes.
///
/// # Errors
/// What it found.
pub async fn check_postgres(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    let (host, port) = (leader.address().to_string(), leader.service_port.to_string());
    let mut last = String::new();
    let sound = until("pg_amcheck", PATIENCE, Duration::from_millis(500), async || {
        let output = tokio::process::Command::new(postgres_bin().join("pg_amcheck"))
            .args(["--host", &host, "--username=postgres", "--install-missing"])
            .args(["--heapallindexed", "--parent-check", "--all", "--port", &port])
            .output()
            .await
            .ok()?;
        last = String::from_utf8_lossy(&output.stdout).into_owned();
        last.push_str(&String::from_utf8_lossy(&output.stderr));
        // Exit 1: it could not connect or start. Exit 2: it found damage.
        match output.status.code() {
            Some(1) => None,
            code => Some(code == Some(0)),
        }
    })
    .await;
    let sound = sound.with_context(|| last.clone())?;
    ensure!(sound, "pg_amcheck: {last}");
    Ok(())
}

/// `mariadb-check` over every table of the served databases, in the most thorough way that it has.
///
/// # Errors
/// What it found.
pub async fn check_mariadb(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    let (host, port) = (leader.address().to_string(), leader.service_port.to_string());
    let mut last = String::new();
    let checked = until("mariadb-check", PATIENCE, Duration::from_millis(500), async || {
        let output = tokio::process::Command::new("mariadb-check")
            .args(["--no-defaults", "--host", &host, "--port", &port, "--user=root"])
            .args(["--check", "--extended", "--all-databases"])
            .output()
            .await
            .ok()?;
        last = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    })
    .await;
    let said = checked.with_context(|| last.clone())?;
    // One line for each table; what it found stands in lines of its own, and does not fail it.
    let bad: Vec<_> = said.lines().filter(|line| !line.trim_end().ends_with("OK")).collect();
    ensure!(bad.is_empty() && said.contains("chaos.writes"), "mariadb-check: {said}");
    Ok(())
}

/// The store's own reading of the leader's files, with the service stopped.
///
/// # Errors
/// What it found.
pub async fn check_store(cluster: &mut Cluster) -> Result<()> {
    let folder = cluster.folder().join("checked");
    let leader = cluster.leader().await?;
    leader.stop().await?;
    leader.export(&folder)?;
    crate::store::check(&folder)
}

/// `redis-check-aof` over the leader's files, with the service stopped.
///
/// # Errors
/// What it found.
pub async fn check_redis(cluster: &mut Cluster) -> Result<()> {
    let folder = cluster.folder().join("checked");
    let leader = cluster.leader().await?;
    leader.stop().await?;
    leader.export(&folder)?;
    let manifest = folder.join("appendonlydir/appendonly.aof.manifest");
    let output = tokio::process::Command::new("redis-check-aof").arg(&manifest).output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "redis-check-aof {}: {said}", manifest.display());
    Ok(())
}
