//! Reading the log in order: from memory at its end, from the segment files when behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Log;
use super::error::LogError;
use super::frame::Frame;
use super::segment::{Place, Segment, Walk};
use super::state::{Shared, State};
use crate::position::Seq;

/// Which records a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpTo {
    /// All: for senders, who send while the local disk is still busy.
    Appended,
    /// What is durable here, committed or not.
    Durable,
    /// What is durable here and within [`Log::limit_applier`]: for the applier, since the log comes
    /// before the data.
    Applicable,
}

/// Ends a [`LogReader::next_blocking`] from another thread.
pub struct Stop {
    stopped: AtomicBool,
    shared: Arc<Shared>,
}

impl Stop {
    /// One for readers of `log`.
    #[must_use]
    pub fn new(log: &Log) -> Stop {
        Stop { stopped: AtomicBool::new(false), shared: log.shared().clone() }
    }

    /// Wakes the readers that wait with it; they and all later ones return nothing.
    pub fn stop(&self) {
        let state = self.shared.lock();
        self.stopped.store(true, Ordering::Release);
        self.shared.wake_callers(&state);
    }

    /// Whether [`Stop::stop`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// Keeps the records after a seq until it is dropped.
pub struct LogPin {
    shared: Arc<Shared>,
    key: u64,
}

impl Drop for LogPin {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.pins.remove(&self.key);
        state.free_segments(self.shared.options.segment_bytes);
        self.shared.prepare.notify_all();
    }
}

/// Reads records in order, each once, and keeps those that it has not read.
pub struct LogReader {
    pin: LogPin,
    next: Seq,
    cursor: Option<Cursor>,
}

/// What the state says of a reader's next records.
enum Look {
    Frames(Vec<Frame>),
    /// On the disk, in this segment up to this record.
    Disk(Arc<Segment>, Seq),
    Nothing,
}

impl Log {
    /// Keeps the records after `after` until the pin is dropped.
    ///
    /// # Errors
    /// [`LogError::Released`] if they are gone, [`LogError::Beyond`] if `after` is past the head.
    pub fn pin(&self, after: Seq) -> Result<LogPin, LogError> {
        let shared = self.shared();
        let mut state = shared.lock();
        if after > state.head.seq {
            return Err(LogError::Beyond { seq: after, head: state.head.seq });
        }
        if after.next() < state.first() {
            return Err(LogError::Released { oldest: state.first() });
        }
        let key = state.next_pin;
        state.next_pin += 1;
        state.pins.insert(key, after);
        Ok(LogPin { shared: shared.clone(), key })
    }

    /// A reader whose first record is the one after `after`.
    ///
    /// # Errors
    /// As [`Log::pin`].
    pub fn reader(&self, after: Seq) -> Result<LogReader, LogError> {
        Ok(LogReader { pin: self.pin(after)?, next: after.next(), cursor: None })
    }
}

impl LogReader {
    /// The seq of the record that comes next.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// Waits for records: at least one, then as many as `max_bytes` encoded bytes hold. Empty
    /// once `stop` says so.
    ///
    /// # Errors
    /// There will be none: the log failed or was closed. Or the disk does not give back a record.
    pub fn next_blocking(
        &mut self,
        up_to: UpTo,
        max_bytes: usize,
        stop: &Stop,
    ) -> Result<Vec<Frame>, LogError> {
        let shared = self.pin.shared.clone();
        let mut state = shared.lock();
        loop {
            if stop.is_stopped() {
                return Ok(Vec::new());
            }
            match self.look(&mut state, up_to, max_bytes)? {
                Look::Frames(frames) => return Ok(frames),
                Look::Disk(segment, to) => {
                    drop(state);
                    let cursor = self.cursor.take();
                    let (frames, cursor) =
                        read(&shared, cursor, segment, self.next, to, max_bytes)?;
                    return Ok(self.took(frames, cursor));
                }
                Look::Nothing => {
                    let for_append = usize::from(up_to == UpTo::Appended);
                    state.waiting_for_append += for_append;
                    state = shared.wait_progress(state);
                    state.waiting_for_append -= for_append;
                }
            }
        }
    }

    /// As [`LogReader::next_blocking`] without a stop: drop the future instead, no record is lost
    /// then. Wants a tokio runtime.
    ///
    /// # Errors
    /// As [`LogReader::next_blocking`].
    pub async fn next(&mut self, up_to: UpTo, max_bytes: usize) -> Result<Vec<Frame>, LogError> {
        let shared = self.pin.shared.clone();
        loop {
            let mut synced = std::pin::pin!(shared.synced.notified());
            let mut appended = std::pin::pin!(shared.appended.notified());
            // Before looking, so that what happens in between is not missed.
            synced.as_mut().enable();
            appended.as_mut().enable();
            let look = self.look(&mut shared.lock(), up_to, max_bytes)?;
            match (look, up_to) {
                (Look::Frames(frames), _) => return Ok(frames),
                (Look::Disk(segment, to), _) => {
                    let (shared, cursor, next) = (shared.clone(), self.cursor.take(), self.next);
                    let reading = tokio::task::spawn_blocking(move || {
                        read(&shared, cursor, segment, next, to, max_bytes)
                    });
                    // It does not panic; the runtime ends, and with it this task.
                    let Ok(outcome) = reading.await else { return Err(LogError::Closed) };
                    let (frames, cursor) = outcome?;
                    return Ok(self.took(frames, cursor));
                }
                (Look::Nothing, UpTo::Durable | UpTo::Applicable) => synced.await,
                (Look::Nothing, UpTo::Appended) => {
                    tokio::select! { () = synced => {} () = appended => {} }
                }
            }
        }
    }

