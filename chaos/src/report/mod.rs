//! What a run came to, for machines (JSON) and for people.

mod html;
mod parts;
mod picture;
pub mod summary;
pub mod table;
mod timeline;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::judge::Finding;
use crate::live::Cluster;
use crate::nemesis::Kind;
use crate::observe::Reign;
use crate::run::Options;
pub use parts::Parts;
pub use timeline::Point;

/// All that is known of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The command that plays it again.
    pub replay: String,
    /// What ran, in a line.
    pub setting: String,
    /// How long it went, from the first client to the last.
    pub lasted: Duration,
    /// From the last fault's undoing to everyone in their role again.
    pub recovery: Option<Duration>,
    /// What was done, in order.
    pub faults: Vec<Fault>,
    /// Who led, in order.
    pub reigns: Vec<Reign>,
    /// Each takeover after a fault, in its parts.
    pub failovers: Vec<Parts>,
    /// Second by second.
    pub throughput: Vec<Point>,
    /// The runs of the service's process that clients met, in order.
    pub servers: Vec<String>,
    /// What was checked.
    pub findings: Vec<Finding>,
    /// Where this goes.
    #[serde(skip)]
    folder: PathBuf,
}

/// One fault as it was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// Its kind.
    pub kind: Kind,
    /// To whom.
    pub on: String,
    /// When its doing began.
    pub at: Duration,
    /// When it was done.
    pub done: Duration,
    /// When it was undone.
    pub until: Option<Duration>,
    /// Why it was not done, if it was not.
    pub skipped: Option<String>,
    /// Whether how long writes stood still is its own doing, and all of it.
    pub alone: bool,
    /// The longest time without an acknowledged write, from its begin until things settled.
    pub pause: Option<Duration>,
    /// How long that may be, a busy machine's share included.
    #[serde(default)]
    pub bound: Option<Duration>,
    /// From its having been done to the next acknowledged write.
    pub next: Option<Duration>,
}

impl Fault {
    /// When it was over: undone, or done where there is nothing to undo.
    #[must_use]
    pub fn over(&self) -> Duration {
        self.until.unwrap_or(self.done)
    }

    /// A fault whose consequences are not known yet.
    #[must_use]
    pub fn new(
        kind: Kind,
        on: String,
        at: Duration,
        done: Duration,
        until: Option<Duration>,
        skipped: Option<String>,
    ) -> Fault {
        Fault {
            kind,
            on,
            at,
            done,
            until,
            skipped,
            alone: true,
            pause: None,
            bound: None,
            next: None,
        }
    }
}

impl Report {
    /// An empty one.
    #[must_use]
    pub fn new(options: &Options) -> Report {
        let name = format!("{}-{}-{}", options.service, options.durability, options.seed);
        Report {
            seed: options.seed,
            replay: options.replay(),
            setting: format!(
                "{} replicas of {}, {}, {}, ttl {}",
                options.replicas,
                options.service,
                options.durability,
                options.coordination,
                options.ttl
            ),
            lasted: Duration::ZERO,
            recovery: None,
            faults: Vec::new(),
            reigns: Vec::new(),
            failovers: Vec::new(),
            throughput: Vec::new(),
            servers: Vec::new(),
            findings: Vec::new(),
            folder: options.out.join(name),
        }
    }

    /// Whether nothing was found that must not be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(Finding::is_clean)
    }

    /// How many faults were made, and what came of it, in a line.
    #[must_use]
    pub fn verdict(&self) -> String {
        let made = self.faults.iter().filter(|fault| fault.skipped.is_none()).count();
        let failed = self.findings.iter().filter(|finding| !finding.is_clean());
        let failed: Vec<_> = failed.map(|finding| finding.check.as_str()).collect();
        if failed.is_empty() {
            return format!("{made} faults, {} epochs, all checks passed", self.reigns.len());
        }
        format!("{made} faults, {} epochs, FAILED: {}", self.reigns.len(), failed.join("; "))
    }

    /// Notes what kept the run from its end.
    pub fn failed(&mut self, why: &str) {
        self.findings.push(Finding {
            check: "all is well again once nothing is broken".to_owned(),
            looked_at: String::new(),
            violations: vec![why.to_owned()],
        });
    }

    /// Where it is written.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Copies the daemons' logs beside the report.
    pub fn keep_logs(&self, cluster: &Cluster) {
        let logs = self.folder.join("logs");
        let _ = std::fs::create_dir_all(&logs);
        for replica in &cluster.replicas {
            let _ = std::fs::copy(replica.log(), logs.join(format!("{}.log", replica.node)));
        }
        let ambassador = cluster.folder().join("ambassador.log");
        let _ = std::fs::copy(ambassador, logs.join("ambassador.log"));
    }

    /// A report that was written.
    ///
    /// # Errors
    /// There is none at `path`.
    pub fn read(path: &Path) -> Result<Report> {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let report = serde_json::from_slice(&text);
        report.with_context(|| format!("{} is no report of a run", path.display()))
    }

    /// Writes `report.json` and `report.html`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self) -> Result<()> {
        std::fs::create_dir_all(&self.folder)
            .with_context(|| format!("make {}", self.folder.display()))?;
        let json = serde_json::to_string_pretty(self)?;
        std::fs::write(self.folder.join("report.json"), json)?;
        std::fs::write(self.folder.join("report.html"), self.html())?;
        Ok(())
    }
}
