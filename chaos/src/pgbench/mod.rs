//! pgbench (TPC-B) on plain Postgres, on Postgres with its own synchronous replication, and on
//! Mainstay in sync and in async durability: one run, one machine, tables of medians.
//!
//! All of them stand ready throughout, and take turns; each round begins with another one. Load
//! and databases share the machine's cores: compare columns, not machines.
#![allow(clippy::print_stdout, reason = "a command's output")]

mod cpu;
mod postgres;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::live::cluster::Plan;
use crate::live::service::postgres_bin;
use crate::live::{Cluster, Service, Status};
use cpu::{Root, Spent};
use postgres::{Postgres, Replicated};

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// pgbench's scale: 100,000 accounts each
    #[arg(long, default_value_t = 20)]
    pub scale: u32,
    /// Numbers of clients, one measurement each
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    pub clients: Vec<u32>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 15)]
    pub seconds: u32,
    /// How often each is measured; the tables show medians
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// The mainstay binary
    #[arg(long, default_value = "target/release/mainstay")]
    pub binary: PathBuf,
}

/// What is measured.
struct Subject {
    name: &'static str,
    port: u16,
    roots: Vec<Root>,
}

/// One measurement.
#[derive(Clone, Debug)]
struct Sample {
    tps: f64,
    /// Mean time of a transaction, milliseconds.
    latency_ms: f64,
    /// Processor time per transaction, microseconds, by part.
    cpu_us: Vec<(&'static str, f64)>,
}

impl Sample {
    fn cpu_total(&self) -> f64 {
        self.cpu_us.iter().map(|(_, us)| us).sum()
    }
}

/// Runs everything and prints the tables.
///
/// # Errors
/// A program is missing or failed.
pub async fn run(options: &Options) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("mainstay-pgbench-").tempdir()?;
    let plain = Postgres::start(folder.path(), "plain", &[]).await?;
    let replicated = Replicated::start(folder.path()).await?;
    let mut clusters = Vec::new();
    for durability in ["sync", "async"] {
        let mut plan = Plan::new(options.binary.canonicalize()?, Service::Postgres);
        plan.durability = durability.to_owned();
        clusters.push(Cluster::start(&plan).await?);
    }
    let [sync, r#async] = &mut clusters[..] else { unreachable!("two were started") };
    let subjects = [
        subject("plain", plain.port, vec![plain.root("postgres")]),
        subject("Postgres ANY 1", replicated.primary.port, replicated.roots()),
        subject("sync", sync.leader().await?.service_port, roots(sync).await?),
        subject("sync, ambassador", sync.port, roots(sync).await?),
        subject("async", r#async.leader().await?.service_port, roots(r#async).await?),
        subject("async, ambassador", r#async.port, roots(r#async).await?),
    ];
    for port in [plain.port, replicated.primary.port, sync.port, r#async.port] {
        initialise(port, options.scale).await?;
    }
    for cluster in [&*sync, &*r#async] {
        cluster.quiet().await?;
    }
    let mut lag = Lag::default();
    println!(
        "| clients | | tps | of plain | of Postgres ANY 1 | mean latency, ms | CPU per transaction, µs | of it |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---|");
    for clients in &options.clients {
        let mut samples = vec![Vec::new(); subjects.len()];
        for round in 0..options.rounds {
            for turn in 0..subjects.len() {
                let which = (turn + round) % subjects.len();
                let measured = measure(&subjects[which], *clients, options.seconds);
                samples[which].push(lag.watch(r#async, measured).await?);
            }
        }
        let medians: Vec<Sample> = samples.into_iter().map(median).collect();
        for (subject, median) in subjects.iter().zip(&medians) {
            let parts = median.cpu_us.iter().map(|(part, us)| format!("{part} {us:.0}"));
            println!(
                "| {clients} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {} |",
                subject.name,
                median.tps,
                median.tps / medians[0].tps,
                median.tps / medians[1].tps,
                median.latency_ms,
                median.cpu_total(),
                parts.collect::<Vec<_>>().join(", "),
            );
        }
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "\nscale {}, {} rounds of {} s each; worst lag of an async follower seen: {} ops, {} bytes, \
         {} ms; load at the end {}",
        options.scale,
        options.rounds,
        options.seconds,
        lag.ops,
        lag.bytes,
        lag.ms,
        load.split(' ').next().unwrap_or("unknown"),
    );
    Ok(())
}

fn subject(name: &'static str, port: u16, roots: Vec<Root>) -> Subject {
    Subject { name, port, roots }
}

/// All daemons of a cluster, as what they are now.
async fn roots(cluster: &mut Cluster) -> Result<Vec<Root>> {
    let leader = cluster.leader().await?.node.clone();
    let part = |name: &str| match name {
        "ambassador" => "ambassador",
        name if name == leader => "leader",
        _ => "followers",
    };
    let root = |(name, pid): (&str, i32)| Root { pid, part: part(name), all_as_one: false };
    Ok(cluster.pids().into_iter().map(root).collect())
}

/// The one in the middle by its speed.
fn median(mut samples: Vec<Sample>) -> Sample {
    samples.sort_by(|a, b| a.tps.total_cmp(&b.tps));
    samples.swap_remove(samples.len() / 2)
}

#[derive(Debug, Default)]
struct Lag {
    ops: u64,
    bytes: u64,
    ms: u64,
}

impl Lag {
    /// Looks at the lag twice a second for as long as `measured` takes.
    async fn watch<T>(&mut self, cluster: &Cluster, measured: impl Future<Output = T>) -> T {
        tokio::pin!(measured);
        loop {
            tokio::select! {
                result = &mut measured => return result,
                () = tokio::time::sleep(Duration::from_millis(500)) =>
                    if let Ok(status) = cluster.status().await { self.see(&status); },
            }
        }
    }

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

async fn measure(subject: &Subject, clients: u32, seconds: u32) -> Result<Sample> {
    let before = cpu::spent(&subject.roots);
    let (clients, seconds) = (clients.to_string(), seconds.to_string());
    let options = ["--client", &clients, "--time", &seconds, "--no-vacuum"];
    let output = pgbench(subject.port, &options).await?;
    // Ended backends are counted with the one that waits for them; it has to have done so.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let spent = cpu::since(&before, &cpu::spent(&subject.roots));
    let number = |start: &str, word: usize| -> Result<f64> {
        let line = output.lines().find(|line| line.starts_with(start));
        let line = line.with_context(|| format!("pgbench said no `{start}`:\n{output}"))?;
        Ok(line.split_whitespace().nth(word).context("a number")?.parse()?)
    };
    let done = number("number of transactions actually processed:", 5)?;
    Ok(Sample {
        tps: number("tps = ", 2)?,
        latency_ms: number("latency average = ", 3)?,
        cpu_us: per_transaction(&spent, done),
    })
}

fn per_transaction(spent: &Spent, transactions: f64) -> Vec<(&'static str, f64)> {
    spent.iter().map(|(part, time)| (*part, time.as_secs_f64() * 1e6 / transactions)).collect()
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
