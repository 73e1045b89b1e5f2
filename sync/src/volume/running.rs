//! An open log, its objects and index, and the two threads between them.
//!
//! A volume has one of these at a time. It is stopped and another opened when the content is
//! replaced; whoever still holds the old one finds it closed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::checkpointer::Ledger;
use super::progress::Progress;
use super::{Directory, VolumeError, VolumeOptions, applier, checkpointer};
use crate::commit::Commit;
use crate::journal::{Refused, Waiter};
use crate::log::{Log, LogError, Stop, UpTo};
use crate::op::{Change, Record};
use crate::position::{Epoch, Lineage, Seq};
use crate::store::index::{self, Checkpoint, Index};
use crate::store::live::Live;
use crate::store::objects::ObjectFiles;

/// What a record costs besides its payload, for back-pressure; about what it takes in memory.
const RECORD_BYTES: u64 = 256;

/// Bytes of log that are read at a time.
const READ_BYTES: usize = 1 << 20;

pub(super) struct Running {
    pub(super) log: Log,
    pub(super) objects: Arc<ObjectFiles>,
    pub(super) progress: Progress,
    pub(super) options: VolumeOptions,
    pub(super) commit: Arc<Commit>,
    pub(super) stop: Stop,
    index_path: PathBuf,
    live: Mutex<Live>,
    /// After `live`, so that the connection that may write is the last to be closed: it then takes
    /// SQLite's write-ahead log in, and `meta.db` is all there is.
    pub(super) ledger: Mutex<Ledger>,
    /// The log's, up to its head, while the index and `live` have theirs.
    lineage: Mutex<Lineage>,
    leads: AtomicBool,
    /// What was in the log when it was opened: whoever had it open before may have applied any of
    /// it since the checkpoint.
    recovered: Seq,
    gate: Mutex<Gate>,
    opened: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Last to go: nobody else may open the directory while any of this can write to it.
    directory: Arc<Directory>,
}

/// What the threads wait for besides the log.
#[derive(Default)]
pub(super) struct Gate {
    /// An incomplete copy: records wait in the log until its content is there.
    pub(super) holds: bool,
    pub(super) checkpoint_due: bool,
    pub(super) stopped: bool,
}

/// What it is made of.
struct Parts {
    log: Log,
    objects: Arc<ObjectFiles>,
    index: Index,
    live: Live,
    lineage: Lineage,
    recovered: Seq,
}

impl Running {
    /// Opens and recovers what is in `directory`, and starts the threads.
    pub(super) fn open(
        directory: &Arc<Directory>,
        options: &VolumeOptions,
        commit: &Arc<Commit>,
        promised: Epoch,
        committed_only: bool,
    ) -> Result<Arc<Running>, VolumeError> {
        directory.remove_rubbish()?;
        // The index is first: it is what a newer format is refused by.
        let index = Index::open(&directory.join("meta.db"))?;
        let live = Live::new(index.reader()?)?;
        let floor = live.at.position;
        let log = Log::open(&directory.join("log"), options.log.clone(), floor)?;
        if promised > Epoch(0) {
            log.seal(promised)?;
        }
        if committed_only {
            // What the checkpoint covers was committed; of the rest a leader has to say so.
            log.limit_applier(Some(floor.seq));
        }
        let objects =
            Arc::new(ObjectFiles::open(&directory.join("objects"), options.descriptors_max)?);
        let lineage = read_lineage(&log, &live.at)?;
        let told = Arc::clone(commit);
        told.local_durable(log.durable().seq);
        log.on_durable(Box::new(move |durable| told.local_durable(durable.seq)));
        let recovered = log.head().seq;
        let parts = Parts { log, objects, index, live, lineage, recovered };
        Running::start(parts, directory, options, commit)
    }

