//! A watch in etcd that cannot die silently.
//!
//! A member that lost its leader ends the stream by itself, since we require a leader. A member
//! that hangs, or a path that swallows packets, ends nothing: so a quiet stream is asked for its
//! progress, and one that does not answer that is broken. (HTTP/2 pings would do too, but etcd
//! hangs up on a client that sends them more often than every five seconds.)

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Client, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, timeout_at};

use super::entry;
use super::fault::explain;
use crate::coordinator::{CoordinatorError, Event, Result, Revision, Watch};

/// A running watch of everything below `root`.
pub(super) struct EtcdWatch {
    stream: WatchStream,
    root: String,
    patience: Duration,
    /// When the stream counts as quiet (or, once asked, as dead).
    deadline: Instant,
    asked: bool,
    arrived: VecDeque<Event>,
    broken: Option<String>,
}

impl EtcdWatch {
    /// Begins after `after`, and returns when etcd has said that it watches.
    pub(super) async fn begin(
        client: Client,
        root: String,
        after: Revision,
        patience: Duration,
    ) -> Result<EtcdWatch> {
        let (stream, first) = match create(&client, &root, after).await? {
            // A token that has expired is found out only here, inside the stream, where the
            // client's own refresh does not look.
            (_, first) if refused(&first) => {
                client.refresh_token().await.map_err(explain)?;
                create(&client, &root, after).await?
            }
            created => created,
        };
        if refused(&first) {
            return Err(CoordinatorError::Denied(first.cancel_reason().to_owned()));
        }
        let mut watch = EtcdWatch {
            stream,
            root,
            patience,
            deadline: Instant::now() + patience,
            asked: false,
            arrived: VecDeque::new(),
            broken: None,
        };
        watch.take(&first);
        Ok(watch)
    }

    fn take(&mut self, response: &WatchResponse) {
        self.deadline = Instant::now() + self.patience;
        self.asked = false;
        if response.compact_revision() > 0 {
            let at = response.compact_revision();
            self.broken = Some(format!("etcd has forgotten what came before revision {at}"));
        } else if response.canceled() {
            self.broken = Some(format!("etcd ended the watch: {}", response.cancel_reason()));
        }
        for event in response.events() {
            match self.event(event) {
                Ok(event) => self.arrived.push_back(event),
                Err(error) => self.broken = Some(error.to_string()),
            }
        }
    }

    fn event(&self, event: &etcd_client::Event) -> Result<Event> {
        let pair = event.kv().ok_or_else(super::unclear)?;
        let entry = entry(&self.root, pair)?;
        Ok(match event.event_type() {
            EventType::Put => Event::Put(entry),
            EventType::Delete => Event::Deleted(entry.key, entry.modified),
        })
    }

    /// The stream was quiet until its deadline.
    async fn quiet(&mut self) {
        if self.asked {
            self.broken = Some(format!("etcd was silent for {:?}", 2 * self.patience));
            return;
        }
        self.asked = true;
        self.deadline = Instant::now() + self.patience;
        // Into a queue of our own process, so this does not wait for etcd. Cancelled before it is
        // sent, the watch would be thought dead once too often, which costs a read.
        if let Err(error) = self.stream.request_progress().await {
            self.broken = Some(error.to_string());
        }
    }
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.arrived.pop_front() {
                return event;
            }
            if let Some(cause) = &self.broken {
                return Event::Broken(cause.clone());
            }
            match timeout_at(self.deadline, self.stream.message()).await {
                Ok(Ok(Some(response))) => self.take(&response),
                Ok(Ok(None)) => self.broken = Some("etcd closed the watch".to_owned()),
                Ok(Err(error)) => self.broken = Some(explain(error).to_string()),
                Err(_) => self.quiet().await,
            }
        }
    }
}

async fn create(
    client: &Client,
    root: &str,
    after: Revision,
) -> Result<(WatchStream, WatchResponse)> {
    let options = WatchOptions::new().with_prefix().with_start_revision(after.0 + 1);
    let mut stream = client.watch_client().watch(root, Some(options)).await.map_err(explain)?;
    let first = stream.message().await.map_err(explain)?.ok_or_else(super::unclear)?;
    Ok((stream, first))
}

/// Ended before it began: 3.4 and later say so of a bad token, of missing permissions, and of
/// nothing else but a forgotten past.
fn refused(first: &WatchResponse) -> bool {
    first.created() && first.canceled() && first.compact_revision() == 0
}
