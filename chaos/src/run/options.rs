//! What a run is to be, as a command line says it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::span;
use crate::judge::Promise;
use crate::live::Service;
use crate::nemesis::Kind;

/// Through what the replicas agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CoordinationName {
    /// A real etcd of three members.
    Etcd,
    /// The embedded coordinator.
    Sqlite,
}

/// What an acknowledged fsync is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is on a write quorum.
    Sync,
    /// It is on the leader.
    Async,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Sync => "sync",
            Durability::Async => "async",
        })
    }
}

impl fmt::Display for CoordinationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CoordinationName::Etcd => "etcd",
            CoordinationName::Sqlite => "sqlite",
        })
    }
}

/// What to run.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Decides everything that is chance: the same seed makes the same plan
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long faults are made for
    #[arg(long, default_value = "120s", value_parser = span)]
    pub duration: Duration,
    /// Which faults, with commas between; all that are always made, if it is not said
    #[arg(long, value_delimiter = ',')]
    pub faults: Vec<Kind>,
    /// postgres, redis, mariadb or files
    #[arg(long, default_value = "postgres")]
    pub service: Service,
    /// How many replicas
    #[arg(long, default_value_t = 3)]
    pub replicas: usize,
    /// What an acknowledged write is worth
    #[arg(long, value_enum, default_value = "sync")]
    pub durability: Durability,
    /// In async: how far behind a follower may be and take over, and so how much a failover may lose
    #[arg(long, default_value = "10s", value_parser = span)]
    pub max_lag: Duration,
    /// Through what the replicas agree
    #[arg(long, value_enum, default_value = "etcd")]
    pub coordination: CoordinationName,
    /// The lease's time to live
    #[arg(long, default_value = "5s")]
    pub ttl: String,
    /// Quiet time between faults; three ttl, if it is not said
    #[arg(long, value_parser = span)]
    pub calm: Option<Duration>,
    /// What a busy machine may add to how long writes stand still by a fault
    #[arg(long, default_value = "10s", value_parser = span)]
    pub patience: Duration,
    /// How many clients write
    #[arg(long, default_value_t = 4)]
    pub clients: u32,
    /// The mainstay binary
    #[arg(long, default_value = "target/debug/mainstay")]
    pub binary: PathBuf,
    /// Where the report and the logs go
    #[arg(long, default_value = "target/chaos")]
    pub out: PathBuf,
}

impl Default for Options {
    fn default() -> Options {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            options: Options,
        }
        <Alone as clap::Parser>::parse_from(["chaos"]).options
    }
}

impl Options {
    /// The kinds of faults to make.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        let all: Vec<_> = Kind::all().filter(|kind| !kind.is_asked_for()).collect();
        let wanted = if self.faults.is_empty() { &all } else { &self.faults };
        let has_etcd = self.coordination == CoordinationName::Etcd;
        wanted.iter().copied().filter(|kind| has_etcd || !kind.needs_etcd()).collect()
    }

    /// Quiet time between faults.
    #[must_use]
    pub fn calm(&self) -> Duration {
        self.calm.unwrap_or(3 * self.lease())
    }

    /// The lease's time to live.
    #[must_use]
    pub fn lease(&self) -> Duration {
        span(&self.ttl).unwrap_or(Duration::from_secs(5))
    }

    /// What is promised of acknowledged writes.
    #[must_use]
    pub fn promise(&self) -> Promise {
        match self.durability {
            Durability::Sync => Promise::Sync,
            Durability::Async => Promise::Async,
        }
    }

    /// The command that does the same again.
    #[must_use]
    pub fn replay(&self) -> String {
        let mut text = format!(
            "cargo run -p mainstay-chaos -- live --seed {} --duration {}s --service {} \
             --replicas {} --durability {} --coordination {} --ttl {} --clients {}",
            self.seed,
            self.duration.as_secs(),
            self.service,
            self.replicas,
            self.durability,
            self.coordination,
            self.ttl,
            self.clients
        );
        if !self.faults.is_empty() {
            let names: Vec<_> = self.faults.iter().map(|kind| kind.name()).collect();
            text.push_str(&format!(" --faults {}", names.join(",")));
        }
        if let Some(calm) = self.calm {
            text.push_str(&format!(" --calm {}ms", calm.as_millis()));
        }
        text.push_str(&format!(" --patience {}ms", self.patience.as_millis()));
        text.push_str(&format!(" --max-lag {}ms", self.max_lag.as_millis()));
        text
    }
}