    fn look(&mut self, state: &mut State, up_to: UpTo, max_bytes: usize) -> Result<Look, LogError> {
        let limit = match up_to {
            UpTo::Appended => state.head.seq,
            UpTo::Durable => state.durable.seq,
            UpTo::Applicable => state.applicable(),
        };
        let tail_first = state.tail_first();
        let look = if self.next > limit {
            state.check_alive()?;
            Look::Nothing
        } else if self.next >= tail_first {
            let skip = usize::try_from(self.next.0 - tail_first.0).unwrap_or(usize::MAX);
            let frames = take(state.tail.iter().skip(skip), limit, max_bytes);
            self.next = frames.last().map_or(self.next, |last| last.seq().next());
            Look::Frames(frames)
        } else {
            let at = state.segments.partition_point(|segment| segment.base().seq < self.next);
            let Some(segment) = at.checked_sub(1).and_then(|at| state.segments.get(at)) else {
                return Err(LogError::Released { oldest: state.first() });
            };
            let next_base = state.segments.get(at).map_or(limit, |next| next.base().seq);
            Look::Disk(segment.clone(), next_base.min(limit).min(Seq(tail_first.0 - 1)))
        };
        let read = Seq(self.next.0 - 1);
        if state.pins.insert(self.pin.key, read) != Some(read) {
            state.free_segments(self.pin.shared.options.segment_bytes);
            if !state.recyclable.is_empty() {
                self.pin.shared.prepare.notify_all();
            }
        }
        Ok(look)
    }

    fn took(&mut self, frames: Vec<Frame>, cursor: Cursor) -> Vec<Frame> {
        self.next = frames.last().map_or(self.next, |last| last.seq().next());
        self.cursor = Some(cursor);
        frames
    }
}

fn take<'a>(frames: impl Iterator<Item = &'a Frame>, to: Seq, max_bytes: usize) -> Vec<Frame> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    for frame in frames {
        bytes += frame.bytes.len();
        if frame.seq() > to || (bytes > max_bytes && !taken.is_empty()) {
            break;
        }
        taken.push(frame.clone());
    }
    taken
}

/// Where in a segment a reader stands.
struct Cursor {
    segment: Arc<Segment>,
    walk: Walk,
}

/// Reads the records from `next` to `to`, all of which `segment` holds.
fn read(
    shared: &Shared,
    cursor: Option<Cursor>,
    segment: Arc<Segment>,
    next: Seq,
    to: Seq,
    max_bytes: usize,
) -> Result<(Vec<Frame>, Cursor), LogError> {
    let disk = &*shared.disk;
    // A segment that was cut has been replaced by another since.
    let mut cursor =
        cursor.filter(|cursor| Arc::ptr_eq(&cursor.segment, &segment)).unwrap_or_else(|| {
            let walk = Walk::new(segment.id(), segment.file.clone());
            Cursor { segment: segment.clone(), walk }
        });
    let walk = &mut cursor.walk;
    walk.forget();
    let io = |source| LogError::io("read", segment.path(disk), source);
    let damaged = |offset, seq, what| LogError::Damaged {
        file: segment.path(disk),
        offset,
        seq,
        durable: to,
        what,
    };
    let mut frames: Vec<Frame> = Vec::new();
    let (mut seq, mut bytes) = (next, 0);
    while seq <= to {
        let header = walk.header().map_err(io)?;
        let header = header.filter(|header| header.position.seq <= seq);
        let header = header
            .ok_or_else(|| damaged(walk.offset, seq, "a record that was there is unreadable"))?;
        if header.position.seq < seq {
            walk.step_over(&header);
            continue;
        }
        bytes += header.length as usize;
        if bytes > max_bytes && !frames.is_empty() {
            break;
        }
        let Place::Frame(header, body) = walk.place().map_err(io)? else {
            return Err(damaged(walk.offset, seq, "a record's bytes have changed"));
        };
        let frame = Frame::decode(body)?;
        if frame.position() != header.position {
            return Err(damaged(walk.offset, seq, "a record is not the one that its frame names"));
        }
        walk.step_over(&header);
        frames.push(frame);
        seq = seq.next();
    }
    Ok((frames, cursor))
}
