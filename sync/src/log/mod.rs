//! The log: every op in order, durable before anything rests on it.
//!
//! The volume appends (a leader what its mount captured, a follower what its leader sent), the
//! applier and the senders read, the checkpointer releases. Appending copies into memory; one
//! thread makes durable what was appended and tells.
//!
//! ```text
//! append -> queue -> writer thread: one write, one sync -> hooks, waiters
//!       \-> tail in memory -> readers (from the segment files when they are behind)
//! segment released by a checkpoint -> preparer thread -> ready to be begun again
//! ```
//!
//! Hazards. A record that was once called durable must be there for ever: what is missing later
//! is [`LogError::Damaged`], never quietly a shorter log. A record that was never durable must
//! not come back after others took its place: see [`Log::truncate_after`]. And after a failed
//! write or sync nothing is called durable again.

mod cut;
mod disk;
mod error;
mod format;
mod frame;
mod held;
mod inspect;
mod prepare;
mod reader;
mod recovery;
mod segment;
mod state;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::op::Record;
use crate::position::{Epoch, Position, Seq};
use crate::wire;
use disk::{Disk, RealDisk};
use format::{SEGMENT_HEADER_BYTES, body_crc, frame_stride};
use segment::Segment;
use state::{Placed, Shared, State};

pub use error::LogError;
pub use frame::Frame;
pub use inspect::{Inspection, SegmentReport, inspect};
pub use reader::{LogPin, LogReader, Stop, UpTo};

/// Sizes. The default suits a service of any size.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Of one segment file. Bounds a record: it lies in one segment. Three files exist at once
    /// even if nothing is ever written.
    pub segment_bytes: u64,
    /// Encoded records kept in memory for readers; those not yet durable are kept beyond it.
    pub tail_bytes: u64,
    /// Released segments kept to be written again, instead of removing them and filling new ones.
    pub spare_segments: usize,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { segment_bytes: 16 << 20, tail_bytes: 32 << 20, spare_segments: 4 }
    }
}

/// An open log. Cloning is cheap and shares it; the last clone to go closes it, which makes
/// durable what was appended.
#[derive(Clone)]
pub struct Log {
    threads: Arc<Threads>,
}

struct Threads {
    shared: Arc<Shared>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in `dir`, creating both if need be.
    ///
    /// `floor` is the checkpoint's position: records up to it need not be there, and a log
    /// without any segment continues after it. The last segment is written anew before this
    /// returns (on a full disk it is only synced), so all of [`Log::head`] is durable. The caller
    /// seals again what its vow says.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if a record is missing or unreadable that was known to be durable;
    /// the files are as they were. Otherwise the disk refused something.
    pub fn open(dir: &Path, options: LogOptions, floor: Position) -> Result<Log, LogError> {
        let disk =
            RealDisk::open(dir).map_err(|source| LogError::io("open", dir.to_owned(), source))?;
        Log::start(Box::new(disk), options, floor)
    }

    fn start(disk: Box<dyn Disk>, options: LogOptions, floor: Position) -> Result<Log, LogError> {
        let recovered = recovery::recover(&*disk, &options, floor)?;
        let path = disk.path("");
        let shared = Arc::new(Shared::new(disk, options, recovered));
        let threads = Threads { shared: shared.clone(), handles: Mutex::default() };
        for (name, body) in
            [("log-writer", writer::run as fn(&Shared)), ("log-preparer", prepare::run)]
        {
            let shared = shared.clone();
            let handle = thread::Builder::new().name(name.into()).spawn(move || body(&shared));
            let handle =
                handle.map_err(|source| LogError::io("start thread for", path.clone(), source))?;
            threads.handles().push(handle);
        }
        Ok(Log { threads: Arc::new(threads) })
    }

    /// Appends `record` to memory; the log's thread makes it durable soon after.
    ///
    /// Never waits for a disk, but for one case: a burst that used up the segments ready ahead
    /// waits for the next.
    ///
    /// # Errors
    /// Nothing was taken: [`LogError::OutOfOrder`], [`LogError::Sealed`], [`LogError::NoSpace`],
    /// [`LogError::TooLarge`], [`LogError::Wire`], [`LogError::Failed`].
    pub fn append(&self, record: &Record) -> Result<(), LogError> {
        self.append_by(record.head.epoch, record)
    }

