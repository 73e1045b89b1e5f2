//! `chaos night`: run after run, seed after seed, over every setting, for as long as is wanted.
#![allow(clippy::print_stdout, reason = "a command's output")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::options::CoordinationName;
use super::{Options, run, span};
use crate::live::Service;
use crate::report::Report;
use crate::report::table::markdown;

/// What a night is to be.
#[derive(Clone, Debug, Args)]
pub struct Night {
    /// No run begins after so long
    #[arg(long, default_value = "8h", value_parser = span)]
    pub lasts: Duration,
    /// Every setting with this seed first, then with the next
    #[command(flatten)]
    pub first: Options,
}

/// Each run's service, coordination and number of replicas, in turn.
const SETTINGS: [(Service, CoordinationName, usize); 7] = [
    (Service::Postgres, CoordinationName::Etcd, 3),
    (Service::Redis, CoordinationName::Etcd, 3),
    (Service::MariaDb, CoordinationName::Etcd, 3),
    (Service::Store, CoordinationName::Etcd, 3),
    (Service::Postgres, CoordinationName::Etcd, 5),
    (Service::Redis, CoordinationName::Sqlite, 3),
    (Service::Postgres, CoordinationName::Sqlite, 3),
];

/// Runs until the night is over; every run's report is kept, and a table over all of them.
///
/// # Errors
/// Some run found something; the seeds are in the error.
pub fn night(options: &Night) -> Result<()> {
    let start = Instant::now();
    let mut reports = Vec::new();
    let mut failed = Vec::new();
    for seed in options.first.seed.. {
        for (number, (service, coordination, replicas)) in SETTINGS.into_iter().enumerate() {
            if start.elapsed() >= options.lasts {
                return end(&options.first.out, &reports, &failed);
            }
            let out = options.first.out.join(format!("{number}"));
            let one =
                Options { seed, service, coordination, replicas, out, ..options.first.clone() };
            println!("\n{}", one.replay());
            match run(&one) {
                Ok(report) => {
                    report.write()?;
                    println!("{}", report.verdict());
                    if !report.is_clean() {
                        failed.push(report.replay.clone());
                    }
                    reports.push(report);
                }
                Err(error) if error.to_string().starts_with("interrupted") => {
                    return end(&options.first.out, &reports, &failed);
                }
                Err(error) => {
                    println!("the run broke off: {error:#}");
                    failed.push(one.replay());
                }
            }
            std::fs::write(options.first.out.join("table.md"), markdown(&reports))
                .with_context(|| format!("write to {}", options.first.out.display()))?;
        }
    }
    Ok(())
}

fn end(out: &Path, reports: &[Report], failed: &[String]) -> Result<()> {
    println!("\n{}", markdown(reports));
    println!("{} runs; their reports are below {}", reports.len(), out.display());
    ensure!(failed.is_empty(), "{} runs found something:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}
