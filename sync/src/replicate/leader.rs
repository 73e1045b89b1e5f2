//! The leader's end: takes followers' sessions for as long as one leadership lasts.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::end::End;
use super::ends::{Source, SourceError};
use super::pace::Pace;
use super::plan::{Leading, PROTOCOL};
use super::session;
use super::table::{FollowerStatus, Table};
use crate::position::{Epoch, VolumeId};
use crate::transport::{Endpoint, Goodbye, Link, Listener};

/// Says whether a node may follow with that volume, and why not.
pub type Admit = Arc<dyn Fn(&str, VolumeId) -> Result<(), String> + Send + Sync>;

/// How a leader treats its followers.
#[derive(Clone)]
pub struct LeaderOptions {
    /// How often a follower is told where the leader is, records or not.
    pub beat: Duration,
    /// Bytes of records read from the log at once.
    pub batch_bytes_max: usize,
    /// A follower this many bytes of log behind is dropped, to copy instead: the log is held for
    /// it. Also the most that may be written during a copy.
    pub held_bytes_max: u64,
    /// Bytes a second that copies and deltas may take together; records are never held back.
    pub bandwidth: Option<u64>,
    /// Who may follow; `None`: whoever holds the secret.
    pub admit: Option<Admit>,
}

impl Default for LeaderOptions {
    fn default() -> Self {
        LeaderOptions {
            beat: Duration::from_millis(500),
            batch_bytes_max: 1 << 20,
            held_bytes_max: 16 << 30,
            bandwidth: None,
            admit: None,
        }
    }
}

/// What the leader's owner must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node has promised or seen this epoch or a newer one: this leadership may be over.
    Superseded {
        /// Which epoch.
        epoch: Epoch,
        /// Who said so.
        node: String,
    },
}

/// Takes sessions until stopped or dropped.
pub struct Leader {
    shared: Arc<Shared>,
    /// The sessions end when it is dropped.
    _going: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

/// What the sessions of one leadership share.
pub(super) struct Shared {
    pub service: String,
    pub epoch: Epoch,
    pub source: Arc<dyn Source>,
    pub options: LeaderOptions,
    pub table: Table,
    pub pace: Pace,
    pub events: mpsc::UnboundedSender<Event>,
}

impl Leader {
    /// Begins to take sessions on `endpoint`, as the leader of `epoch`, whose first record the
    /// log of `source` already holds. Needs a tokio runtime.
    pub fn start(
        endpoint: &Endpoint,
        source: Arc<dyn Source>,
        epoch: Epoch,
        options: LeaderOptions,
    ) -> (Leader, mpsc::UnboundedReceiver<Event>) {
        let (events, told) = mpsc::unbounded_channel();
        let service = endpoint.name().service.clone();
        let table = Table::new();
        let pace = Pace::new(options.bandwidth);
        let shared = Arc::new(Shared { service, epoch, source, options, table, pace, events });
        let (going, over) = oneshot::channel();
        let accepting = tokio::spawn(accept(endpoint.listen(), shared.clone(), over));
        (Leader { shared, _going: going, accepting }, told)
    }

    /// Every node that followed in this leadership, connected or not.
    #[must_use]
    pub fn followers(&self) -> Vec<FollowerStatus> {
        self.shared.table.statuses(&*self.shared.source)
    }

    /// Changes whenever [`Leader::followers`] may have; ages and lag also grow between changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.table.changes()
    }

    /// Asks all followers to compare their content with this volume's as it is now, and says
    /// which run it is: [`FollowerStatus::verified`] tells of it once it is done.
    pub fn verify(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let earlier = self.shared.table.verify().0;
        let run = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(earlier + 1);
        self.shared.table.ask_verify(run, self.shared.source.head().seq);
        run
    }

    /// Ends all sessions. When this returns none counts an acknowledgement or reads the volume
    /// any more.
    pub async fn stop(self) {
        let Leader { _going: going, accepting, .. } = self;
        drop(going);
        if let Err(error) = accepting.await {
            tracing::error!(%error, "the task of the followers' sessions broke off");
        }
    }
}

impl Shared {
    /// The leader's side of a verdict.
    pub fn leading(&self) -> Result<Leading, SourceError> {
        let blank = || SourceError::Failed("it is blank".to_owned());
        Ok(Leading {
            protocol: PROTOCOL,
            service: self.service.clone(),
            cluster: self.source.cluster().ok_or_else(blank)?,
            volume: self.source.volume(),
            epoch: self.epoch,
            lineage: self.source.lineage(),
            head: self.source.head(),
            first: self.source.first(),
        })
    }
}

/// Runs until the other end of `over` is dropped; no session outlives it.
async fn accept(mut listener: Listener, shared: Arc<Shared>, mut over: oneshot::Receiver<()>) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut over => break,
            link = listener.next() => match link {
                Some(link) => drop(sessions.spawn(serve(link, shared.clone()))),
                None => break,
            },
            Some(ended) = sessions.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "a follower's session broke off");
            },
        }
    }
    drop(listener);
    sessions.shutdown().await;
}

async fn serve(link: Link, shared: Arc<Shared>) {
    // Also when the task is aborted: the follower should not have to wait for a timeout.
    let closing = CloseOnDrop(link.clone());
    let end = match session::serve(&shared, &link).await {
        Ok(()) => return,
        Err(end) => end,
    };
    let (node, address) = (&link.peer().node, link.address());
    match &end {
        End::Link(_) | End::Channel(_) if end.goodbye() == Goodbye::Done => {
            tracing::info!(%node, %address, why = %end, "a follower's session ended");
        }
        _ => tracing::warn!(%node, %address, why = %end, "a follower's session was ended"),
    }
    link.close(end.goodbye(), &end.to_string());
    drop(closing);
}

struct CloseOnDrop(Link);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        // Closing again what is closed changes nothing.
        self.0.close(Goodbye::NotLeading, "this node takes no sessions now");
    }
}