    /// As [`Log::append`], for a record that the leader of epoch `by` hands over: its own, or an
    /// older one that this log lacks.
    ///
    /// A seal asks who hands a record over and not whose it is. The leader of a newer epoch was
    /// elected on positions that were read behind the seals, so whatever its log holds is right,
    /// also its oldest records; what a leader that was promised away hands over is not, also if
    /// it is as old.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_by(&self, by: Epoch, record: &Record) -> Result<(), LogError> {
        self.append_frame(by, Frame::encode(record))
    }

    /// As [`Log::append_by`], for a record that is encoded already.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_frame(&self, by: Epoch, frame: Frame) -> Result<(), LogError> {
        let shared = self.shared();
        wire::check_record_size(&frame.bytes)?;
        let stride = frame_stride(frame.bytes.len());
        let room = shared.options.segment_bytes.saturating_sub(SEGMENT_HEADER_BYTES);
        if stride > room {
            let limit = usize::try_from(room).unwrap_or(usize::MAX);
            return Err(LogError::TooLarge { bytes: frame.bytes.len(), limit });
        }
        let body_crc = body_crc(&frame.bytes);
        let mut state = shared.lock();
        let segment = loop {
            check_next(&state, by, frame.position())?;
            if let Some(segment) = place(shared, &mut state, stride)? {
                break segment;
            }
            state = shared.wait_progress(state);
        };
        let offset = state.end;
        state.end += stride;
        state.head = frame.position();
        state.tail_bytes += frame.bytes.len() as u64;
        state.tail.push_back(frame.clone());
        state.queue.push_back(Placed { segment, offset, body_crc, frame });
        // Cleared here and not by the writer, so that one wake-up is enough for a burst.
        let wake_writer = std::mem::take(&mut state.writer_waits);
        let wake_readers = state.waiting_for_append > 0;
        drop(state);
        if wake_writer {
            shared.write.notify_one();
        }
        if wake_readers {
            shared.progress.notify_all();
        }
        shared.appended.notify_waiters();
        Ok(())
    }

    /// Where the log stands once all that was appended is durable.
    #[must_use]
    pub fn head(&self) -> Position {
        self.shared().lock().head
    }

    /// The last record that a power loss cannot take.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.shared().lock().durable
    }

    /// From now on [`UpTo::Applicable`] ends at `limit`, however much more is durable; with `None`
    /// at what is durable.
    pub fn limit_applier(&self, limit: Option<Seq>) {
        let mut state = self.shared().lock();
        state.applier_limit = limit;
        self.shared().wake_callers(&state);
    }

    /// Moves the limit, if there is one, ahead to `through`. It never moves back.
    pub fn allow_applier(&self, through: Seq) {
        self.shared().allow_applier(through);
    }

    /// As [`Log::allow_applier`], for one that must not keep the log open.
    pub fn applier_allowance(&self) -> impl Fn(Seq) + Send + Sync + use<> {
        let shared = Arc::downgrade(self.shared());
        move |through| {
            if let Some(shared) = shared.upgrade() {
                shared.allow_applier(through);
            }
        }
    }

    /// The last record that the applier may have touched an object with.
    #[must_use]
    pub fn applicable(&self) -> Seq {
        self.shared().lock().applicable()
    }

    /// The oldest record still held; the seq after the head if there is none.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.shared().lock().first()
    }

    /// Has `told` called in the log's thread right after each sync, with the last durable record.
    ///
    /// It must not block, nor wait for this log, nor own a clone of it (which would never go).
    pub fn on_durable(&self, told: Box<dyn Fn(Position) + Send + Sync>) {
        self.shared().add_hook(told.into());
    }

    /// Waits until the record at `seq` is durable and says how far the log is then.
    ///
    /// # Errors
    /// It never will be: the log failed, or no such record was appended.
    pub fn wait_durable(&self, seq: Seq) -> Result<Position, LogError> {
        let shared = self.shared();
        let mut state = shared.lock();
        while state.durable.seq < seq {
            state.check_alive()?;
            if seq > state.head.seq {
                return Err(LogError::Beyond { seq, head: state.head.seq });
            }
            state = shared.wait_progress(state);
        }
        Ok(state.durable)
    }

    /// A checkpoint covers everything up to `through`: segments that hold nothing else may be
    /// used again, unless pinned.
    pub fn release(&self, through: Seq) {
        let shared = self.shared();
        let mut state = shared.lock();
        state.released = through.max(state.released);
        state.free_segments(shared.options.segment_bytes);
        drop(state);
        shared.prepare.notify_all();
    }

    /// Takes no record from a leader of epoch `through` or older any more, waits until what was appended is
    /// durable and the hooks have been told, and says where the log stands then.
    ///
    /// Nothing of those epochs is called durable after it returns, so the position may go into
    /// a ballot. It lasts as long as this log is open; the vow keeps it for longer. Not to be
    /// called from a hook.
    ///
    /// # Errors
    /// The log failed: where it stands is unknown, and there is no ballot to give.
    pub fn seal(&self, through: Epoch) -> Result<Position, LogError> {
        let shared = self.shared();
        let mut state = shared.lock();
        state.sealed = through.max(state.sealed);
        loop {
            state.check_alive()?;
            if state.drained() {
                return Ok(state.head);
            }
            state = shared.wait_progress(state);
        }
    }

    /// Makes what was appended durable, takes no more, and ends the log's threads, whoever else
    /// holds a clone. When this returns nothing touches the directory any more, so that it may be
    /// thrown away and another log begin under its name: a thread that still prepared segments
    /// would put them among the new one's. Not to be called from a hook.
    pub fn close(&self) {
        self.threads.end();
    }

    /// Why the log acknowledges nothing any more, if so.
    #[must_use]
    pub fn failed(&self) -> Option<LogError> {
        self.shared().lock().failed.clone()
    }

    /// Bytes of the segments that hold records which no checkpoint covers, in whole segments but
    /// for the last.
    #[must_use]
    pub fn unreleased_bytes(&self) -> u64 {
        let state = self.shared().lock();
        let Some(last) = state.segments.back() else { return 0 };
        if state.released >= state.head.seq {
            return 0;
        }
        let after = state.segments.partition_point(|segment| segment.base().seq <= state.released);
        let whole = state.segments.iter().skip(after.saturating_sub(1));
        whole.map(|segment| segment.bytes).sum::<u64>() - last.bytes + state.end
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.threads.shared
    }
}

