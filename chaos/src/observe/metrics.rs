//! What each replica says of itself, asked a few times a second.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::workload::History;

const INTERVAL: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_millis(500);

/// One answer of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was asked for.
    pub at: Duration,
    /// Which node answered.
    pub node: String,
    /// Whether it leads.
    pub leading: bool,
    /// Whether its service answers.
    pub ready: bool,
    /// The epoch of its log's last record.
    pub epoch: u64,
}

/// Asks until it is dropped.
#[derive(Debug)]
pub struct Samples {
    samples: Arc<Mutex<Vec<Sample>>>,
    _tasks: JoinSet<()>,
}

impl Samples {
    /// Asks these nodes at their APIs.
    #[must_use]
    pub fn start(nodes: &[(String, SocketAddr)], history: &History) -> Samples {
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let mut tasks = JoinSet::new();
        for (node, api) in nodes.iter().cloned() {
            let (history, samples) = (history.clone(), Arc::clone(&samples));
            tasks.spawn(async move {
                loop {
                    let at = history.now();
                    let asked = tokio::time::timeout(PATIENCE, ask(api)).await;
                    if let Ok(Ok(metrics)) = asked {
                        let sample = sample(at, &node, &metrics);
                        samples.lock().unwrap_or_else(|e| e.into_inner()).push(sample);
                    }
                    tokio::time::sleep(INTERVAL).await;
                }
            });
        }
        Samples { samples, _tasks: tasks }
    }

    /// What was answered so far, in the order of the answers.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

fn sample(at: Duration, node: &str, metrics: &BTreeMap<String, f64>) -> Sample {
    let value = |name: &str| metrics.get(name).copied().unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an epoch")]
    let epoch = value("mainstay_epoch") as u64;
    Sample {
        at,
        node: node.to_owned(),
        leading: value("mainstay_leading") > 0.0,
        ready: value("mainstay_ready") > 0.0,
        epoch,
    }
}

/// Whether a replica says of itself that it leads or follows.
pub async fn is_healthy(api: SocketAddr) -> bool {
    let asked = tokio::time::timeout(PATIENCE, get(api, "/health")).await;
    asked.is_ok_and(|answer| answer.is_ok_and(|text| text.starts_with("HTTP/1.1 200")))
}

async fn get(api: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(api).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The metrics without labels that a replica serves.
///
/// # Errors
/// It does not answer.
pub async fn ask(api: SocketAddr) -> Result<BTreeMap<String, f64>> {
    let answer = get(api, "/metrics").await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no end of the answer's head")?;
    let lines = body.lines().filter(|line| !line.starts_with('#') && !line.contains('{'));
    let values = lines.filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    Ok(values.collect())
}
