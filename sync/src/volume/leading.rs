//! Leading: making records instead of taking them.
//!
//! In two steps. [`Promotion`] has the epoch's first record in the log, so that followers can be
//! served; with [`Promotion::complete`] that record is committed and everything up to it applied.
//! Between the two nothing may be served to anybody else: a record of an older epoch that is on a
//! quorum only since this leader sent it again can still lose to a higher position, and only the
//! start of this epoch, once it is on a quorum, decides for it (Raft, section 5.4.2).

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::running::Running;
use super::{Volume, VolumeError};
use crate::image::Image;
use crate::journal::{Journal, Objects, Refused, Waiter};
use crate::log::LogError;
use crate::op::{Attributes, Change, Head, Kind, Record, Time};
use crate::position::{Epoch, FileId, Seq};
use crate::store::image;

/// One leadership of one volume. Ends when it is dropped, or by [`Leading::end`].
pub struct Leading {
    /// Every file, as of the epoch's first record.
    pub image: Image,
    /// Takes the mount's ops.
    pub journal: Arc<dyn Journal>,
    /// What the applier made of them.
    pub objects: Arc<dyn Objects>,
    leadership: Arc<Leadership>,
    volume: Volume,
}

/// A leadership whose first record is in the log. Ends when it is dropped, or by the
/// [`Ending`] of it.
pub struct Promotion {
    start: Seq,
    /// None once it is complete, and a [`Leading`] ends it.
    pending: Option<Arc<Leadership>>,
    leadership: Arc<Leadership>,
    volume: Volume,
}

/// Ends a leadership from elsewhere, also while its start is being waited for.
#[derive(Clone)]
pub struct Ending(Arc<Leadership>);

impl Ending {
    /// As [`Leading::end`].
    pub fn end(&self) {
        self.0.end();
    }
}

impl Promotion {
    /// For ending it while [`Promotion::complete`] waits.
    #[must_use]
    pub fn ending(&self) -> Ending {
        Ending(Arc::clone(&self.leadership))
    }

    /// Waits until the start is committed and everything up to it is applied, and hands out what a
    /// mount needs. Blocks for as long as that takes: in sync, until a write quorum follows.
    ///
    /// # Errors
    /// It was ended meanwhile, or the volume failed.
    pub fn complete(mut self) -> Result<Leading, VolumeError> {
        let leadership = Arc::clone(&self.leadership);
        // Whatever fails ends it, by dropping `self`.
        let image = leadership.started(self.start)?;
        self.pending = None;
        let objects = leadership.running.objects.clone();
        let volume = self.volume.clone();
        Ok(Leading { image, journal: leadership.clone(), objects, leadership, volume })
    }
}

impl Drop for Promotion {
    fn drop(&mut self) {
        if let Some(leadership) = &self.pending {
            leadership.end();
        }
    }
}

impl Leading {
    /// Goes on in `epoch`, a later one, without ending: from here on records are of that epoch.
    /// For voters that promised the old one away without electing anybody. What is committed is
    /// decided anew by the new epoch's sessions.
    ///
    /// # Errors
    /// It is over, or the log takes no record.
    pub fn renew(&self, epoch: Epoch, node: &str) -> Result<(), VolumeError> {
        self.volume.vow_leader(epoch, self.volume.id())?;
        self.leadership.renew(epoch, node)
    }

    /// Takes no op any more and acknowledges none: whatever waits is told
    /// [`Refused::Deposed`]. What is in the log stays there. Again does nothing.
    pub fn end(&self) {
        self.leadership.end();
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.leadership.end();
    }
}

/// The one who makes records. The mount keeps it alive for longer than the [`Leading`].
struct Leadership {
    running: Arc<Running>,
    /// The epoch and the next op's place; `None` when it is over. Its lock gives the order of ops,
    /// and ending takes it too, so that nothing comes into the log after the end.
    next: Mutex<Option<(Epoch, Seq)>>,
}

