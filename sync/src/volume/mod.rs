//! One replica's state directory, opened and locked: its log, its objects, and who it is.
//!
//! Called by the replica (follow, lead, copy) and by the offline tools. Leader and follower do
//! the same thing here: records go into the log, and the applier brings the objects to whatever
//! the log holds durably. Leading only adds a [`Journal`](crate::journal::Journal) that makes the
//! records.
//!
//! The hazard is doing any of it in another order: log before data, data before index, index
//! before the log is released, and a vow before whatever rests on it.

mod applier;
mod aside;
mod builder;
mod catchup;
mod changes;
mod checkpointer;
mod directory;
mod error;
mod leading;
mod losing;
mod options;
mod progress;
mod running;
mod snapshot;
mod switch;
mod verify;
mod vows;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

pub use aside::Aside;
pub use builder::Builder;
pub use catchup::Catchup;
pub use changes::{Ask, BlockHash, Changes, ChangesHeader, Differing};
pub use directory::Directory;
pub use error::VolumeError;
pub use leading::{Ending, Leading, Promotion};
pub use options::{RootOwner, VolumeOptions};
pub use progress::Allowance;
pub use snapshot::{Piece, Snapshot, SnapshotHeader};
pub use verify::{ChunkHash, ChunkWalk, Hashed, Mended};

use crate::commit::{Commit, Rule};
use crate::image::Image;
use crate::journal::{Objects, Refused, Waiter};
use crate::log::Log;
use crate::op::{Change, Record};
use crate::position::{ClusterId, Epoch, Lineage, Position, Seq, VolumeId};
use crate::quarantine::Quarantine;
use crate::store::index::Checkpoint;
use crate::store::{image, sound};
use crate::vow::Vow;
use running::Running;
pub(crate) use switch::step;

/// How long closing waits for the applier.
const CLOSE_WAIT: Duration = Duration::from_secs(20);

/// One replica's volume; clones are the same volume. When the last one is dropped its threads
/// end where they are, as after a kill; [`Volume::close`] ends them with a checkpoint.
#[derive(Clone)]
pub struct Volume {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Arc<Directory>,
    options: VolumeOptions,
    commit: Arc<Commit>,
    vow: Mutex<Vow>,
    /// See [`Volume::apply_committed_only`].
    committed_only: AtomicBool,
    /// Replaced when the content is: a copy begins, or what was there is set aside.
    running: RwLock<Arc<Running>>,
    /// Held by whatever replaces the content or begins to lead.
    turn: Mutex<()>,
    /// Whether the volume is between two positions, where it has none to promise with. Held
    /// through a promise, so that no switch begins beneath one.
    switching: Mutex<bool>,
}

impl Volume {
    /// Opens the volume in `state_dir`, making a blank one if the directory is empty or not
    /// there, and begins to apply what the log holds.
    ///
    /// # Errors
    /// Another process has it open, it was written by a newer format, it is damaged, or the disk
    /// said no. Nothing was changed, but for a repaired torn tail of the log.
    pub fn open(state_dir: &Path, options: VolumeOptions) -> Result<Volume, VolumeError> {
        let directory = Arc::new(Directory::lock(state_dir)?);
        let vow = directory.load_vow()?;
        switch::finish(&directory, &options)?;
        // Half of what a kill left in quarantine are second names of objects.
        Quarantine::open(directory.path(), options.quarantine_bytes_max)?;
        let commit = Arc::new(Commit::new(Rule::Local));
        let running =
            Running::open(&directory, &options, &commit, vow.promised, options.committed_only)?;
        Ok(Volume {
            inner: Arc::new(Inner {
                directory,
                committed_only: AtomicBool::new(options.committed_only),
                options,
                commit,
                vow: Mutex::new(vow),
                running: RwLock::new(running),
                turn: Mutex::new(()),
                switching: Mutex::new(false),
            }),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        self.inner.directory.path()
    }

    /// Which copy this is. It changes when the content is thrown away.
    #[must_use]
    pub fn id(&self) -> VolumeId {
        self.vow().volume
    }

    /// The cluster that it belongs to; `None` is blank.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.vow().cluster
    }

    /// Makes a blank volume belong to `cluster`; again for the same cluster changes nothing.
    ///
    /// # Errors
    /// It belongs to another one.
    pub fn found(&self, cluster: ClusterId) -> Result<(), VolumeError> {
        let mut vow = self.vow();
        match vow.cluster {
            Some(ours) if ours == cluster => Ok(()),
            Some(ours) => Err(VolumeError::OtherCluster { ours, theirs: cluster }),
            None => self.store_vow(&mut vow, |vow| vow.cluster = Some(cluster)),
        }
    }

    /// Makes it belong to no cluster: it is to found one.
    pub(crate) fn forget_cluster(&self) -> Result<(), VolumeError> {
        let mut vow = self.vow();
        self.store_vow(&mut vow, |vow| vow.cluster = None)
    }

    /// The newest cluster config that this replica saw, as it was given.
    #[must_use]
    pub fn config(&self) -> Option<Vec<u8>> {
        self.vow().config.clone()
    }

    /// Remembers a cluster config; durable once this returns.
    ///
    /// # Errors
    /// What the disk said.
    pub fn remember_config(&self, config: &[u8]) -> Result<(), VolumeError> {
        let mut vow = self.vow();
        if vow.config.as_deref() == Some(config) {
            return Ok(());
        }
        self.store_vow(&mut vow, |vow| vow.config = Some(config.to_vec()))
    }

    /// Which epochs wrote the log, up to its head.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.running().lineage()
    }

