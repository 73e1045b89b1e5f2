//! The list-append transactions on a Postgres of one's own, without Mainstay or faults, judged as in a
//! run: what is found there too is Postgres' or the judge's.
//!
//! `plain_appends 127.0.0.1:5432 SECONDS`; the user and database are `postgres`, without a password.
#![allow(clippy::print_stdout, reason = "a command's output")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use mainstay_chaos::judge::{Promise, appends};
use mainstay_chaos::workload::History;
use mainstay_chaos::workload::appends::Appenders;

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let address: SocketAddr = words.next().context("which address?")?.parse()?;
    let seconds: u64 = words.next().context("for how many seconds?")?.parse()?;
    let history = History::default();
    let appenders = Appenders::start(address, 8, 1, &history).await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let lists = appenders.finish().await?;
    let finding = appends::check(&history.transactions(), &lists, Promise::Sync);
    println!("{}: {}", finding.check, finding.looked_at);
    finding.violations.iter().for_each(|violation| println!("  {violation}"));
    Ok(())
}
