//! The volume as replication sees it.

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::ends::{Builder, Records, Sink, SinkError, Snapshot, Source, SourceError};
use super::plan::Standing;
use crate::log::{Frame, LogError, LogReader, UpTo};
use crate::op::Record;
use crate::position::{ClusterId, Epoch, Lineage, Position, Seq, VolumeId};
use crate::volume::{self, Piece, SnapshotHeader, Volume, VolumeError};

impl Source for Volume {
    fn cluster(&self) -> Option<ClusterId> {
        Volume::cluster(self)
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
        self.log().bytes_after(seq)
    }

    fn records(&self, after: Seq) -> Result<Box<dyn Records>, SourceError> {
        Ok(Box::new(self.log().reader(after)?))
    }

    fn peer_durable(&self, volume: VolumeId, epoch: Epoch, seq: Seq) {
        self.commit().peer_durable(volume, epoch, seq);
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, SourceError> {
        let snapshot = Volume::snapshot(self).map_err(unreadable)?;
        Ok(Box::new(snapshot))
    }
}

impl Records for LogReader {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Vec<Frame>, SourceError>> {
        Box::pin(async move { Ok(LogReader::next(self, UpTo::Appended, bytes_max).await?) })
    }
}

impl Snapshot for volume::Snapshot {
    fn header(&self) -> SnapshotHeader {
        volume::Snapshot::header(self).clone()
    }

    fn next(&mut self) -> Result<Option<Piece>, SourceError> {
        self.next_piece().map_err(unreadable)
    }

    fn through(&self) -> Position {
        volume::Snapshot::through(self)
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
            applied: self.touched(),
            building: self.building(),
            promised: Volume::promised(self),
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
        let waiter = Box::new(move |_| {
            // Whoever waited may have gone.
            let _ = told.send(());
        });
        let ready = Volume::ready(self, bytes, waiter).is_some();
        Box::pin(async move {
            if !ready {
                // A waiter that is dropped uncalled is a volume that takes nothing: the next
                // record is told so.
                let _ = room.await;
            }
        })
    }

    fn receive(&self, epoch: Epoch, record: &Record) -> Result<(), SinkError> {
        Volume::receive(self, epoch, record).map_err(refused("take a record"))
    }

    fn committed(&self, seq: Seq) {
        Volume::committed_by_leader(self, seq);
    }

    fn truncate_after(&self, after: Position) -> Result<(), SinkError> {
        Volume::truncate_after(self, after).map_err(refused("drop the log's tail"))
    }

    fn set_aside(&self, why: &str) -> Result<(), SinkError> {
        Volume::set_aside(self, why).map(drop).map_err(refused("set the volume aside"))
    }

    fn build(&self, header: &SnapshotHeader) -> Result<Box<dyn Builder>, SinkError> {
        let builder = Volume::build(self, header).map_err(refused("begin a copy"))?;
        Ok(Box::new(Building { volume: self.clone(), builder }))
    }
}

/// A copy; the records that it needs go into the volume's log beside it.
struct Building {
    volume: Volume,
    builder: volume::Builder,
}

impl Builder for Building {
    fn piece(&mut self, piece: Piece) -> Result<(), SinkError> {
        self.builder.take(&piece).map_err(refused("store a piece of the copy"))
    }

    fn record(&mut self, epoch: Epoch, record: &Record) -> Result<(), SinkError> {
        self.builder.content_is_there().map_err(refused("make the copy durable"))?;
        Sink::receive(&self.volume, epoch, record)
    }

    fn finish(self: Box<Self>, through: Position) -> Result<(), SinkError> {
        self.builder.finish(through).map_err(refused("complete the copy"))
    }
}

impl From<LogError> for SourceError {
    fn from(error: LogError) -> SourceError {
        match error {
            LogError::Released { oldest } => SourceError::Released { oldest },
            other => SourceError::Failed(other.to_string()),
        }
    }
}

fn unreadable(error: VolumeError) -> SourceError {
    SourceError::Failed(error.to_string())
}

fn refused(action: &'static str) -> impl Fn(VolumeError) -> SinkError {
    move |error| SinkError { action, why: error.to_string() }
}
