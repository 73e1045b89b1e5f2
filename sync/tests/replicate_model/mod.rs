//! A volume for the tests of replication: a real log, and a content in memory that can be
//! compared, stopped and made to diverge.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use mainstay_sync::commit::{Commit, Rule};
use mainstay_sync::log::{Frame, Log, LogError, LogOptions, LogPin, LogReader, UpTo};
use mainstay_sync::op::{Attributes, Change, Head, Kind, Record, Time};
use mainstay_sync::position::{ClusterId, Epoch, FileId, Lineage, Position, Seq, VolumeId};
use mainstay_sync::replicate::{
    Builder, Follower, FollowerOptions, Leader, LeaderAddress, LeaderOptions, Records, Sink,
    SinkError, Snapshot, Source, SourceError, Standing,
};
use mainstay_sync::store::rows::Row;
use mainstay_sync::transport::{Endpoint, EndpointOptions, Peer, Secret};
use mainstay_sync::volume::{Piece, SnapshotHeader};

pub const CLUSTER: ClusterId = ClusterId([1; 16]);
pub const SERVICE: &str = "db";
/// Bytes of a file that the model sends in one piece.
const PIECE_BYTES: usize = 16 << 10;

/// What a volume holds: comparable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    pub nodes: BTreeMap<FileId, (Attributes, Seq)>,
    pub entries: BTreeMap<(FileId, Vec<u8>), (Option<FileId>, Seq)>,
    pub bytes: BTreeMap<FileId, Vec<u8>>,
}

impl Content {
    fn apply(&mut self, record: &Record) {
        let seq = record.head.seq;
        let mut payload = record.payload.clone();
        for change in &record.head.changes {
            match change {
                Change::Node { id, attributes } => {
                    self.bytes.entry(*id).or_default().resize(attributes.size as usize, 0);
                    self.nodes.insert(*id, (attributes.clone(), seq));
                }
                Change::Entry { parent, name, child } => {
                    self.entries.insert((*parent, name.clone()), (*child, seq));
                }
                Change::Write { id, offset, length } => {
                    let bytes = payload.split_to(*length as usize);
                    self.put(*id, *offset, &bytes);
                }
                _ => {}
            }
        }
    }

    fn put(&mut self, id: FileId, offset: u64, bytes: &[u8]) {
        let file = self.bytes.entry(id).or_default();
        let end = offset as usize + bytes.len();
        file.resize(file.len().max(end), 0);
        file[offset as usize..end].copy_from_slice(bytes);
    }

    fn take(&mut self, row: Row) {
        match row {
            Row::Node { id, attributes, birth } => {
                self.bytes.entry(id).or_default().resize(attributes.size as usize, 0);
                self.nodes.insert(id, (attributes, birth));
            }
            Row::Entry { parent, name, child, birth } => {
                self.entries.insert((parent, name), (child, birth));
            }
            _ => {}
        }
    }
}

struct State {
    volume: VolumeId,
    cluster: Option<ClusterId>,
    lineage: Lineage,
    log: Log,
    /// Records at hand; applied ones are `content`.
    content: Content,
    applied: Seq,
    unapplied: Vec<Record>,
    building: bool,
    promised: Epoch,
    leader: Option<(Epoch, VolumeId)>,
    /// Logs so far; each content has one.
    logs: u32,
}

pub struct Model {
    dir: tempfile::TempDir,
    state: Mutex<State>,
    pub commit: Commit,
    /// While positive, nothing is applied: what arrives stays a tail.
    pub lazy: AtomicUsize,
    /// While positive, [`Sink::ready`] does not resolve.
    pub stuck: AtomicUsize,
    /// Bytes of records that readers of this volume were given.
    pub given_bytes: AtomicU64,
    /// Pieces of copies taken, and copies begun and finished.
    pub pieces: AtomicUsize,
    pub builds: AtomicUsize,
    pub finished: AtomicUsize,
    pub asides: AtomicUsize,
    pub truncations: AtomicUsize,
    /// Milliseconds that each piece takes to be stored.
    pub piece_ms: AtomicU64,
    /// Acknowledgements that counted.
    pub acknowledged: Mutex<BTreeMap<VolumeId, Seq>>,
}

impl Model {
    pub fn blank() -> Arc<Model> {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(&dir, 0, Position::default());
        let state = State {
            volume: VolumeId(rand::random()),
            cluster: None,
            lineage: Lineage::default(),
            log,
            content: Content::default(),
            applied: Seq(0),
            unapplied: Vec::new(),
            building: false,
            promised: Epoch(0),
            leader: None,
            logs: 1,
        };
        Arc::new(Model {
            dir,
            state: Mutex::new(state),
            commit: Commit::new(Rule::Local),
            lazy: AtomicUsize::new(0),
            stuck: AtomicUsize::new(0),
            given_bytes: AtomicU64::new(0),
            pieces: AtomicUsize::new(0),
            builds: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            asides: AtomicUsize::new(0),
            truncations: AtomicUsize::new(0),
            piece_ms: AtomicU64::new(0),
            acknowledged: Mutex::default(),
        })
    }