    /// Goes on with the log of a stopped one, from the checkpoint.
    pub(super) fn again(stopped: &Running) -> Result<Arc<Running>, VolumeError> {
        let index = Index::open(&stopped.index_path)?;
        let live = Live::new(index.reader()?)?;
        let (log, objects) = (stopped.log.clone(), Arc::clone(&stopped.objects));
        let (lineage, recovered) = (stopped.lineage(), stopped.touched());
        let parts = Parts { log, objects, index, live, lineage, recovered };
        Running::start(parts, &stopped.directory, &stopped.options, &stopped.commit)
    }

    fn start(
        parts: Parts,
        directory: &Arc<Directory>,
        options: &VolumeOptions,
        commit: &Arc<Commit>,
    ) -> Result<Arc<Running>, VolumeError> {
        let Parts { log, objects, index, live, lineage, recovered } = parts;
        let applied = live.at.position.seq;
        let holds = live.at.building;
        let running = Arc::new(Running {
            progress: Progress::new(applied, log.head().seq),
            options: options.clone(),
            commit: Arc::clone(commit),
            stop: Stop::new(&log),
            index_path: index.path().to_owned(),
            live: Mutex::new(live),
            ledger: Mutex::new(Ledger::new(index)?),
            lineage: Mutex::new(lineage),
            leads: AtomicBool::new(false),
            recovered,
            gate: Mutex::new(Gate { holds, ..Gate::default() }),
            opened: Condvar::new(),
            threads: Mutex::new(Vec::new()),
            directory: Arc::clone(directory),
            log,
            objects,
        });
        let spawned = running
            .spawn("applier", applier::run)
            .and_then(|()| running.spawn("checkpointer", checkpointer::run));
        if spawned.is_err() {
            running.stop();
        }
        spawned.map(|()| running)
    }

