//! What the log's threads and callers share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::LogOptions;
use super::disk::Disk;
use super::error::LogError;
use super::frame::Frame;
use super::recovery::Recovered;
use super::segment::{Blank, Segment};
use crate::position::{Epoch, Position, Seq};

/// Told after each sync how far the log is durable.
pub(super) type Hook = dyn Fn(Position) + Send + Sync;

/// A frame and its place in a file, on its way there.
pub(super) struct Placed {
    pub segment: Arc<Segment>,
    pub offset: u64,
    pub body_crc: u32,
    pub frame: Frame,
}

/// Everything that the lock guards.
pub(super) struct State {
    /// Oldest first; the last one is being filled. Empty until the first append of a new log.
    pub segments: VecDeque<Arc<Segment>>,
    /// Where the next frame goes in the last segment.
    pub end: u64,
    pub ready: VecDeque<Blank>,
    /// Released segments, and whether they have the size to be used again.
    pub recyclable: VecDeque<(Blank, bool)>,
    pub next_id: u64,
    /// Why the last attempt to prepare a segment failed.
    pub unprepared: Option<LogError>,
    /// Not before then another attempt is made.
    pub retry_at: Option<Instant>,
    /// An append was refused since.
    pub wanted: bool,

    pub head: Position,
    pub durable: Position,
    /// Appended, not yet taken by the writer.
    pub queue: VecDeque<Placed>,
    /// The writer is telling the hooks of `durable`.
    pub telling: bool,
    /// The last records, without a gap up to `head`; those not durable are all here.
    pub tail: VecDeque<Frame>,
    pub tail_bytes: u64,

    pub sealed: Epoch,
    /// The applier goes no further, if there is a limit.
    pub applier_limit: Option<Seq>,
    /// Everything up to here is in a checkpoint.
    pub released: Seq,
    /// What readers and pins have not read: all after the seq.
    pub pins: BTreeMap<u64, Seq>,
    pub next_pin: u64,
    pub failed: Option<LogError>,
    pub closed: bool,

    /// Threads in [`Shared::progress`]. A wake-up costs a system call even if nobody waits.
    pub waiting: usize,
    /// Those of them that wait for an append.
    pub waiting_for_append: usize,
    pub writer_waits: bool,
}

/// The log itself; its threads and every handle hold it.
pub(super) struct Shared {
    pub disk: Box<dyn Disk>,
    pub options: LogOptions,
    state: Mutex<State>,
    /// The writer waits here for frames.
    pub write: Condvar,
    /// The preparer waits here for something to do.
    pub prepare: Condvar,
    /// Everyone else waits here for anything to change.
    pub progress: Condvar,
    /// As `progress`, for async readers: a sync, a failure or the end.
    pub synced: tokio::sync::Notify,
    /// An append, for async readers that do not wait for syncs.
    pub appended: tokio::sync::Notify,
    hooks: Mutex<Arc<Vec<Arc<Hook>>>>,
}

impl Shared {
    pub fn new(disk: Box<dyn Disk>, options: LogOptions, recovered: Recovered) -> Shared {
        let Recovered { segments, end, head, ready, next_id } = recovered;
        Shared {
            disk,
            options,
            state: Mutex::new(State {
                segments,
                end,
                ready,
                recyclable: VecDeque::new(),
                next_id,
                unprepared: None,
                retry_at: None,
                wanted: false,
                head,
                durable: head,
                queue: VecDeque::new(),
                telling: false,
                tail: VecDeque::new(),
                tail_bytes: 0,
                sealed: Epoch(0),
                applier_limit: None,
                released: Seq(0),
                pins: BTreeMap::new(),
                next_pin: 0,
                failed: None,
                closed: false,
                waiting: 0,
                waiting_for_append: 0,
                writer_waits: false,
            }),
            write: Condvar::new(),
            prepare: Condvar::new(),
            progress: Condvar::new(),
            synced: tokio::sync::Notify::new(),
            appended: tokio::sync::Notify::new(),
            hooks: Mutex::default(),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock, so no panic leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait<'a>(&self, on: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        on.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait_timeout<'a>(
        &self,
        on: &Condvar,
        state: MutexGuard<'a, State>,
        pause: Duration,
    ) -> MutexGuard<'a, State> {
        on.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn hooks(&self) -> Arc<Vec<Arc<Hook>>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn add_hook(&self, told: Arc<Hook>) {
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut hooks).push(told);
    }

    /// Waits until something changed.
    pub fn wait_progress<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let mut state = self.wait(&self.progress, state);
        state.waiting -= 1;
        state
    }

    pub fn allow_applier(&self, through: Seq) {
        let mut state = self.lock();
        if let Some(limit) = &mut state.applier_limit
            && *limit < through
        {
            *limit = through;
            self.wake_callers(&state);
        }
    }

    /// Something changed that callers may wait for.
    pub fn wake_callers(&self, state: &State) {
        if state.waiting > 0 {
            self.progress.notify_all();
        }
        self.synced.notify_waiters();
    }

    /// Something changed that concerns everybody.
    pub fn wake_all(&self, state: &State) {
        self.wake_callers(state);
        self.appended.notify_waiters();
        self.write.notify_all();
        self.prepare.notify_all();
    }
}

impl State {
    /// The oldest record still held; the next one's seq if there is none.
    pub fn first(&self) -> Seq {
        self.segments.front().map_or(self.head.seq, |oldest| oldest.base().seq).next()
    }

    /// The oldest record in memory; the next one's seq if there is none.
    pub fn tail_first(&self) -> Seq {
        self.tail.front().map_or(self.head.seq.next(), Frame::seq)
    }

    /// The last record that the applier may see.
    pub fn applicable(&self) -> Seq {
        self.applier_limit.map_or(self.durable.seq, |limit| limit.min(self.durable.seq))
    }

    /// Whether nothing is on its way to the disk or to the hooks.
    pub fn drained(&self) -> bool {
        self.durable == self.head && !self.telling
    }

    /// Why the log takes nothing and acknowledges nothing any more, if so.
    pub fn check_alive(&self) -> Result<(), LogError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.closed => Err(LogError::Closed),
            None => Ok(()),
        }
    }

    /// Forgets frames that readers find on the disk as well.
    pub fn trim_tail(&mut self, tail_bytes: u64) {
        while self.tail_bytes > tail_bytes
            && self.tail.front().is_some_and(|frame| frame.seq() <= self.durable.seq)
        {
            let dropped = self.tail.pop_front();
            self.tail_bytes -= dropped.map_or(0, |frame| frame.bytes.len() as u64);
        }
    }

    /// The log's last word: what is on the disk from here on is unknown.
    pub fn fail(&mut self, error: LogError) {
        tracing::error!(%error, "the log acknowledges nothing any more");
        self.failed.get_or_insert(error);
        self.queue.clear();
    }

    /// Hands segments over to the preparer that no checkpoint, reader or pin needs.
    pub fn free_segments(&mut self, segment_bytes: u64) {
        let needed = self.pins.values().copied().fold(self.released, Seq::min);
        while self.segments.get(1).is_some_and(|next| next.base().seq <= needed) {
            let Some(old) = self.segments.pop_front() else { return };
            let blank = Blank { id: old.id(), file: old.file.clone(), bytes: old.bytes };
            self.recyclable.push_back((blank, old.bytes == segment_bytes));
        }
    }
}
