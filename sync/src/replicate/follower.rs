//! The follower's end: keeps a session with one leader for as long as it is told to follow it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::end::End;
use super::ends::Sink;
use super::intake;
use super::message::{Stamp, Verified};
use super::plan::Refusal;
use crate::position::{Epoch, Seq};
use crate::transport::Endpoint;

/// The leader to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAddress {
    /// Its node; another one that answers at the address is refused.
    pub node: String,
    /// Where its endpoint answers.
    pub address: SocketAddr,
    /// Its leadership; an older one is refused.
    pub epoch: Epoch,
}

/// How a follower goes about it.
#[derive(Clone, Debug)]
pub struct FollowerOptions {
    /// The pause before the second attempt; each further one doubles it.
    pub retry_first: Duration,
    /// The longest pause between attempts.
    pub retry_max: Duration,
    /// How often the leader is told what is applied, new or not.
    pub beat: Duration,
    /// Bytes of records taken from the link at once.
    pub batch_bytes_max: usize,
    /// Bytes a second that comparing the content may read here and at the leader.
    pub verify_bandwidth: u64,
}

impl Default for FollowerOptions {
    fn default() -> Self {
        FollowerOptions {
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(2),
            beat: Duration::from_millis(500),
            batch_bytes_max: 4 << 20,
            verify_bandwidth: 64 << 20,
        }
    }
}

/// What the follower is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Phase {
    /// Trying to reach the leader.
    #[default]
    Connecting,
    /// Taking a whole copy: not promotable until it is done.
    Copying {
        /// Bytes of files so far.
        bytes: u64,
        /// About how many there are.
        bytes_total: u64,
        /// Since the copy began, on average.
        bytes_per_second: u64,
    },
    /// Taking what differs, beside a volume that stays at its old position and promotable.
    CatchingUp {
        /// Bytes of blocks so far.
        bytes: u64,
        /// Chunks that were compared so far.
        chunks: u64,
        /// How many there are; 0 until that is known.
        chunks_total: u64,
        /// Since it began, on average.
        bytes_per_second: u64,
        /// About how long it still takes.
        ms_left: Option<u64>,
    },
    /// Taking records as they are made.
    Streaming,
    /// The leader takes no session with this node. It is tried again now and then.
    Refused(Refusal),
}

/// How far a comparison is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verifying {
    /// Chunks that were looked at.
    pub chunks: u64,
    /// About how many there are.
    pub chunks_total: u64,
    /// Since it began, on average.
    pub bytes_per_second: u64,
    /// About how long it still takes.
    pub ms_left: Option<u64>,
}

/// How following goes.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// What is being done.
    pub phase: Phase,
    /// How the last session ended, or why none began; cleared once one streams.
    pub trouble: Option<String>,
    /// When the leader was last heard, in this following.
    pub heard: Option<Instant>,
    /// The leader's head, as last heard.
    pub leader_head: Seq,
    /// Its last committed record, as last heard.
    pub leader_committed: Seq,
    /// About how many bytes of its log the leader does not know to be durable here, as last heard.
    pub behind_bytes: u64,
    /// How old the oldest of those is, as last heard.
    pub behind_ms: u64,
    /// The newest comparison that the leader asked for, and as of which record.
    pub verify: (u64, Seq),
    /// How far a comparison under way is.
    pub verifying: Option<Verifying>,
    /// What the last comparison in this following found.
    pub verified: Option<Verified>,
    /// It ended the session itself, or takes none: it does not lead any more, or not yet.
    pub goodbye: bool,
    /// The stamp of its last beat.
    pub stamp: Stamp,
    /// By how much the leader's clock is ahead of ours (negative: behind), give or take half a
    /// round trip.
    pub leader_clock_ahead_ms: Option<i64>,
}

/// Follows one leader until stopped or dropped.
pub struct Follower {
    status: watch::Receiver<Status>,
    turn: Arc<Turn>,
    task: JoinHandle<()>,
}

/// Whether this following may still write to the volume. Whoever writes holds the lock, so that
/// after [`Turn::end`] nothing is in progress.
pub(super) struct Turn {
    open: AtomicBool,
    writing: Mutex<()>,
}

impl Follower {
    /// Begins to follow `leader`. Needs a tokio runtime.
    #[must_use]
    pub fn start(
        endpoint: &Endpoint,
        sink: Arc<dyn Sink>,
        leader: LeaderAddress,
        options: FollowerOptions,
    ) -> Follower {
        let (told, status) = watch::channel(Status::default());
        let turn = Arc::new(Turn { open: AtomicBool::new(true), writing: Mutex::default() });
        let following = Following {
            endpoint: endpoint.clone(),
            sink,
            leader,
            options,
            status: told,
            turn: turn.clone(),
        };
        Follower { status, turn, task: tokio::spawn(keep_following(following)) }
    }

    /// How it goes, now and at every change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Ends the session. When this returns nothing is written to the volume any more, and
    /// nothing acknowledged.
    pub async fn stop(mut self) {
        self.turn.close();
        self.task.abort();
        let _cancelled = (&mut self.task).await;
        let turn = self.turn.clone();
        // A write in progress may wait for a disk; a panic in it has been reported by its task.
        let _ended = tokio::task::spawn_blocking(move || turn.wait()).await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.turn.close();
        self.task.abort();
    }
}

impl Turn {
    /// Runs `write`, unless following was stopped.
    pub fn write<T>(&self, write: impl FnOnce() -> Result<T, End>) -> Result<T, End> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.open.load(Ordering::Acquire) { write() } else { Err(End::Stopped) }
    }

    fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// After [`Turn::close`]: returns once no write is in progress.
    fn wait(&self) {
        drop(self.writing.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// One leader being followed, session after session.
pub(super) struct Following {
    pub endpoint: Endpoint,
    pub sink: Arc<dyn Sink>,
    pub leader: LeaderAddress,
    pub options: FollowerOptions,
    pub status: watch::Sender<Status>,
    pub turn: Arc<Turn>,
}

impl Following {
    /// Runs `write` where waiting for a disk does no harm, unless following was stopped.
    pub async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&dyn Sink) -> Result<T, End> + Send + 'static,
    ) -> Result<T, End> {
        let (turn, sink) = (self.turn.clone(), self.sink.clone());
        tokio::task::spawn_blocking(move || turn.write(|| write(&*sink))).await?
    }

    pub fn phase(&self, phase: Phase) {
        self.status.send_modify(|status| status.phase = phase);
    }
}

async fn keep_following(following: Following) {
    let FollowerOptions { retry_first, retry_max, .. } = following.options;
    let mut pause = retry_first;
    loop {
        let (end, streamed) = intake::session(&following).await;
        let leader = &following.leader.node;
        following.status.send_modify(|status| {
            status.trouble = Some(end.to_string());
            status.goodbye |= end.is_goodbye();
            status.phase = match &end {
                End::Refused(refusal) => Phase::Refused(refusal.clone()),
                _ => Phase::Connecting,
            };
        });
        if streamed {
            pause = retry_first;
        }
        match end {
            End::Reborn => {
                tracing::info!(%leader, "the volume is another one now; coming back as that");
                continue;
            }
            End::Link(_) | End::Channel(_) => tracing::info!(%leader, why = %end, "no session"),
            _ => tracing::warn!(%leader, why = %end, "the session with the leader was ended"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(retry_max);
    }
}
