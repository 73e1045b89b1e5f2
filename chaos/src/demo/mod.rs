//! The demonstration: a cluster, writers, the leader's death, and what became of every write.

pub mod checker;
mod screen;

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::live::cluster::Plan;
use crate::live::{Cluster, Coordination, Service};
use crate::measure::{Failover, Step, fail_over, median_and_max};
use crate::pgbench;
use crate::workload::{Verdict, Writers, check};
use screen::Screen;

/// What to show.
#[derive(Clone, Debug)]
pub struct Show {
    /// The cluster.
    pub plan: Plan,
    /// How often the leader dies.
    pub kills: usize,
    /// How many clients write.
    pub clients: u32,
    /// Whether a killed node is started again before the next kill and at the end.
    pub restart: bool,
    /// Whether pgbench runs beside the writers, through every kill (Postgres only).
    pub pgbench: bool,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Each failover.
    pub failovers: Vec<Failover>,
    /// What became of the writes.
    pub verdict: Verdict,
}

/// Runs the whole show on standard output.
///
/// # Errors
/// The service did not come back, or what is there is not a prefix of what was written.
pub async fn run(show: &Show) -> Result<Seen> {
    let screen = Screen::new();
    let service = show.plan.service;
    screen.heading(&format!(
        "{} replicas of a real {service}, agreeing through {}",
        show.plan.replicas,
        match show.plan.coordination {
            Coordination::Sqlite => "the embedded coordinator".to_owned(),
            Coordination::Etcd(members) => format!("an etcd of {members}"),
        }
    ));
    let mut cluster = Cluster::start(&show.plan).await?;
    let status = cluster.quiet().await?;
    screen.say(&format!("clients connect to 127.0.0.1:{} (the ambassador), always", cluster.port));
    screen.status(&status);

    screen.heading(&format!("{} clients write, each waiting for every answer", show.clients));
    let writers = Writers::start(service, cluster.port, show.clients).await?;
    let mut load = None;
    if show.pgbench {
        pgbench::initialise(cluster.port, 1).await?;
        load = Some(tokio::spawn(pgbench::keep_running(cluster.port)));
        screen.say("pgbench runs beside them");
    }
    let mut failovers = Vec::new();
    for round in 1..=show.kills {
        writers.advance(300).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        screen.heading(&format!("kill {round} of {}", show.kills));
        let acknowledged = writers.history.acknowledged();
        let failover = fail_over(&mut cluster, &writers.history, |step| match step {
            Step::Before(status) => {
                screen.status(status);
                screen.say(&format!("{acknowledged} writes acknowledged so far"));
            }
            Step::Killed(node) => {
                screen.loud(&format!("SIGKILL to {node}: its daemon, {service} and all else"));
            }
            Step::After(status, failover) => {
                screen.say(&format!("{} took over: epoch {}", failover.to, failover.epoch));
                screen.good(&format!("first write after the kill: {}", seconds(failover.pause)));
                screen.status(status);
            }
        })
        .await?;
        if show.restart {
            cluster.node(&failover.from)?.start()?;
            cluster.whole().await?;
            screen.say(&format!("{} is back, as a follower", failover.from));
        }
        failovers.push(failover);
    }

    screen.heading("What became of the writes");
    if let Some(load) = load {
        load.abort();
        let _cancelled = load.await;
    }
    writers.advance(100).await?;
    let (history, present) = writers.finish().await?;
    let verdict = check(&history.writes(), &history.kills(), &present);
    screen.say(&verdict.to_string());
    checker::run(service, &mut cluster).await.context("the service's own checker")?;
    screen.say(checker::name(service));
    let pauses: Vec<_> = failovers.iter().map(|failover| failover.pause).collect();
    if let Some((median, max)) = median_and_max(&pauses) {
        let text = format!("failover: median {}, max {}", seconds(median), seconds(max));
        screen.say(&text);
    }
    ensure!(verdict.is_prefix(), "what is there is no prefix of what was written: {verdict}");
    screen.good("the service came back, and what it holds is a prefix of what was written");
    Ok(Seen { failovers, verdict })
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// The service must be one that the show has clients for.
///
/// # Errors
/// It has none.
pub fn ensure_shown(service: Service) -> Result<()> {
    let is_shown = matches!(service, Service::Postgres | Service::Redis);
    ensure!(is_shown, "the demonstration shows postgres or redis");
    Ok(())
}
