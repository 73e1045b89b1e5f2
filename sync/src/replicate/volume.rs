//! The volume as replication sees it.

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::ends::{
    Builder, Changes, Delta, Records, Sink, SinkError, Snapshot, Source, SourceError,
};
use super::plan::Standing;
use crate::log::{Frame, LogError, LogReader, UpTo};
use crate::op::Record;
use crate::position::{ClusterId, Epoch, Lineage, Position, Seq, VolumeId};
use crate::store::rows::Row;
use crate::store::stage::{Need, Want};
use crate::volume::{
    self, Ask, Catchup, ChangesHeader, Differing, Piece, SnapshotHeader, Volume, VolumeError,
};

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

    fn to_verify(&self) -> Option<Volume> {
        Some(self.clone())
    }

    fn changes(&self, since: Seq, whole: bool) -> Result<Box<dyn Changes>, SourceError> {
        let changes = Volume::changes(self, since, whole).map_err(unreadable)?;
        Ok(Box::new(changes))
    }
}

impl Changes for volume::Changes {
    fn header(&self) -> ChangesHeader {
        volume::Changes::header(self).clone()
    }

    fn next_rows(&mut self) -> Result<Vec<Row>, SourceError> {
        volume::Changes::next_rows(self).map_err(unreadable)
    }

    fn ask(&mut self, wants: Vec<Want>) {
        volume::Changes::ask(self, wants);
    }

    fn next_answer(&mut self) -> Result<Vec<Row>, SourceError> {
        volume::Changes::next_answer(self).map_err(unreadable)
    }

    fn take_absent(&mut self) -> Vec<Want> {
        volume::Changes::take_absent(self)
    }

    fn differing(&mut self, ask: &Ask) -> Result<Vec<Differing>, SourceError> {
        volume::Changes::differing(self, ask).map_err(unreadable)
    }

    fn through(&self) -> Position {
        volume::Changes::through(self)
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
            deltas: true,
            compared: self.compared().is_some(),
            promised: Volume::promised(self),
            leader: Volume::leader(self),
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

    fn accept_leader(&self, epoch: Epoch, leader: VolumeId) -> Result<(), SinkError> {
        Volume::accept_leader(self, epoch, leader).map_err(refused("take part in the epoch"))
    }

    fn decline(&self, epoch: Epoch) -> Result<(), SinkError> {
        Volume::promise(self, epoch).map(drop).map_err(refused("decline the epoch"))
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

    fn needs_whole(&self, base: Position) -> Result<bool, SinkError> {
        Volume::needs_whole(self, base).map_err(refused("prepare for a delta"))
    }

    fn catch_up(
        &self,
        header: &ChangesHeader,
        shared: Position,
    ) -> Result<Box<dyn Delta>, SinkError> {
        let delta = Volume::catch_up(self, header, shared).map_err(refused("begin a delta"))?;
        Ok(Box::new(delta))
    }

    fn to_verify(&self) -> Option<Volume> {
        Some(self.clone())
    }

    fn forget_delta(&self) -> Result<(), SinkError> {
        Volume::forget_delta(self).map_err(refused("remove an old delta"))
    }
}

const TAKING: &str = "take a part of the delta";

impl Delta for Catchup {
    fn take_rows(&mut self, rows: &[Row]) -> Result<(), SinkError> {
        Catchup::take_rows(self, rows).map_err(refused(TAKING))
    }

    fn find_wants(&mut self) -> Result<(), SinkError> {
        Catchup::find_wants(self).map_err(refused(TAKING))
    }

    fn wants(&self, last: Option<&Want>, limit: usize) -> Result<Vec<Want>, SinkError> {
        Catchup::wants(self, last, limit).map_err(refused(TAKING))
    }

    fn take_absent(&mut self, wants: &[Want]) -> Result<(), SinkError> {
        Catchup::take_absent(self, wants).map_err(refused(TAKING))
    }

    fn find_needs(&mut self) -> Result<u64, SinkError> {
        Catchup::find_needs(self).map_err(refused(TAKING))
    }

    fn asks(
        &self,
        last: Option<Need>,
        limit: usize,
    ) -> Result<(Vec<Ask>, Option<Need>), SinkError> {
        Catchup::asks(self, last, limit).map_err(refused(TAKING))
    }

    fn take_differing(&mut self, ask: &Ask, found: &Differing) -> Result<(), SinkError> {
        Catchup::take_differing(self, ask, found).map_err(refused(TAKING))
    }

    fn into_builder(self: Box<Self>, by: Epoch) -> Box<dyn Builder> {
        Box::new(CatchingUp { catchup: *self, by })
    }
}

/// A delta that has its rows and blocks; its records go into a log of its own.
struct CatchingUp {
    catchup: Catchup,
    by: Epoch,
}

impl Builder for CatchingUp {
    fn piece(&mut self, _: Piece) -> Result<(), SinkError> {
        Err(SinkError { action: TAKING, why: "a piece of a full copy came".to_owned() })
    }

    fn record(&mut self, epoch: Epoch, record: &Record) -> Result<(), SinkError> {
        self.catchup.record(epoch, record).map_err(refused("take a record of the delta"))
    }

    fn finish(self: Box<Self>, through: Position) -> Result<(), SinkError> {
        let CatchingUp { catchup, by } = *self;
        catchup.finish(by, through).map_err(refused("complete the delta"))
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
