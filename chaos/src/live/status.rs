//! What `mainstay status --json` says, as far as the harness asks.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One reading of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The newest epoch.
    pub epoch: u64,
    /// Who leads, if anyone does.
    pub leader: Option<String>,
    /// Whether the leader's service is up.
    pub ready: bool,
    /// The replicas that are known.
    pub replicas: Vec<ReplicaStatus>,
}

/// One replica's line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReplicaStatus {
    /// Its node.
    pub node: String,
    /// `leader` or `follower`; nothing of one that is not registered.
    pub role: Option<String>,
    /// What it does, in a word.
    pub state: String,
    /// `epoch:seq` of what it holds.
    pub position: Option<String>,
    /// How far behind the leader.
    pub lag: Option<Lag>,
    /// Whether it may lead, should the leader go.
    pub may_take_over: bool,
}

/// How far behind.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Lag {
    /// In ops.
    pub ops: u64,
    /// In bytes.
    pub bytes: u64,
    /// In milliseconds.
    pub ms: u64,
}

/// The JSON of `mainstay status`.
#[derive(Debug, Deserialize)]
struct Answer {
    epoch: u64,
    leader: Option<Leader>,
    replicas: Vec<ReplicaStatus>,
}

#[derive(Debug, Deserialize)]
struct Leader {
    node: String,
    ready: bool,
}

impl ReplicaStatus {
    /// Whether it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.role.as_deref() == Some("leader")
    }

    /// Whether it follows, takes records as they are made, and may take over.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.role.as_deref() == Some("follower") && self.state == "streaming" && self.may_take_over
    }
}

impl Status {
    /// Runs the command with a node's configuration.
    ///
    /// # Errors
    /// The command failed, or its answer is not what is documented.
    pub async fn read(binary: &Path, config: &Path) -> Result<Status> {
        let output = tokio::process::Command::new(binary)
            .args(["status", "--json", "--config"])
            .arg(config)
            .output()
            .await
            .context("run mainstay status")?;
        let answer: Answer = serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "read the answer of mainstay status: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
        Ok(Status {
            epoch: answer.epoch,
            ready: answer.leader.as_ref().is_some_and(|leader| leader.ready),
            leader: answer.leader.map(|leader| leader.node),
            replicas: answer.replicas,
        })
    }

    /// The line of `node`.
    #[must_use]
    pub fn replica(&self, node: &str) -> Option<&ReplicaStatus> {
        self.replicas.iter().find(|replica| replica.node == node)
    }

    /// Whether the leader serves and every one of `nodes` leads or takes its records as they are
    /// made.
    #[must_use]
    pub fn is_whole(&self, nodes: &[&str]) -> bool {
        self.ready
            && nodes.iter().all(|node| {
                self.replica(node).is_some_and(|replica| replica.leads() || replica.follows())
            })
    }

    /// Whether the leader serves, every one of `nodes` is registered, and none lags.
    #[must_use]
    pub fn is_quiet(&self, nodes: &[&str]) -> bool {
        self.is_whole(nodes)
            && nodes.iter().all(|node| {
                self.replica(node).is_some_and(|replica| {
                    replica.leads() || replica.lag.is_some_and(|lag| lag.ops == 0)
                })
            })
    }
}