pub(super) fn begin(
    volume: &Volume,
    running: Arc<Running>,
    epoch: Epoch,
    node: &str,
) -> Result<Promotion, VolumeError> {
    if running.building() {
        return Err(VolumeError::Building);
    }
    if running.leads() {
        return Err(VolumeError::Leads);
    }
    let over = volume.promised().max(running.log.head().epoch);
    if epoch <= over {
        return Err(VolumeError::Over { epoch, over });
    }
    volume.accept_leader(epoch, volume.id())?;
    let head = running.log.head().seq;
    running.log.wait_durable(head)?;
    let start = head.next();
    let mut changes = vec![Change::EpochStart { node: node.to_owned() }];
    if is_rootless(&running, head)? {
        changes.push(Change::Node { id: FileId::ROOT, attributes: root(volume) });
    }
    running.commit.begin(epoch, start);
    running.commit.on_step(Box::new(running.log.applier_allowance()));
    running.set_leads(true);
    let leadership = Arc::new(Leadership { running, next: Mutex::new(Some((epoch, start))) });
    let promotion = Promotion {
        start,
        pending: Some(Arc::clone(&leadership)),
        leadership: leadership.clone(),
        volume: volume.clone(),
    };
    leadership.append(now(), changes, Bytes::new())?;
    Ok(promotion)
}

/// Whether nobody ever made the root directory: the first leader's first record does. It may be
/// in the log and not applied yet.
fn is_rootless(running: &Running, head: Seq) -> Result<bool, VolumeError> {
    // Under one lock, so that no record is applied between the two questions.
    let live = running.live();
    Ok(live.node(FileId::ROOT)?.is_none() && running.progress.applied() >= head)
}

impl Leadership {
    /// Waits until the start, at `seq`, is committed and applied, and reads the namespace.
    fn started(&self, seq: Seq) -> Result<Image, VolumeError> {
        let (told, committed) = mpsc::channel();
        self.when_committed(
            seq,
            Box::new(move |outcome| {
                // Nobody is left to be told if we gave up.
                let _ = told.send(outcome);
            }),
        );
        committed.recv().map_err(|_| VolumeError::Closed)??;
        self.running.progress.wait_applied(seq)?;
        let reader = self.running.reader()?;
        let (at, deltas) = self.running.live().view(&reader)?;
        Ok(image::read(&reader, &deltas, at.position)?)
    }

    fn renew(&self, epoch: Epoch, node: &str) -> Result<(), VolumeError> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let (current, seq) = next.ok_or(VolumeError::Closed)?;
        if epoch <= current {
            return Err(VolumeError::Over { epoch, over: current });
        }
        let head = Head {
            epoch,
            seq,
            at: now(),
            changes: vec![Change::EpochStart { node: node.to_owned() }],
        };
        // With the lock held: no op of the old epoch comes after the start of the new one, and
        // whatever was not committed yet is, at the earliest, with that start.
        self.running.commit.begin(epoch, seq);
        self.running.append(epoch, &Record { head, payload: Bytes::new() })?;
        *next = Some((epoch, seq.next()));
        Ok(())
    }

    fn end(&self) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.take().is_some() {
            drop(next);
            self.running.set_leads(false);
            self.running.commit.close(Refused::Deposed);
            self.running.progress.allow(None);
            self.running.progress.turn_away();
        }
    }
}

impl Journal for Leadership {
    fn append(&self, at: Time, changes: Vec<Change>, payload: Bytes) -> Result<Seq, Refused> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let (epoch, seq) = next.ok_or(Refused::Deposed)?;
        let record = Record { head: Head { epoch, seq, at, changes }, payload };
        self.running.append(epoch, &record).map_err(refused)?;
        *next = Some((epoch, seq.next()));
        Ok(seq)
    }

    fn ready(&self, bytes: u64, waiter: Waiter) -> Option<Waiter> {
        self.running.ready(bytes, waiter)
    }

    fn when_committed(&self, seq: Seq, waiter: Waiter) {
        self.running.commit.when_committed(seq, waiter);
    }

    fn applied(&self) -> Seq {
        self.running.progress.applied()
    }

    fn on_applied(&self, told: Box<dyn Fn(Seq) + Send + Sync>) {
        self.running.progress.on_applied(told);
    }
}

/// What the mount may be told of an append that was refused.
fn refused(error: VolumeError) -> Refused {
    match error {
        VolumeError::Log(LogError::NoSpace) => Refused::NoSpace,
        VolumeError::Log(LogError::Sealed { .. }) | VolumeError::Closed => Refused::Deposed,
        other => Refused::Failed(other.to_string()),
    }
}

/// A new volume's root directory.
fn root(volume: &Volume) -> Attributes {
    let owner = volume.inner.options.root;
    let now = now();
    Attributes {
        kind: Kind::Directory,
        mode: owner.mode & 0o7777,
        uid: owner.uid,
        gid: owner.gid,
        nlink: 2,
        size: 0,
        atime: now,
        mtime: now,
        ctime: now,
    }
}

fn now() -> Time {
    // A clock before 1970 is wrong by more than this loses.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() }
}
