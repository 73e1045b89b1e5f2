//! Every change below the service's prefix in etcd, as a client of etcd sees it.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::workload::History;

/// One change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When it was seen.
    pub at: Duration,
    /// Below the service's prefix, such as `leader`.
    pub key: String,
    /// What it holds now; `None` when it is gone.
    pub value: Option<serde_json::Value>,
}

/// All that the harness' services are called, in the coordinator.
const PREFIX: &str = "/mainstay/chaos/";

/// Watches until it is dropped.
#[derive(Debug)]
pub struct CoordinatorWatch {
    changes: Arc<Mutex<Vec<Change>>>,
    wiped: Arc<Notify>,
    task: AbortHandle,
}

impl CoordinatorWatch {
    /// Watches through these endpoints (`address:port`, with commas between).
    #[must_use]
    pub fn start(endpoints: &str, history: History) -> CoordinatorWatch {
        let (changes, wiped) = (Arc::default(), Arc::<Notify>::default());
        let kept = (Arc::clone(&changes), Arc::clone(&wiped));
        let task = tokio::spawn(keep_watching(endpoints.to_owned(), history, kept.0, kept.1));
        CoordinatorWatch { changes, wiped, task: task.abort_handle() }
    }

    /// etcd lost its memory and counts its revisions from the start again.
    pub fn start_over(&self) {
        self.wiped.notify_one();
    }

    /// What was seen so far.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Drop for CoordinatorWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_watching(
    endpoints: String,
    history: History,
    changes: Arc<Mutex<Vec<Change>>>,
    wiped: Arc<Notify>,
) {
    let mut next = 1;
    loop {
        let result = tokio::select! {
            result = watch(&endpoints, &mut next, &history, &changes) => result,
            () = wiped.notified() => {
                next = 1;
                Ok(())
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "the watch of etcd broke");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Watches from the revision `next` on, and leaves the first one that is not seen there.
async fn watch(
    endpoints: &str,
    next: &mut u64,
    history: &History,
    changes: &Mutex<Vec<Change>>,
) -> anyhow::Result<()> {
    let mut child = tokio::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", endpoints, "watch", "--prefix", PREFIX, "-w", "json"])
        .args(["--rev", &next.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().expect("it is piped");
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        let Answer { events } = serde_json::from_str(&line)?;
        for event in events {
            *next = (*next).max(event.kv.mod_revision + 1);
            let key = String::from_utf8(base64(&event.kv.key)?)?;
            let value = event.kv.value.as_deref().map(base64).transpose()?;
            let change = Change {
                at: history.now(),
                key: key.strip_prefix(PREFIX).unwrap_or(&key).to_owned(),
                // Our values are never empty, and a deletion has none.
                value: value.and_then(|value| serde_json::from_slice(&value).ok()),
            };
            changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(change);
        }
    }
    Ok(())
}

/// One line of `etcdctl watch -w json`.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Events", default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    kv: KeyValue,
}

#[derive(Deserialize)]
struct KeyValue {
    key: String,
    value: Option<String>,
    mod_revision: u64,
}

/// Decodes what etcdctl encoded.
fn base64(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => anyhow::bail!("{text:?} is not base64"),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_length_is_decoded() {
        let decoded = |text| base64(text).expect("it is base64");
        assert_eq!(decoded(""), b"");
        assert_eq!(decoded("Zg=="), b"f");
        assert_eq!(decoded("Zm8="), b"fo");
        assert_eq!(decoded("Zm9vYmFy"), b"foobar");
        assert_eq!(decoded("/+8="), [0xff, 0xef]);
    }
}