    /// A thread that panics fails the volume: others wait for what it does.
    fn spawn(self: &Arc<Self>, name: &'static str, run: fn(&Running)) -> Result<(), VolumeError> {
        let running = Arc::clone(self);
        let body = move || {
            if catch_unwind(AssertUnwindSafe(|| run(&running))).is_err() {
                running.fail(&format!("the {name} panicked"));
            }
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(VolumeError::on("start a thread for", name))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lineage(&self) -> Lineage {
        self.lineage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_lineage(&self, lineage: Lineage) {
        *self.lineage.lock().unwrap_or_else(PoisonError::into_inner) = lineage;
    }

    /// Beyond this no op has left a trace in the objects. After a restart that is more than what
    /// is applied again so far: the objects still have what the process before applied.
    pub(super) fn touched(&self) -> Seq {
        self.progress.applied().max(self.recovered)
    }

    pub(super) fn building(&self) -> bool {
        self.live().at.building
    }

    pub(super) fn leads(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    pub(super) fn set_leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::Release);
    }

    pub(super) fn reader(&self) -> Result<Connection, VolumeError> {
        Ok(index::reader(&self.index_path)?)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a record that the leader of `by` made or hands over into the log, and counts it. One
    /// caller at a time.
    pub(super) fn append(&self, by: Epoch, record: &Record) -> Result<(), VolumeError> {
        self.progress.check()?;
        // Counted first, as it may be applied before we are back.
        let bytes = bytes_of(record);
        self.progress.appended(bytes);
        if let Err(error) = self.log.append_by(by, record) {
            self.progress.take_back(bytes);
            return Err(error.into());
        }
        if let Some(Change::EpochStart { .. }) = record.head.changes.first() {
            let mut lineage = self.lineage.lock().unwrap_or_else(PoisonError::into_inner);
            *lineage = lineage.extended(record.head.epoch, record.head.seq);
        }
        Ok(())
    }

    /// See [`Journal::ready`](crate::journal::Journal::ready).
    pub(super) fn ready(&self, bytes: u64, waiter: Waiter) -> Option<Waiter> {
        let log_full = self.log_full();
        if log_full {
            self.request_checkpoint();
        }
        let max = self.options.unapplied_bytes_max;
        let back = self.progress.room_for(bytes, max, log_full, waiter);
        // Room may have come between the question and the parking, with nobody to tell it.
        if back.is_none() && !self.log_full() {
            self.progress.let_in(max);
        }
        back
    }

    pub(super) fn log_full(&self) -> bool {
        self.log.unreleased_bytes() > self.options.log_bytes_max
    }

    /// Lets waiting writers in if the log has room as well.
    pub(super) fn let_in(&self) {
        if !self.log_full() {
            self.progress.let_in(self.options.unapplied_bytes_max);
        }
    }

    /// Waits until what is in the log is durable and in the objects. An incomplete copy has
    /// nothing to wait for.
    pub(super) fn settle(&self) -> Result<(), VolumeError> {
        if self.gate().holds {
            return Ok(());
        }
        let head = self.log.head().seq;
        self.log.wait_durable(head)?;
        self.progress.wait_applied(head)
    }

    /// Waits until what is in the log is durable, and what may be applied of it is in the objects;
    /// for the latter no longer than that.
    pub(super) fn settle_for(&self, longest: Duration) -> Result<(), VolumeError> {
        if self.gate().holds {
            return Ok(());
        }
        self.log.wait_durable(self.log.head().seq)?;
        self.progress.wait_applied_for(self.log.applicable(), longest)
    }

    /// See [`Volume::apply_committed_only`](super::Volume::apply_committed_only).
    pub(super) fn limit_applier(&self, committed_only: bool) {
        // The applier may be in the middle of anything that is durable now.
        self.log.limit_applier(committed_only.then(|| self.log.durable().seq));
    }

    pub(super) fn request_checkpoint(&self) {
        self.gate().checkpoint_due = true;
        self.opened.notify_all();
    }

    /// Lets the applier begin, once an incomplete copy has its content.
    pub(super) fn release_applier(&self) {
        self.gate().holds = false;
        self.opened.notify_all();
    }

    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits on the gate, for at most `longest`.
    pub(super) fn wait<'a>(
        &self,
        gate: MutexGuard<'a, Gate>,
        longest: Duration,
    ) -> MutexGuard<'a, Gate> {
        self.opened.wait_timeout(gate, longest).unwrap_or_else(PoisonError::into_inner).0
    }

    /// After this no object and no row changes any more, and the log takes nothing.
    ///
    /// It was durable before it was applied, so nothing is lost by stopping anywhere.
    pub(super) fn fail(&self, why: &str) {
        tracing::error!("the volume failed: {why}");
        self.progress.fail(why);
        self.commit.close(Refused::Failed(why.to_owned()));
    }

    /// Ends the threads and waits for them. Again does nothing.
    pub(super) fn stop(&self) {
        self.stop.stop();
        self.progress.stop();
        self.gate().stopped = true;
        self.opened.notify_all();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the volume had panicked");
            }
        }
    }

    /// Durably marks the content as incomplete, before it goes. Threads are stopped.
    pub(super) fn mark_building(&self) -> Result<(), VolumeError> {
        let mut ledger = self.ledger();
        let at = Checkpoint { building: true, ..ledger.index.checkpoint()? };
        Ok(ledger.index.set_checkpoint(&at)?)
    }

    /// Empties the index. Threads are stopped.
    pub(super) fn clear_index(&self, start: &Checkpoint) -> Result<(), VolumeError> {
        Ok(self.ledger().index.clear(start)?)
    }
}

/// What a record counts for in back-pressure.
pub(super) fn bytes_of(record: &Record) -> u64 {
    RECORD_BYTES + record.payload.len() as u64
}

/// The checkpoint's lineage, and the epochs that begin in the log after it.
fn read_lineage(log: &Log, at: &Checkpoint) -> Result<Lineage, LogError> {
    let mut lineage = at.lineage.clone();
    let mut reader = log.reader(at.position.seq)?;
    let stop = Stop::new(log);
    let mut last = at.position.seq;
    while last < log.head().seq {
        let frames = reader.next_blocking(UpTo::Appended, READ_BYTES, &stop)?;
        for frame in &frames {
            last = frame.head.seq;
            if let Some(Change::EpochStart { .. }) = frame.head.changes.first() {
                lineage = lineage.extended(frame.head.epoch, frame.head.seq);
            }
        }
    }
    Ok(lineage)
}
