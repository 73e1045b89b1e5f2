//! What `mainstay status --json` says, as far as the harness asks.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One reading of the cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The newest epoch.
    pub epoch: u64,
    /// Who leads, if anyone does.
    pub leader: Option<String>,
    /// Whether the leader's service is up.
    pub ready: bool,
    /// The registered replicas.
    pub replicas: Vec<ReplicaStatus>,
}

/// One replica's line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReplicaStatus {
    /// Its node.
    pub node: String,
    /// `leader` or `follower`.
    pub role: String,
    /// What it does, in a word.
    pub state: String,
    /// `epoch:seq` of what it holds.
    pub position: String,
    /// How far behind the leader.
    pub lag_ops: Option<u64>,
    /// How far behind the leader.
    pub lag_bytes: Option<u64>,
    /// How far behind the leader.
    pub lag_ms: Option<u64>,
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
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "read the answer of mainstay status: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
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
                self.replica(node)
                    .is_some_and(|replica| replica.role == "leader" || replica.state == "streaming")
            })
    }

    /// Whether the leader serves, every one of `nodes` is registered, and none lags.
    #[must_use]
    pub fn is_quiet(&self, nodes: &[&str]) -> bool {
        self.is_whole(nodes)
            && nodes.iter().all(|node| {
                self.replica(node)
                    .is_some_and(|replica| replica.role == "leader" || replica.lag_ops == Some(0))
            })
    }
}