    /// A volume that begins to lead `epoch`, of the cluster that all tests share.
    pub fn lead(&self, epoch: u64) {
        let mut state = self.state();
        state.cluster = Some(CLUSTER);
        let first = state.log.head().seq.next();
        state.lineage = state.lineage.extended(Epoch(epoch), first);
        drop(state);
        self.commit.begin(Epoch(epoch), first);
        self.append(epoch, vec![Change::EpochStart { node: "leader".into() }], Bytes::new());
    }

    pub fn append(&self, epoch: u64, changes: Vec<Change>, payload: Bytes) -> Seq {
        let mut state = self.state();
        let seq = state.log.head().seq.next();
        let at = Time { seconds: 1_700_000_000, nanos: 0 };
        let record = Record { head: Head { epoch: Epoch(epoch), seq, at, changes }, payload };
        self.take(&mut state, &record).unwrap();
        seq
    }

    /// One write of `bytes` at `offset` to the file of that number, named after it.
    pub fn write(&self, epoch: u64, number: u64, offset: u64, bytes: Vec<u8>) -> Seq {
        let id = FileId::new(Epoch(1), number);
        let size = self.state().content.bytes.get(&id).map_or(0, Vec::len) as u64;
        let attributes = file(size.max(offset + bytes.len() as u64));
        let name = format!("file-{number}").into_bytes();
        let changes = vec![
            Change::Node { id, attributes },
            Change::Entry { parent: FileId::ROOT, name, child: Some(id) },
            Change::Write { id, offset, length: bytes.len() as u32 },
        ];
        self.append(epoch, changes, bytes.into())
    }

    pub fn promise(&self, epoch: u64) {
        self.state().promised = Epoch(epoch);
    }

    pub fn content(&self) -> Content {
        self.state().content.clone()
    }

    /// Waits until the log is durable.
    pub fn settle(&self) {
        let log = self.state().log.clone();
        log.wait_durable(log.head().seq).unwrap();
    }

    /// Forgets the log up to the head, as after a checkpoint: readers keep what they need.
    pub fn release_log(&self) {
        let state = self.state();
        state.log.wait_durable(state.log.head().seq).unwrap();
        state.log.release(state.log.head().seq);
    }

    /// Takes a record as one that was received, without any session.
    pub fn take_directly(&self, record: &Record) {
        let mut state = self.state();
        state.cluster = Some(CLUSTER);
        self.take(&mut state, record).unwrap();
    }

    pub fn records_from(&self, first: u64) -> Vec<Record> {
        let log = self.state().log.clone();
        let stop = mainstay_sync::log::Stop::new(&log);
        let mut reader = log.reader(Seq(first - 1)).unwrap();
        let mut records = Vec::new();
        while reader.next_seq() <= log.head().seq {
            let frames = reader.next_blocking(UpTo::Appended, 1 << 20, &stop).unwrap();
            records.extend(frames.iter().map(Frame::record));
        }
        records
    }