/// Whether a record at `offered` may come next.
fn check_next(state: &State, by: Epoch, offered: Position) -> Result<(), LogError> {
    state.check_alive()?;
    if by <= state.sealed {
        return Err(LogError::Sealed { offered: by, sealed: state.sealed });
    }
    let follows = offered.seq == state.head.seq.next() && offered.epoch >= state.head.epoch;
    if !follows || offered.epoch > by {
        return Err(LogError::OutOfOrder { offered, head: state.head });
    }
    Ok(())
}

/// The segment that takes a frame of `stride` bytes at `state.end`; `None` if one is on its way.
fn place(
    shared: &Shared,
    state: &mut State,
    stride: u64,
) -> Result<Option<Arc<Segment>>, LogError> {
    if let Some(last) = state.segments.back()
        && state.end + stride <= last.bytes
    {
        return Ok(Some(last.clone()));
    }
    shared.prepare.notify_all();
    let Some(blank) = state.ready.pop_front() else {
        return match &state.unprepared {
            None => Ok(None),
            Some(error) => {
                let error = error.clone();
                state.wanted = true;
                Err(error)
            }
        };
    };
    let segment = Arc::new(Segment::begun(&blank, state.head));
    state.segments.push_back(segment.clone());
    state.end = SEGMENT_HEADER_BYTES;
    Ok(Some(segment))
}

impl Threads {
    fn handles(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        {
            let mut state = self.shared.lock();
            state.closed = true;
            self.shared.wake_all(&state);
        }
        for handle in std::mem::take(&mut *self.handles()) {
            // A hook may hold the last clone for a moment: a thread cannot wait for itself.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
