//! pgbench on plain Postgres, on the leader of three replicas, and through the ambassador: one
//! run, one machine, one table.
#![allow(clippy::print_stdout, reason = "a command's output")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::live::cluster::Plan;
use crate::live::process::Process;
use crate::live::service::postgres_bin;
use crate::live::{Cluster, PATIENCE, Service, Status, ports, until};

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// pgbench's scale: 100,000 accounts each
    #[arg(long, default_value_t = 10)]
    pub scale: u32,
    /// Numbers of clients, one measurement each
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    pub clients: Vec<u32>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 15)]
    pub seconds: u32,
    /// How often each is measured; the table shows medians
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// The mainstay binary
    #[arg(long, default_value = "target/release/mainstay")]
    pub binary: PathBuf,
}

/// Runs everything and prints the table.
///
/// # Errors
/// A program is missing or failed.
pub async fn run(options: &Options) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("mainstay-pgbench-").tempdir()?;
    let plain = Plain::start(folder.path()).await?;
    initialise(plain.port, options.scale).await?;
    let plan = Plan::new(options.binary.canonicalize()?, Service::Postgres);
    let mut cluster = Cluster::start(&plan).await?;
    let direct = cluster.leader().await?.service_port;
    initialise(cluster.port, options.scale).await?;
    cluster.quiet().await?;

    println!("| clients | plain Postgres | three replicas, direct | through the ambassador |");
    println!("|---|---|---|---|");
    let mut lag = Lag::default();
    for clients in &options.clients {
        let targets = [plain.port, direct, cluster.port];
        let mut tps = [const { Vec::new() }; 3];
        for _ in 0..options.rounds {
            for (port, results) in targets.iter().zip(&mut tps) {
                let measured = measure(*port, *clients, options.seconds);
                tokio::pin!(measured);
                results.push(loop {
                    tokio::select! {
                        result = &mut measured => break result?,
                        () = tokio::time::sleep(Duration::from_millis(500)) =>
                            if let Ok(status) = cluster.status().await { lag.see(&status); },
                    }
                });
            }
        }
        let [plain, direct, through] = tps.map(median);
        println!(
            "| {clients} | {plain:.0} tps | {direct:.0} tps ({:.0} %) | {through:.0} tps ({:.0} %) |",
            100.0 * direct / plain,
            100.0 * through / plain
        );
    }
    println!("\nworst follower lag seen: {} ops, {} bytes, {} ms", lag.ops, lag.bytes, lag.ms);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[derive(Debug, Default)]
struct Lag {
    ops: u64,
    bytes: u64,
    ms: u64,
}

impl Lag {
    fn see(&mut self, status: &Status) {
        for lag in status.replicas.iter().filter_map(|replica| replica.lag) {
            self.ops = self.ops.max(lag.ops);
            self.bytes = self.bytes.max(lag.bytes);
            self.ms = self.ms.max(lag.ms);
        }
    }
}

/// Fills the tables.
///
/// # Errors
/// What pgbench said.
pub async fn initialise(port: u16, scale: u32) -> Result<()> {
    let scale = scale.to_string();
    pgbench(port, &["--initialize", "--quiet", "--scale", &scale]).await?;
    Ok(())
}

/// Runs pgbench with two clients for as long as this is polled, again whenever a failover ends it.
pub async fn keep_running(port: u16) {
    loop {
        if let Err(error) = pgbench(port, &["--client=2", "--time=600", "--no-vacuum"]).await {
            tracing::debug!(%error, "pgbench ended");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn measure(port: u16, clients: u32, seconds: u32) -> Result<f64> {
    let (clients, seconds) = (clients.to_string(), seconds.to_string());
    let output = pgbench(port, &["--client", &clients, "--time", &seconds, "--no-vacuum"]).await?;
    let line = output.lines().find(|line| line.starts_with("tps = ")).context("no tps line")?;
    Ok(line.split_whitespace().nth(2).context("no tps number")?.parse()?)
}

async fn pgbench(port: u16, arguments: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new(postgres_bin().join("pgbench"))
        .args(["--host=127.0.0.1", "--username=postgres", "--port", &port.to_string()])
        .args(arguments)
        .arg("postgres")
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Postgres on a plain directory of the same file system.
struct Plain {
    port: u16,
    _process: Process,
}

impl Plain {
    async fn start(folder: &Path) -> Result<Plain> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        let data = folder.join("data");
        std::fs::create_dir(&data)?;
        let bin = postgres_bin();
        as_postgres("chown", &["postgres", &data.display().to_string()], false)?;
        let initdb = bin.join("initdb").display().to_string();
        let data = data.display().to_string();
        let arguments = ["--auth=trust", "--username=postgres", "--data-checksums", "-D", &data];
        as_postgres(&initdb, &arguments, true)?;
        let port = ports::free()?;
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(bin.join("postgres")).args(["-D", &data, "-p", &port.to_string()]);
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        command.args(["-c", "max_connections=300"]);
        let process = Process::start("plain", &mut command, &folder.join("log"))?;
        let step = Duration::from_millis(100);
        until("plain Postgres", PATIENCE, step, async || {
            crate::workload::Client::connect(Service::Postgres, port).await.ok()
        })
        .await?;
        Ok(Plain { port, _process: process })
    }
}

fn as_postgres(program: &str, arguments: &[&str], switch: bool) -> Result<()> {
    let mut command = Command::new(if switch { "setpriv" } else { program });
    if switch {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", program]);
    }
    let output = command.args(arguments).current_dir("/").output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
