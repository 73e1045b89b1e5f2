//! A file store in the manner of Prevayler: all data is in memory, every change is a record in a
//! journal before it is acknowledged, and from time to time a snapshot makes the journal short.
//!
//! The harness puts it under Mainstay as a service that lives by what file systems promise and
//! nothing else: appends and fsync, and the atomic replacement of one file by another. Beside it, in
//! a folder of its own, the same process makes the trouble of [`crate::workload::churn`].
//!
//! What it is asked, one line each: `append CLIENT NUMBER` is answered `ok` once it is durable;
//! `all` by every value and an empty line; `run` by a name that no other run of the process has.

mod client;
mod journal;
mod server;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;

pub use client::Client;
use journal::Journal;
pub use server::serve;

/// What to serve.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Where the files are
    #[arg(long)]
    pub folder: PathBuf,
    /// Where clients connect
    #[arg(long)]
    pub listen: SocketAddr,
}

/// One value: whose, and which.
type Value = (u32, u64);

/// Reads a store that does not run as its next start would, and demands that nothing is there twice.
///
/// # Errors
/// What is wrong with it.
pub fn check(folder: &Path) -> Result<()> {
    let values = Journal::read(folder)?;
    let mut seen = std::collections::HashSet::new();
    for value in &values {
        ensure!(seen.insert(value), "{value:?} is stored twice");
    }
    Ok(())
}
