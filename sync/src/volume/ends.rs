//! The volume as replication knows it: the leader's as a [`Source`], a follower's as a [`Sink`].

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::{Builder, Piece, Snapshot, SnapshotHeader, Volume, VolumeError};
use crate::log::{Frame, LogError, LogReader, UpTo};
use crate::op::Record;
use crate::position::{ClusterId, Epoch, Lineage, Position, Seq, VolumeId};
use crate::replicate::plan::Standing;
use crate::replicate::{
    Builder as Build, CopyStart, Piece as Part, Records, Sink, SinkError, Snapshot as Copy, Source,
    SourceError,
};

impl Volume {
    /// This volume as its leader gives it to followers.
    #[must_use]
    pub fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.clone())
    }

    /// This volume as a follower lets it be written to.
    #[must_use]
    pub fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(self.clone())
    }
}

impl Source for Volume {
    fn cluster(&self) -> ClusterId {
        Volume::cluster(self).unwrap_or_default()
    }

    fn volume(&self) -> VolumeId {
        self.id()
    }

    fn lineage(&self) -> Lineage {
        Volume::lineage(self)
    }

    fn head(&self) -> Position {
        Volume::head(self)
    }

    fn first(&self) -> Seq {
        self.log().first()
    }

    fn committed(&self) -> Seq {
        self.commit().committed()
    }

    fn bytes_after(&self, seq: Seq) -> u64 {
        // Records are not counted one by one; an average over what is held is near enough for a
        // bound of gigabytes.
        let log = self.log();
        let (head, first) = (log.head().seq.0, log.first().0);
        let held = head.saturating_sub(first).saturating_add(1);
        let behind = head.saturating_sub(seq.0).min(held);
        let bytes = u128::from(log.unreleased_bytes()) * u128::from(behind);
        u64::try_from(bytes / u128::from(held.max(1))).unwrap_or(u64::MAX)
    }

    fn records(&self, after: Seq) -> Result<Box<dyn Records>, SourceError> {
        match self.log().reader(after) {
            Ok(reader) => Ok(Box::new(Reader(reader))),
            Err(error) => Err(not_read(error)),
        }
    }

    fn peer_durable(&self, volume: VolumeId, epoch: Epoch, seq: Seq) {
        self.commit().peer_durable(volume, epoch, seq);
    }

    fn snapshot(&self) -> Result<Box<dyn Copy>, SourceError> {
        let snapshot = Volume::snapshot(self);
        snapshot.map(|it| Box::new(it) as Box<dyn Copy>).map_err(failed)
    }
}

struct Reader(LogReader);

impl Records for Reader {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Vec<Frame>, SourceError>> {
        async move { self.0.next(UpTo::Appended, bytes_max).await.map_err(not_read) }.boxed()
    }
}

fn not_read(error: LogError) -> SourceError {
    match error {
        LogError::Released { oldest } => SourceError::Released { oldest },
        other => SourceError::Failed(other.to_string()),
    }
}

fn failed(error: VolumeError) -> SourceError {
    SourceError::Failed(error.to_string())
}

impl Copy for Snapshot {
    fn position(&self) -> Position {
        self.header().position
    }

    fn lineage(&self) -> Lineage {
        self.header().lineage.clone()
    }

    fn bytes_total(&self) -> u64 {
        self.header().bytes
    }

    fn next(&mut self) -> Result<Option<Part>, SourceError> {
        Ok(self.next_piece().map_err(failed)?.map(|piece| match piece {
            Piece::Rows(rows) => Part::Rows(rows),
            Piece::Data { id, offset, bytes } => Part::Data { id, offset, bytes },
        }))
    }
}

impl Sink for Volume {
    fn standing(&self) -> Standing {
        Standing {
            protocol: 0,
            service: String::new(),
            node: String::new(),
            cluster: Volume::cluster(self),
            volume: self.id(),
            lineage: Volume::lineage(self),
            head: Volume::head(self),
            durable: Volume::durable(self),
            applied: Volume::applied(self),
            building: self.building(),
            promised: self.promised(),
        }
    }

    fn durable(&self) -> Position {
        Volume::durable(self)
    }

    fn applied(&self) -> Seq {
        Volume::applied(self)
    }

    fn on_durable(&self, told: Box<dyn Fn() + Send + Sync>) {
        self.log().on_durable(Box::new(move |_| told()));
    }

    fn promised(&self) -> Epoch {
        Volume::promised(self)
    }

    fn ready(&self, bytes: u64) -> BoxFuture<'static, ()> {
        let (told, room) = oneshot::channel();
        let waiter = Box::new(move |ready| drop(told.send(ready)));
        let now = Volume::ready(self, bytes, waiter).is_some();
        async move {
            if !now {
                // A waiter that is dropped unheard belongs to a volume that ends, or whose
                // content is replaced; taking the record says so.
                let _ = room.await;
            }
        }
        .boxed()
    }

    fn receive(&self, epoch: Epoch, record: &Record) -> Result<(), SinkError> {
        take(self, epoch, record).map_err(sink("take a record"))
    }

    fn truncate_after(&self, after: Seq) -> Result<(), SinkError> {
        let epoch = Volume::lineage(self).epoch_at(after).unwrap_or_default();
        Volume::truncate_after(self, Position { epoch, seq: after })
            .map_err(sink("drop the log's diverged tail"))
    }

    fn set_aside(&self, why: &str) -> Result<(), SinkError> {
        Volume::set_aside(self, why).map(drop).map_err(sink("set the volume's content aside"))
    }

    fn build(&self, start: CopyStart) -> Result<Box<dyn Build>, SinkError> {
        let header = SnapshotHeader {
            cluster: start.cluster,
            position: start.position,
            lineage: start.lineage,
            // Tombstones older than the copy were never here.
            floor: start.position.seq,
            files: 0,
            bytes: 0,
        };
        let builder = Volume::build(self, &header).map_err(sink("begin a copy"))?;
        let last = start.position;
        Ok(Box::new(Building { volume: self.clone(), builder, last }))
    }
}

struct Building {
    volume: Volume,
    builder: Builder,
    last: Position,
}

impl Build for Building {
    fn piece(&mut self, piece: Part) -> Result<(), SinkError> {
        let piece = match piece {
            Part::Rows(rows) => Piece::Rows(rows),
            Part::Data { id, offset, bytes } => Piece::Data { id, offset, bytes },
        };
        self.builder.take(&piece).map_err(sink("take a piece of a copy"))
    }

    fn record(&mut self, epoch: Epoch, record: &Record) -> Result<(), SinkError> {
        self.builder.content_is_there().map_err(sink("make a copy's files durable"))?;
        take(&self.volume, epoch, record).map_err(sink("take a record of a copy"))?;
        self.last = record.head.position();
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        self.builder.finish(self.last).map_err(sink("finish a copy"))
    }
}

/// Takes a record of a session of `epoch`.
///
/// The session's epoch is checked against the promise each time and not only at its start: a
/// leader that was promised away goes on sending records of *older* epochs that the log would
/// otherwise still take.
fn take(volume: &Volume, epoch: Epoch, record: &Record) -> Result<(), VolumeError> {
    let promised = volume.promised();
    if epoch <= promised {
        return Err(VolumeError::Over { epoch, over: promised });
    }
    volume.receive(record)
}

fn sink(action: &'static str) -> impl FnOnce(VolumeError) -> SinkError {
    move |error| SinkError { action, why: error.to_string() }
}