    fn take(&self, state: &mut State, record: &Record) -> Result<(), LogError> {
        state.log.append(record)?;
        let head = &record.head;
        if head.changes.iter().any(|change| matches!(change, Change::EpochStart { .. })) {
            state.lineage = state.lineage.extended(head.epoch, head.seq);
        }
        if self.lazy.load(Ordering::SeqCst) > 0 {
            state.unapplied.push(record.clone());
        } else {
            for record in std::mem::take(&mut state.unapplied).iter().chain([record]) {
                state.content.apply(record);
                state.applied = record.head.seq;
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn start_again(&self, state: &mut State, at: Position) {
        state.log = open_log(&self.dir, state.logs, at);
        state.logs += 1;
        state.content = Content::default();
        state.unapplied = Vec::new();
        state.applied = at.seq;
        state.volume = VolumeId(rand::random());
    }
}

fn open_log(dir: &tempfile::TempDir, number: u32, floor: Position) -> Log {
    let options = LogOptions { segment_bytes: 4 << 20, tail_bytes: 1 << 20, spare_segments: 1 };
    Log::open(&dir.path().join(format!("log-{number}")), options, floor).unwrap()
}

pub fn file(size: u64) -> Attributes {
    let time = Time { seconds: 1_700_000_000, nanos: 5 };
    Attributes {
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        size,
        atime: time,
        mtime: time,
        ctime: time,
    }
}

/// A model in either role.
#[derive(Clone)]
pub struct End(pub Arc<Model>);

impl Source for End {
    fn cluster(&self) -> Option<ClusterId> {
        self.0.state().cluster
    }
    fn volume(&self) -> VolumeId {
        self.0.state().volume
    }
    fn lineage(&self) -> Lineage {
        self.0.state().lineage.clone()
    }
    fn head(&self) -> Position {
        self.0.state().log.head()
    }
    fn first(&self) -> Seq {
        self.0.state().log.first()
    }
    fn committed(&self) -> Seq {
        self.0.commit.committed()
    }
    fn bytes_after(&self, seq: Seq) -> u64 {
        self.0.state().log.bytes_after(seq)
    }
    fn records(&self, after: Seq) -> Result<Box<dyn Records>, SourceError> {
        let log = self.0.state().log.clone();
        let reader = log.reader(after).map_err(source_error)?;
        Ok(Box::new(ModelRecords { model: self.0.clone(), reader }))
    }
    fn peer_durable(&self, volume: VolumeId, epoch: Epoch, seq: Seq) {
        self.0.acknowledged.lock().unwrap().insert(volume, seq);
        self.0.commit.peer_durable(volume, epoch, seq);
    }
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, SourceError> {
        let state = self.0.state();
        let at = state.log.head();
        let pin = state.log.pin(at.seq).map_err(source_error)?;
        let content = &state.content;
        let mut rows: Vec<Row> = Vec::new();
        rows.extend(content.nodes.iter().map(|(id, (attributes, birth))| Row::Node {
            id: *id,
            attributes: attributes.clone(),
            birth: *birth,
        }));
        rows.extend(content.entries.iter().map(|((parent, name), (child, birth))| Row::Entry {
            parent: *parent,
            name: name.clone(),
            child: *child,
            birth: *birth,
        }));
        let extents: Vec<_> = content
            .bytes
            .iter()
            .flat_map(|(id, bytes)| {
                (0..bytes.len()).step_by(PIECE_BYTES).map(|offset| (*id, offset as u64))
            })
            .collect();
        let lineage = state.lineage.clone();
        drop(state);
        let model = self.0.clone();
        Ok(Box::new(ModelSnapshot { model, at, lineage, rows, extents, _pin: pin }))
    }
}

fn source_error(error: LogError) -> SourceError {
    match error {
        LogError::Released { oldest } => SourceError::Released { oldest },
        other => SourceError::Failed(other.to_string()),
    }
}

struct ModelRecords {
    model: Arc<Model>,
    reader: LogReader,
}

impl Records for ModelRecords {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Vec<Frame>, SourceError>> {
        Box::pin(async move {
            let frames = self.reader.next(UpTo::Appended, bytes_max).await.map_err(source_error)?;
            let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
            self.model.given_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
            Ok(frames)
        })
    }
}

/// Rows as of the beginning, bytes as of when they are asked for: as torn as a copy can be.
struct ModelSnapshot {
    model: Arc<Model>,
    at: Position,
    lineage: Lineage,
    rows: Vec<Row>,
    extents: Vec<(FileId, u64)>,
    _pin: LogPin,
}

impl Snapshot for ModelSnapshot {
    fn header(&self) -> SnapshotHeader {
        SnapshotHeader {
            cluster: CLUSTER,
            position: self.at,
            lineage: self.lineage.clone(),
            floor: Seq(0),
            files: 0,
            bytes: (self.extents.len() * PIECE_BYTES) as u64,
        }
    }
    fn through(&self) -> Position {
        self.model.state().log.head()
    }
    fn next(&mut self) -> Result<Option<Piece>, SourceError> {
        if !self.rows.is_empty() {
            return Ok(Some(Piece::Rows(std::mem::take(&mut self.rows))));
        }
        let Some((id, offset)) = self.extents.pop() else { return Ok(None) };
        let state = self.model.state();
        let bytes = &state.content.bytes[&id][offset as usize..];
        let bytes = Bytes::copy_from_slice(&bytes[..bytes.len().min(PIECE_BYTES)]);
        Ok(Some(Piece::Data { id, offset, bytes }))
    }
}

fn sink_error(action: &'static str) -> impl Fn(LogError) -> SinkError {
    move |error| SinkError { action, why: error.to_string() }
}

impl Sink for End {
    fn committed(&self, seq: Seq) {
        let _ = seq;
    }

    fn standing(&self) -> Standing {
        let state = self.0.state();
        Standing {
            protocol: 0,
            service: String::new(),
            node: String::new(),
            cluster: state.cluster,
            volume: state.volume,
            lineage: state.lineage.clone(),
            head: state.log.head(),
            durable: state.log.durable(),
            applied: state.applied,
            building: state.building,
            deltas: false,
            compared: false,
            promised: state.promised,
            leader: state.leader,
        }
    }
    fn decline(&self, epoch: Epoch) -> Result<(), SinkError> {
        self.0.state().promised = epoch;
        Ok(())
    }
    fn accept_leader(&self, epoch: Epoch, leader: VolumeId) -> Result<(), SinkError> {
        self.0.state().leader = Some((epoch, leader));
        Ok(())
    }
    fn durable(&self) -> Position {
        self.0.state().log.durable()
    }
    fn applied(&self) -> Seq {
        self.0.state().applied
    }
    fn on_durable(&self, told: Box<dyn Fn() + Send + Sync>) {
        self.0.state().log.on_durable(Box::new(move |_| told()));
    }
    fn promised(&self) -> Epoch {
        self.0.state().promised
    }
    fn ready(&self, _bytes: u64) -> BoxFuture<'static, ()> {
        let model = self.0.clone();
        Box::pin(async move {
            while model.stuck.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }
    fn receive(&self, _epoch: Epoch, record: &Record) -> Result<(), SinkError> {
        let mut state = self.0.state();
        self.0.take(&mut state, record).map_err(sink_error("take a record"))
    }
    fn truncate_after(&self, after: Position) -> Result<(), SinkError> {
        let mut state = self.0.state();
        let after = after.seq;
        assert!(state.applied <= after, "an applied record would be lost");
        state.log.truncate_after(after).map_err(sink_error("truncate the log"))?;
        state.unapplied.retain(|record| record.head.seq <= after);
        state.lineage.0.retain(|(_, first)| *first <= after);
        self.0.truncations.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn set_aside(&self, _why: &str) -> Result<(), SinkError> {
        let mut state = self.0.state();
        self.0.start_again(&mut state, Position::default());
        state.cluster = None;
        state.lineage = Lineage::default();
        self.0.asides.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn build(&self, start: &SnapshotHeader) -> Result<Box<dyn Builder>, SinkError> {
        let mut state = self.0.state();
        self.0.start_again(&mut state, start.position);
        state.cluster = Some(start.cluster);
        state.lineage = start.lineage.clone();
        state.building = true;
        self.0.builds.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(ModelBuilder(self.0.clone())))
    }
}

struct ModelBuilder(Arc<Model>);

impl Builder for ModelBuilder {
    fn piece(&mut self, piece: Piece) -> Result<(), SinkError> {
        std::thread::sleep(Duration::from_millis(self.0.piece_ms.load(Ordering::SeqCst)));
        let mut state = self.0.state();
        match piece {
            Piece::Rows(rows) => rows.into_iter().for_each(|row| state.content.take(row)),
            Piece::Data { id, offset, bytes } => state.content.put(id, offset, &bytes),
        }
        self.0.pieces.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn record(&mut self, _epoch: Epoch, record: &Record) -> Result<(), SinkError> {
        let mut state = self.0.state();
        self.0.take(&mut state, record).map_err(sink_error("take a record"))
    }
    fn finish(self: Box<Self>, through: Position) -> Result<(), SinkError> {
        let mut state = self.0.state();
        assert_eq!(state.applied, through.seq, "finished before its records were there");
        state.building = false;
        drop(state);
        self.0.finished.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

pub fn endpoint(secret: &Secret, node: &str) -> Endpoint {
    let name = Peer { service: SERVICE.into(), node: node.into() };
    // Patient, since the machine may be busy with anything.
    let options =
        EndpointOptions { idle_timeout: Duration::from_secs(30), ..EndpointOptions::default() };
    Endpoint::bind("127.0.0.1:0".parse().unwrap(), secret, name, &options).unwrap()
}

pub fn address(endpoint: &Endpoint) -> SocketAddr {
    endpoint.local_address().unwrap()
}

pub fn lead(endpoint: &Endpoint, model: &Arc<Model>, epoch: u64) -> Leader {
    let options = LeaderOptions { beat: Duration::from_millis(50), ..LeaderOptions::default() };
    Leader::start(endpoint, Arc::new(End(model.clone())), Epoch(epoch), options).0
}

pub fn follow(endpoint: &Endpoint, model: &Arc<Model>, leader: &Endpoint, epoch: u64) -> Follower {
    let options = FollowerOptions {
        beat: Duration::from_millis(50),
        retry_first: Duration::from_millis(20),
        retry_max: Duration::from_millis(200),
        ..FollowerOptions::default()
    };
    let node = leader.name().node.clone();
    let leader = LeaderAddress { node, address: address(leader), epoch: Epoch(epoch) };
    Follower::start(endpoint, Arc::new(End(model.clone())), leader, options)
}

/// Waits until `done`, far longer than it can take.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited a minute for: {what}");
}