    /// The last record in the log, durable or not.
    #[must_use]
    pub fn head(&self) -> Position {
        self.running().log.head()
    }

    /// The last durable record.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.running().log.durable()
    }

    /// The last op whose outcome the objects hold.
    #[must_use]
    pub fn applied(&self) -> Seq {
        self.running().progress.applied()
    }

    /// Beyond this no op has left a trace in the objects; at least what is
    /// [applied](Volume::applied). A tail up to here cannot just be cut off the log.
    #[must_use]
    pub fn touched(&self) -> Seq {
        self.running().touched()
    }

    /// Blocks until the objects hold `seq`.
    ///
    /// # Errors
    /// The volume failed or was closed before.
    pub fn wait_applied(&self, seq: Seq) -> Result<(), VolumeError> {
        self.running().progress.wait_applied(seq)
    }

    /// Whether the content is an incomplete copy: not to be promoted, not to be voted for.
    #[must_use]
    pub fn building(&self) -> bool {
        self.running().building()
    }

    /// What keeps it from working as it should, for people: a full disk that is being waited for,
    /// or a failure that only a restart or a repair ends.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.running().progress.trouble()
    }

    /// The log, of the content of now: a full copy or a setting aside begins another.
    #[must_use]
    pub fn log(&self) -> Log {
        self.running().log.clone()
    }

    /// What is committed, and who waits for it.
    #[must_use]
    pub fn commit(&self) -> &Arc<Commit> {
        &self.inner.commit
    }

    /// The objects of the content of now.
    #[must_use]
    pub fn objects(&self) -> Arc<dyn Objects> {
        self.running().objects.clone()
    }

    /// Takes a record from the leader of epoch `by`, its own or an older one: into the log, and from there, once durable, to the
    /// objects. One caller at a time. Does not wait for a disk; see [`Volume::ready`].
    ///
    /// # Errors
    /// It is not the next record, `by` was promised away, it is malformed, or the log
    /// takes no more. Nothing was taken.
    pub fn receive(&self, by: Epoch, record: &Record) -> Result<(), VolumeError> {
        sound::record(record).map_err(VolumeError::Unsound)?;
        let running = self.running();
        if running.leads() {
            return Err(VolumeError::Leads);
        }
        let starts = matches!(record.head.changes.first(), Some(Change::EpochStart { .. }));
        let (theirs, ours) = (record.head.epoch, running.log.head().epoch);
        if theirs > ours && !starts {
            let what = format!("epoch {theirs} follows {ours} without a record that starts it");
            return Err(VolumeError::Unsound(what));
        }
        if theirs == ours && starts {
            return Err(VolumeError::Unsound(format!("epoch {theirs} starts a second time")));
        }
        running.append(by, record)
    }

    /// Whether `bytes` more may come without letting the unapplied run away; as
    /// [`Journal::ready`](crate::journal::Journal::ready).
    pub fn ready(&self, bytes: u64, waiter: Waiter) -> Option<Waiter> {
        self.running().ready(bytes, waiter)
    }

    /// Bytes appended to the log since it was opened, as [`Volume::ready`] counts them.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.running().progress.appended_bytes()
    }

    /// Bounds what this leader's service may append from here on (`None`: nothing does), and lets
    /// those of its writes in that fit. The end of the leadership ends the bound. Writes that were
    /// let in before are not called back: at most one for each thread of the mount.
    pub fn allow_appends(&self, allowance: Option<Allowance>) {
        let running = self.running();
        running.progress.allow(allowance);
        // The leadership may end meanwhile, which takes `leads` away first and then the bound: either
        // that sees ours, or we see that it is over. A bound that stayed would stop the intake.
        if !running.leads() {
            running.progress.allow(None);
        }
        running.let_in();
    }

    /// Whether a write waits for [`Volume::allow_appends`] to allow more.
    #[must_use]
    pub fn wants_to_append(&self) -> bool {
        self.running().progress.wants_more()
    }

    /// Begins `epoch`: records its start, waits until that is committed and, with everything before
    /// it, applied, and hands out what a mount needs. Blocks.
    ///
    /// # Errors
    /// The volume is blank, incomplete or damaged, or has promised the epoch away.
    pub fn lead(&self, epoch: Epoch, node: &str) -> Result<Leading, VolumeError> {
        self.promote(epoch, node)?.complete()
    }

    /// The first step of [`Volume::lead`]: begins `epoch`, with its first record in the log.
    ///
    /// # Errors
    /// As [`Volume::lead`].
    pub fn promote(&self, epoch: Epoch, node: &str) -> Result<Promotion, VolumeError> {
        let _turn = self.turn();
        if self.cluster().is_none() {
            return Err(VolumeError::Blank);
        }
        // It was to bring this volume to another one's state; now this one's is what counts.
        self.inner.directory.discard(switch::STAGING)?;
        leading::begin(self, self.running(), epoch, node)
    }

    /// Whether objects are touched only with committed records (sync), or with all that are
    /// durable here.
    pub fn apply_committed_only(&self, only: bool) {
        if self.inner.committed_only.swap(only, Ordering::AcqRel) != only {
            self.running().limit_applier(only);
        }
    }

    /// The leader says that everything up to `seq` is committed, of a log that ours is known to be
    /// a part of.
    pub fn committed_by_leader(&self, seq: Seq) {
        self.running().log.allow_applier(seq);
    }

    /// The namespace now, with every name checked.
    ///
    /// # Errors
    /// What SQLite said, or a tree that is not whole.
    pub fn image(&self) -> Result<Image, VolumeError> {
        let running = self.running();
        let reader = running.reader()?;
        let (at, deltas) = running.live().view(&reader)?;
        Ok(image::read(&reader, &deltas, at.position)?)
    }

    /// A checkpoint now: what is applied is in the index and need not be replayed.
    ///
    /// # Errors
    /// What the disk said; it is tried again in the background.
    pub fn checkpoint(&self) -> Result<Position, VolumeError> {
        Ok(self.running().checkpoint()?.position)
    }

    /// Begins to read everything out for another replica, while this one goes on.
    ///
    /// # Errors
    /// This one is blank or incomplete itself, or the disk said no.
    pub fn snapshot(&self) -> Result<Snapshot, VolumeError> {
        let cluster = self.cluster().ok_or(VolumeError::Blank)?;
        Snapshot::begin(self.running(), cluster)
    }

    /// Begins to read out what changed after `shared`, for another replica that has the same up to
    /// there; `whole`: with all names and attributes, changed or not. If less than that is applied
    /// here, it is what changed after the checkpoint, as [`ChangesHeader::since`] says.
    ///
    /// # Errors
    /// This one is blank or incomplete itself, or the disk said no.
    pub fn changes(&self, shared: Seq, whole: bool) -> Result<Changes, VolumeError> {
        let cluster = self.cluster().ok_or(VolumeError::Blank)?;
        Changes::begin(self.running(), cluster, shared, whole)
    }

    /// Whether a delta since `base` must bring all names and attributes, as deletions since then
    /// may have left no trace here. Applies what the log holds first. Blocks.
    ///
    /// # Errors
    /// What the disk said.
    pub fn needs_whole(&self, base: Position) -> Result<bool, VolumeError> {
        catchup::needs_whole(self, base)
    }

    /// Begins to take what differs from another volume; `shared` is the last op in common. This one
    /// stays as it is until [`Catchup::finish`].
    ///
    /// # Errors
    /// This one leads, is incomplete or of another cluster, or the disk said no.
    pub fn catch_up(
        &self,
        header: &ChangesHeader,
        shared: Position,
    ) -> Result<Catchup, VolumeError> {
        let _turn = self.turn();
        catchup::begin(self, header, shared)
    }

    /// Throws away what is here of a delta that nobody goes on with.
    ///
    /// # Errors
    /// What the disk said.
    pub fn forget_delta(&self) -> Result<(), VolumeError> {
        let _turn = self.turn();
        self.inner.directory.discard(switch::STAGING)
    }

    /// Begins to take another replica's content in place of ours, which is thrown away.
    ///
    /// That is refused unless nothing is lost by it: ours must be blank, an incomplete copy, or a
    /// prefix of what comes. Anything else is to be [set aside](Volume::set_aside) first.
    ///
    /// # Errors
    /// See above; or it is of another cluster, or the disk said no.
    pub fn build(&self, header: &SnapshotHeader) -> Result<Builder, VolumeError> {
        let _turn = self.turn();
        builder::begin(self, header)
    }

    /// Moves the whole content into `quarantine/` as plain files with a manifest, and leaves a
    /// blank volume with a new id. For content that lost: `why` says against what.
    ///
    /// # Errors
    /// What the disk said; the content is still here, or (after the copy) it is incomplete.
    pub fn set_aside(&self, why: &str) -> Result<Aside, VolumeError> {
        let _turn = self.turn();
        aside::set_aside(self, why)
    }

    /// Throws away the log's records after `ancestor`, none of which may have been applied. Their
    /// bytes are kept in `quarantine/`.
    ///
    /// # Errors
    /// Some were applied: then the content is to be [set aside](Volume::set_aside).
    pub fn truncate_after(&self, ancestor: Position) -> Result<(), VolumeError> {
        let _turn = self.turn();
        aside::truncate_after(self, ancestor)
    }

    /// Applies what is durable, writes a checkpoint, and ends. Other clones find it closed. Waits
    /// for a full disk only so long: the log keeps what the objects lack.
    ///
    /// # Errors
    /// What the disk said; what is durable in the log is there still.
    pub fn close(self) -> Result<(), VolumeError> {
        let _turn = self.turn();
        let running = self.running();
        self.inner.commit.close(Refused::Deposed);
        let settled = running.settle_for(CLOSE_WAIT).and_then(|()| running.checkpoint());
        running.stop();
        settled.map(drop)
    }

    /// The objects' files, for copying them out whole.
    pub(crate) fn object_files(&self) -> Arc<crate::store::objects::ObjectFiles> {
        Arc::clone(&self.running().objects)
    }

    fn running(&self) -> Arc<Running> {
        Arc::clone(&self.inner.running.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.inner.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vow(&self) -> MutexGuard<'_, Vow> {
        self.inner.vow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn switching(&self) -> MutexGuard<'_, bool> {
        self.inner.switching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on there is no position to promise with, until the switch is done. A leader that
    /// was promised away moves nothing.
    fn begin_switch(&self, by: Epoch) -> Result<(), VolumeError> {
        let mut switching = self.switching();
        let over = self.promised();
        if over >= by {
            return Err(VolumeError::Over { epoch: by, over });
        }
        switch::decide(&self.inner.directory)?;
        *switching = true;
        Ok(())
    }

    /// Carries a decided switch out. The running volume is stopped.
    fn switch(&self) -> Result<(), VolumeError> {
        let inner = &self.inner;
        switch::finish(&inner.directory, &inner.options)?;
        let promised = self.promised();
        let only = inner.committed_only.load(Ordering::Acquire);
        let (directory, options, commit) = (&inner.directory, &inner.options, &inner.commit);
        let next = Running::open(directory, options, commit, promised, only)?;
        self.replace(&next);
        *self.switching() = false;
        Ok(())
    }

    /// Throws the content away and begins again at `start`, as a new copy.
    ///
    /// Killed at any point it is found as it was, or as an incomplete copy, or as it should be:
    /// the mark of an incomplete copy is durable before anything goes.
    fn begin_again(
        &self,
        start: &Checkpoint,
        cluster: Option<ClusterId>,
    ) -> Result<Arc<Running>, VolumeError> {
        let running = self.running();
        running.stop();
        running.mark_building()?;
        // Before its directory goes: others may hold this log for a while yet.
        running.log.close();
        // What this copy acknowledged is gone with it, so it must not be taken for the same one.
        let promised = {
            let mut vow = self.vow();
            self.store_vow(&mut vow, |vow| {
                vow.volume = directory::new_volume_id();
                vow.cluster = cluster;
            })?;
            vow.promised
        };
        self.inner.directory.discard("log")?;
        self.inner.directory.discard("objects")?;
        self.inner.directory.discard(switch::STAGING)?;
        running.clear_index(start)?;
        let inner = &self.inner;
        let only = inner.committed_only.load(Ordering::Acquire);
        let (directory, options, commit) = (&inner.directory, &inner.options, &inner.commit);
        let next = Running::open(directory, options, commit, promised, only)?;
        self.replace(&next);
        Ok(next)
    }

    /// Goes on with the log of a stopped one, from the checkpoint.
    fn reopen(&self, stopped: &Running) -> Result<(), VolumeError> {
        self.replace(&Running::again(stopped)?);
        Ok(())
    }

    fn replace(&self, next: &Arc<Running>) {
        let mut running = self.inner.running.write().unwrap_or_else(PoisonError::into_inner);
        *running = Arc::clone(next);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.running.get_mut().unwrap_or_else(PoisonError::into_inner).stop();
    }
}
