//! Planned switchovers of a real Postgres under clients that reconnect per transaction: how long
//! they wait, and how much of that is the service's own stop and start.
#![allow(clippy::print_stdout, reason = "a command's output")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::live::cluster::Plan;
use crate::live::service::postgres_bin;
use crate::live::{Cluster, Coordination, Service};
use crate::measure::median_and_max;
use crate::workload::Client;

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How many switchovers
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,
    /// pgbench's clients, each with a connection per transaction
    #[arg(long, default_value_t = 4)]
    pub clients: u32,
    /// Agree through a real etcd of three members instead of the embedded coordinator
    #[arg(long)]
    pub etcd: bool,
    /// The mainstay binary
    #[arg(long, default_value = "target/release/mainstay")]
    pub binary: PathBuf,
}

/// Runs everything and prints the rounds and their medians.
///
/// # Errors
/// A program is missing, a switchover failed, or a client saw an error.
pub async fn run(options: &Options) -> Result<()> {
    let mut plan = Plan::new(options.binary.canonicalize()?, Service::Postgres);
    if options.etcd {
        plan.coordination = Coordination::Etcd(3);
    }
    let mut cluster = Cluster::start(&plan).await?;
    cluster.quiet().await?;
    crate::pgbench::initialise(cluster.port, 1).await?;
    let complaints = cluster.folder().join("pgbench.err");
    let _pgbench = tokio::process::Command::new(postgres_bin().join("pgbench"))
        .args(["--host=127.0.0.1", "--username=postgres", "--port", &cluster.port.to_string()])
        // A thread for each: one that waits to be connected must not keep another from finishing.
        .args(["--client", &options.clients.to_string(), "--jobs", &options.clients.to_string()])
        .args(["--connect", "--no-vacuum", "--time=3600"])
        .arg("postgres")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&complaints)?)
        .kill_on_drop(true)
        .spawn()?;
    let probe = Probe::start(cluster.port);
    let (mut pauses, mut beyond) = (Vec::new(), Vec::new());
    println!("| switchover | a new client waited | service's stop | its start | the rest |");
    println!("|---|---|---|---|---|");
    for _ in 0..options.rounds {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let from = cluster.leader().await?.node.clone();
        probe.take();
        let ask = || cluster.replicas[0].ask(&["switchover"]);
        tokio::task::block_in_place(ask).with_context(|| cluster.last_words())?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pause = probe.take();
        let to = cluster.leader().await?.node.clone();
        let stop = between(&cluster, &from, "stopping the service", "the service stopped")?;
        let start =
            between(&cluster, &to, "starting the service", "mainstay::replica::service: ready")?;
        let rest = pause.saturating_sub(stop + start);
        println!("| {from} to {to} | {pause:.0?} | {stop:.0?} | {start:.0?} | {rest:.0?} |");
        pauses.push(pause);
        beyond.push(rest);
        // One of its clients that fails ends; the others go on.
        let said = std::fs::read_to_string(&complaints)?;
        ensure!(!said.contains("error"), "pgbench: {said}\n{}", cluster.last_words());
    }
    let (median, max) = median_and_max(&pauses).context("no rounds")?;
    let (beyond, beyond_max) = median_and_max(&beyond).context("no rounds")?;
    println!("\nwaited: median {median:.0?}, max {max:.0?}");
    println!("beyond the service's own stop and start: median {beyond:.0?}, max {beyond_max:.0?}");
    println!("errors that pgbench or the probe saw: 0");
    Ok(())
}

/// A client that connects anew all the time, and remembers its longest wait.
struct Probe(Arc<Mutex<Result<Duration>>>);

impl Probe {
    fn start(port: u16) -> Probe {
        let longest = Arc::new(Mutex::new(Ok(Duration::ZERO)));
        let told = Arc::downgrade(&longest);
        tokio::spawn(async move {
            while let Some(longest) = told.upgrade() {
                let began = Instant::now();
                let failed = Client::connect(Service::Postgres, port).await.err();
                remember(&longest, began.elapsed(), failed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Probe(longest)
    }

    /// The longest wait since the last call.
    fn take(&self) -> Duration {
        let mut longest = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
        match std::mem::replace(&mut *longest, Ok(Duration::ZERO)) {
            Ok(longest) => longest,
            Err(error) => panic!("a new client failed: {error:#}"),
        }
    }
}

fn remember(longest: &Mutex<Result<Duration>>, took: Duration, failed: Option<anyhow::Error>) {
    let mut longest = longest.lock().unwrap_or_else(|broken| broken.into_inner());
    match (failed, &mut *longest) {
        (Some(error), _) => *longest = Err(error),
        (None, Ok(longest)) => *longest = (*longest).max(took),
        (None, Err(_)) => {}
    }
}

/// From the last line that says `from` to the last that says `to`, in a node's log.
fn between(cluster: &Cluster, node: &str, from: &str, to: &str) -> Result<Duration> {
    let replica = cluster.replicas.iter().find(|replica| replica.node == node);
    let log = replica.context("a node has a log")?.log();
    let (began, ended) = (said_at(&log, from)?, said_at(&log, to)?);
    // Over midnight.
    let ended = if ended < began { ended + 86_400.0 } else { ended };
    Ok(Duration::from_secs_f64(ended - began))
}

/// The second of the day at which a log says so last.
fn said_at(log: &Path, words: &str) -> Result<f64> {
    let text = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
    let line = text.lines().rev().find(|line| line.contains(words));
    let line = line.with_context(|| format!("{} never says {words:?}", log.display()))?;
    let time = line.split_once('T').and_then(|(_, rest)| rest.split_once('Z'));
    let (time, _) = time.with_context(|| format!("no time in {line}"))?;
    let parts: Vec<f64> = time.split(':').filter_map(|part| part.parse().ok()).collect();
    ensure!(parts.len() == 3, "no time in {line}");
    Ok(parts[0] * 3600.0 + parts[1] * 60.0 + parts[2])
}
