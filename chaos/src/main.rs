//! `chaos`: real clusters, shown and measured.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use mainstay_chaos::demo::{self, Show};
use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Coordination, Service};

#[derive(Debug, Parser)]
#[command(version, about = "Runs real clusters of mainstay, and takes their leaders away")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kill leaders under writing clients and show what becomes of the writes
    Demo(Demo),
    /// Make faults under writing clients and judge what became of everything
    Live(mainstay_chaos::run::Options),
    /// The same, seed after seed and service after service, for hours
    Night(mainstay_chaos::run::night::Night),
    /// Put the reports of many runs into one table
    Table(mainstay_chaos::report::table::Options),
    /// Take away what killed runs left: processes, cgroups, mounts, loop devices, networks, folders
    Sweep,
    /// Run the file store that `live --service files` puts under Mainstay
    #[command(hide = true)]
    Store(mainstay_chaos::store::Options),
    /// Compare pgbench with and without Mainstay, in one run
    Pgbench(mainstay_chaos::pgbench::Options),
    /// Hand leadership over again and again, under clients that reconnect per transaction
    Switchover(mainstay_chaos::switchover::Options),
    /// Run the pure machines in a simulated hostile world, seed after seed
    Sim(mainstay_chaos::sim::command::Options),
    /// Break one rule of the protocol at a time and see the simulator find it
    Mutants(mainstay_chaos::sim::mutants::Options),
}

#[derive(Debug, Args)]
struct Demo {
    /// postgres or redis
    #[arg(long, default_value = "postgres")]
    service: Service,
    /// Agree through a real etcd of three members instead of the embedded coordinator
    #[arg(long)]
    etcd: bool,
    /// How often the leader dies
    #[arg(long, default_value_t = 1)]
    kills: usize,
    /// How many clients write
    #[arg(long, default_value_t = 4)]
    clients: u32,
    /// Run pgbench beside them (Postgres only)
    #[arg(long)]
    pgbench: bool,
    /// The lease's time to live
    #[arg(long, default_value = "5s")]
    ttl: String,
    /// sync or async
    #[arg(long, default_value = "sync", value_parser = ["sync", "async"])]
    durability: String,
    /// The mainstay binary
    #[arg(long, default_value = "target/release/mainstay")]
    binary: PathBuf,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "warn,mainstay_chaos::run=info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let result = match Cli::parse().command {
        // It makes a runtime of its own, inside its world.
        Command::Live(options) => mainstay_chaos::run::command(&options),
        Command::Store(options) => mainstay_chaos::store::serve(&options),
        Command::Night(options) => mainstay_chaos::run::night::night(&options),
        Command::Table(options) => mainstay_chaos::report::table::command(&options),
        Command::Sweep => {
            sweep();
            Ok(())
        }
        command => on_loopback(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn sweep() {
    let cleared = mainstay_chaos::world::clear_leftovers();
    for what in &cleared {
        println!("took away {what}");
    }
    if cleared.is_empty() {
        println!("nothing is left of killed runs");
    }
}

#[tokio::main]
async fn on_loopback(command: Command) -> Result<()> {
    // Whatever was started ends when this is dropped, so an interrupt only drops it.
    tokio::select! {
        result = run(command) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo(options) => {
            demo::ensure_shown(options.service)?;
            let mut plan = Plan::new(options.binary.canonicalize()?, options.service);
            if options.etcd {
                plan.coordination = Coordination::Etcd(3);
            }
            plan.ttl = options.ttl;
            plan.durability = options.durability;
            let (kills, clients) = (options.kills, options.clients);
            let pgbench = options.pgbench && options.service == Service::Postgres;
            demo::run(&Show { plan, kills, clients, restart: true, pgbench }).await?;
            Ok(())
        }
        Command::Live(_)
        | Command::Night(_)
        | Command::Store(_)
        | Command::Table(_)
        | Command::Sweep => {
            unreachable!("it is run elsewhere")
        }
        Command::Pgbench(options) => mainstay_chaos::pgbench::run(&options).await,
        Command::Switchover(options) => mainstay_chaos::switchover::run(&options).await,
        Command::Sim(options) => match mainstay_chaos::sim::command::command(&options)? {
            true => Ok(()),
            false => Err(anyhow::anyhow!("a rule was broken")),
        },
        Command::Mutants(options) => match mainstay_chaos::sim::mutants::command(&options)? {
            true => Ok(()),
            false => Err(anyhow::anyhow!("a mutation was not found")),
        },
    }
}
