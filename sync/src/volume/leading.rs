//! Leading: making records instead of taking them.

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
}

impl Leading {
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
    epoch: Epoch,
    /// The next op's place; `None` when it is over. Its lock gives the order of ops, and ending
    /// takes it too, so that nothing comes into the log after the end.
    next: Mutex<Option<Seq>>,
}

pub(super) fn begin(
    volume: &Volume,
    running: Arc<Running>,
    epoch: Epoch,
    node: &str,
) -> Result<Leading, VolumeError> {
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
    running.settle()?;
    let start = running.log.head().seq.next();
    let mut changes = vec![Change::EpochStart { node: node.to_owned() }];
    if running.live().node(FileId::ROOT)?.is_none() {
        changes.push(Change::Node { id: FileId::ROOT, attributes: root(volume) });
    }
    running.commit.begin(epoch, start);
    running.set_leads(true);
    let leadership = Arc::new(Leadership { running, epoch, next: Mutex::new(Some(start)) });
    // From here on whatever fails ends it.
    let image = match leadership.start(changes) {
        Ok(image) => image,
        Err(error) => {
            leadership.end();
            return Err(error);
        }
    };
    let objects = leadership.running.objects.clone();
    Ok(Leading { image, journal: leadership.clone(), objects, leadership })
}

impl Leadership {
    /// Records the start, waits until it is committed and applied, and reads the namespace.
    fn start(&self, changes: Vec<Change>) -> Result<Image, VolumeError> {
        let seq = self.append(now(), changes, Bytes::new())?;
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

    fn end(&self) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.take().is_some() {
            drop(next);
            self.running.set_leads(false);
            self.running.commit.close(Refused::Deposed);
            self.running.progress.turn_away();
        }
    }
}

impl Journal for Leadership {
    fn append(&self, at: Time, changes: Vec<Change>, payload: Bytes) -> Result<Seq, Refused> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = next.ok_or(Refused::Deposed)?;
        let record = Record { head: Head { epoch: self.epoch, seq, at, changes }, payload };
        self.running.append(self.epoch, &record).map_err(refused)?;
        *next = Some(seq.next());
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
