//! What the tests of volumes share: a random writer with a naive model, and ways to compare.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_sync::journal::{Journal, Refused, Waiter};
use mainstay_sync::log::{LogOptions, Stop, UpTo};
use mainstay_sync::op::{Attributes, Change, Head, Kind, Record, Time};
use mainstay_sync::position::{Epoch, FileId, Position, Seq};
use mainstay_sync::volume::{Catchup, Changes, Leading, Piece, Volume, VolumeOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Small bounds, so that short tests reach them, and no checkpoint but those that are asked for.
pub fn options() -> VolumeOptions {
    VolumeOptions {
        log: LogOptions { segment_bytes: 1 << 20, tail_bytes: 1 << 20, ..LogOptions::default() },
        descriptors_max: 8,
        checkpoint_interval: Duration::from_secs(3600),
        ..VolumeOptions::default()
    }
}

/// Copies a state directory, with its symbolic links and without its holes.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            std::fs::copy(entry.path(), &target)
                .unwrap_or_else(|error| panic!("{:?}: {error}", entry.path()));
        }
    }
}

/// Steps of taking a delta, before which the volume is the old one, and from which on it is the new one.
pub const DELTA_STEPS: [(&str, bool); 14] = [
    ("rows", false),
    ("needs", false),
    ("a block", false),
    ("records", false),
    ("sealed", false),
    ("quarantined", false),
    ("decided", true),
    ("half of the objects", true),
    ("objects", true),
    ("index", true),
    ("doomed", true),
    ("old log", true),
    ("new log", true),
    ("done", true),
];

/// A record with no payload.
pub fn record_of(epoch: Epoch, seq: Seq, changes: Vec<Change>) -> Record {
    Record { head: Head { epoch, seq, at: Time::default(), changes }, payload: Bytes::new() }
}

/// A file as the model and the volume show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub attributes: Attributes,
    pub bytes: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A whole volume, for comparing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub nodes: BTreeMap<FileId, Node>,
    pub entries: BTreeMap<(FileId, Vec<u8>), FileId>,
}

/// Reads everything out of a volume, through the interfaces that a mount uses.
pub fn contents(volume: &Volume) -> Contents {
    volume.wait_applied(volume.head().seq).unwrap();
    let image = volume.image().unwrap();
    let objects = volume.objects();
    let mut contents = Contents::default();
    for (id, attributes) in image.nodes {
        let mut bytes = Vec::new();
        if attributes.kind == Kind::File {
            bytes = vec![0; attributes.size as usize];
            objects.read_at(id, 0, &mut bytes).unwrap();
        }
        contents.nodes.insert(id, Node { attributes, bytes, xattrs: BTreeMap::new() });
    }
    for (id, name, value) in image.xattrs {
        contents.nodes.get_mut(&id).unwrap().xattrs.insert(name, value);
    }
    contents.entries =
        image.entries.into_iter().map(|(parent, name, child)| ((parent, name), child)).collect();
    contents
}

/// Every row of the index after a checkpoint, as text in order.
pub fn births(volume: &Volume) -> Vec<String> {
    volume.wait_applied(volume.head().seq).unwrap();
    let mut snapshot = volume.snapshot().unwrap();
    let mut rows = Vec::new();
    while let Some(piece) = snapshot.next_piece().unwrap() {
        if let Piece::Rows(more) = piece {
            rows.extend(more.iter().map(|row| format!("{row:?}")));
        }
    }
    rows
}

pub fn object_path(state: &Path, id: FileId) -> PathBuf {
    state.join("objects").join(format!("{:02x}", id.0 & 0xff)).join(format!("{:016x}", id.0))
}

/// The leader's records after the follower's head, up to `through`.
pub fn stream(leader: &Volume, follower: &Volume, through: Seq) {
    let log = leader.log();
    let mut reader = log.reader(follower.head().seq).unwrap();
    let stop = Stop::new(&log);
    while follower.head().seq < through {
        for frame in reader.next_blocking(UpTo::Durable, 1 << 20, &stop).unwrap() {
            follower.receive(frame.head.epoch, &frame.record()).unwrap();
        }
    }
}

/// A full copy; `between` is called with the number of each piece.
pub fn copy_all(leader: &Volume, follower: &Volume, mut between: impl FnMut(usize)) {
    let mut snapshot = leader.snapshot().unwrap();
    let mut builder = follower.build(snapshot.header()).unwrap();
    let mut pieces = 0;
    while let Some(piece) = snapshot.next_piece().unwrap() {
        builder.take(&piece).unwrap();
        pieces += 1;
        between(pieces);
    }
    builder.content_is_there().unwrap();
    let through = snapshot.through();
    stream(leader, follower, through.seq);
    builder.finish(through).unwrap();
}

/// A delta since `base`, up to before its end; `between` is called with the number of each step.
pub fn delta_up_to_end(
    leader: &Volume,
    follower: &Volume,
    base: Position,
    whole: bool,
    mut between: impl FnMut(usize),
) -> (Catchup, Changes) {
    let whole = whole || follower.needs_whole(base).unwrap();
    leader.log().wait_durable(leader.head().seq).unwrap();
    leader.wait_applied(leader.log().applicable()).unwrap();
    let mut changes = leader.changes(base.seq, whole).unwrap();
    let mut catchup = follower.catch_up(changes.header(), base).unwrap();
    let mut steps = 0;
    let mut step = || {
        steps += 1;
        between(steps);
    };
    loop {
        let rows = changes.next_rows().unwrap();
        if rows.is_empty() {
            break;
        }
        catchup.take_rows(&rows).unwrap();
        step();
    }
    catchup.find_wants().unwrap();
    let mut last = None;
    loop {
        let wants = catchup.wants(last.as_ref(), 7).unwrap();
        if wants.is_empty() {
            break;
        }
        last = wants.last().cloned();
        changes.ask(wants);
        loop {
            let rows = changes.next_answer().unwrap();
            if rows.is_empty() {
                break;
            }
            catchup.take_rows(&rows).unwrap();
        }
        catchup.take_absent(&changes.take_absent()).unwrap();
        step();
    }
    catchup.find_needs().unwrap();
    let mut last = None;
    loop {
        let (asks, at) = catchup.asks(last, 5).unwrap();
        if asks.is_empty() {
            break;
        }
        last = at;
        for ask in asks {
            for of in changes.differing(&ask).unwrap() {
                catchup.take_differing(&ask, &of).unwrap();
            }
        }
        step();
    }
    (catchup, changes)
}

/// The records of a delta, and its end.
pub fn delta_end(leader: &Volume, mut catchup: Catchup, changes: &Changes) {
    let through = changes.through();
    let mut at = changes.header().snapshot.position.seq;
    let log = leader.log();
    let mut reader = log.reader(at).unwrap();
    let stop = Stop::new(&log);
    while at < through.seq {
        for frame in reader.next_blocking(UpTo::Durable, 1 << 20, &stop).unwrap() {
            if frame.head.seq <= through.seq {
                catchup.record(through.epoch, &frame.record()).unwrap();
                at = frame.head.seq;
            }
        }
    }
    catchup.finish(through.epoch, through).unwrap();
}

/// A whole delta.
pub fn delta_all(
    leader: &Volume,
    follower: &Volume,
    base: Position,
    whole: bool,
    between: impl FnMut(usize),
) {
    let (catchup, changes) = delta_up_to_end(leader, follower, base, whole, between);
    delta_end(leader, catchup, &changes);
}

/// What the volume ought to hold, written the naive way.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub now: Contents,
}

impl Model {
    pub fn check(&self, contents: &Contents) {
        assert_eq!(contents.entries, self.now.entries);
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (self.now.nodes.keys().collect(), contents.nodes.keys().collect());
        assert_eq!(ours, theirs, "the same files");
        for (id, node) in &self.now.nodes {
            let found = &contents.nodes[id];
            assert_eq!(found.attributes, node.attributes, "{id}");
            assert_eq!(found.xattrs, node.xattrs, "{id}");
            let differs = found.bytes.iter().zip(&node.bytes).position(|(a, b)| a != b);
            assert_eq!(differs, None, "bytes of {id}");
            assert_eq!(found.bytes.len(), node.bytes.len(), "{id}");
        }
    }

    fn apply(&mut self, record: &Record) {
        let mut payload = &record.payload[..];
        for change in &record.head.changes {
            match change {
                Change::Node { id, attributes } => {
                    let fresh = Node {
                        attributes: attributes.clone(),
                        bytes: Vec::new(),
                        xattrs: BTreeMap::new(),
                    };
                    let node = self.now.nodes.entry(*id).or_insert(fresh);
                    node.attributes = attributes.clone();
                    if attributes.kind == Kind::File {
                        node.bytes.resize(attributes.size as usize, 0);
                    }
                }
                Change::Gone { id } => {
                    self.now.nodes.remove(id);
                }
                Change::Entry { parent, name, child } => {
                    let key = (*parent, name.clone());
                    match child {
                        Some(child) => self.now.entries.insert(key, *child),
                        None => self.now.entries.remove(&key),
                    };
                }
                Change::Write { id, offset, length } => {
                    let (bytes, rest) = payload.split_at(*length as usize);
                    payload = rest;
                    let from = *offset as usize;
                    let held = &mut self.now.nodes.get_mut(id).unwrap().bytes;
                    held.resize(held.len().max(from + bytes.len()), 0);
                    held[from..from + bytes.len()].copy_from_slice(bytes);
                }
                Change::Zero { id, offset, length } => {
                    let held = &mut self.now.nodes.get_mut(id).unwrap().bytes;
                    let from = (*offset as usize).min(held.len());
                    let to = (offset + length).min(held.len() as u64) as usize;
                    held[from..to].fill(0);
                }
                Change::Xattr { id, name, value } => {
                    let held = &mut self.now.nodes.get_mut(id).unwrap().xattrs;
                    match value {
                        Some(value) => held.insert(name.clone(), value.clone()),
                        None => held.remove(name),
                    };
                }
                Change::Reserve { .. } | Change::EpochStart { .. } => {}
            }
        }
    }
}

/// Makes ops as a mount would, and keeps the model beside them.
pub struct Writer {
    journal: Arc<dyn Journal>,
    epoch: Epoch,
    random: SmallRng,
    created: u64,
    pub model: Model,
    pub last: Seq,
    until: Seq,
}

impl Writer {
    pub fn new(leading: &Leading, epoch: Epoch, seed: u64) -> Writer {
        let mut model = Model::default();
        for (id, attributes) in &leading.image.nodes {
            let node = Node {
                attributes: attributes.clone(),
                bytes: vec![0; attributes.size as usize],
                xattrs: BTreeMap::new(),
            };
            model.now.nodes.insert(*id, node);
        }
        for (parent, name, child) in &leading.image.entries {
            model.now.entries.insert((*parent, name.clone()), *child);
        }
        Writer { model, ..Writer::over(leading.journal.clone(), epoch, seed) }
    }

    /// Over any journal, with an empty model.
    pub fn over(journal: Arc<dyn Journal>, epoch: Epoch, seed: u64) -> Writer {
        let model = Model::default();
        Writer {
            journal,
            epoch,
            random: SmallRng::seed_from_u64(seed),
            created: 0,
            model,
            last: Seq(0),
            until: Seq(u64::MAX),
        }
    }

    /// A random op, of which only the records up to `last` count.
    pub fn op_up_to(&mut self, last: Seq) {
        self.until = last;
        self.random_op();
    }

    fn op(&mut self, changes: Vec<Change>, payload: Vec<u8>) {
        if self.last >= self.until {
            return;
        }
        let payload = Bytes::from(payload);
        self.last = self
            .journal
            .append(Time { seconds: 1, nanos: 0 }, changes.clone(), payload.clone())
            .unwrap();
        let mut record = record_of(self.epoch, self.last, changes);
        record.payload = payload;
        self.model.apply(&record);
    }

    fn attributes(&self, id: FileId) -> Attributes {
        self.model.now.nodes[&id].attributes.clone()
    }

    pub fn create(&mut self, kind: Kind) -> FileId {
        self.created += 1;
        let id = FileId::new(self.epoch, self.created);
        let directories = self.of_kind(|kind| *kind == Kind::Directory);
        let parent = directories[self.random.random_range(0..directories.len())];
        let nlink = if kind == Kind::Directory { 2 } else { 1 };
        let size = if let Kind::Symlink(to) = &kind { to.len() as u64 } else { 0 };
        let time = Time { seconds: self.created as i64, nanos: 5 };
        let attributes = Attributes {
            kind,
            mode: 0o640,
            uid: 0,
            gid: 0,
            nlink,
            size,
            atime: time,
            mtime: time,
            ctime: time,
        };
        let name = format!("f{}-{}", self.epoch, self.created).into_bytes();
        let mut changes =
            vec![Change::Node { id, attributes }, Change::Entry { parent, name, child: Some(id) }];
        if nlink == 2 {
            let mut attributes = self.attributes(parent);
            attributes.nlink += 1;
            changes.push(Change::Node { id: parent, attributes });
        }
        self.op(changes, Vec::new());
        id
    }

    pub fn write(&mut self, id: FileId, offset: u64, bytes: &[u8]) {
        let mut attributes = self.attributes(id);
        attributes.size = attributes.size.max(offset + bytes.len() as u64);
        let length = bytes.len() as u32;
        let mut changes =
            vec![Change::Node { id, attributes }, Change::Write { id, offset, length }];
        if self.random.random() {
            changes.reverse();
        }
        self.op(changes, bytes.to_vec());
    }

    pub fn truncate(&mut self, id: FileId, size: u64) {
        let attributes = Attributes { size, ..self.attributes(id) };
        self.op(vec![Change::Node { id, attributes }], Vec::new());
    }

    pub fn remove(&mut self, id: FileId) {
        let names: Vec<_> = self
            .model
            .now
            .entries
            .iter()
            .filter(|(_, child)| **child == id)
            .map(|((parent, name), _)| (*parent, name.clone()))
            .collect();
        for (parent, name) in names {
            let attributes = self.attributes(id);
            let attributes = Attributes { nlink: attributes.nlink - 1, ..attributes };
            let changes =
                vec![Change::Entry { parent, name, child: None }, Change::Node { id, attributes }];
            self.op(changes, Vec::new());
        }
        self.op(vec![Change::Gone { id }], Vec::new());
    }

    fn of_kind(&self, is: impl Fn(&Kind) -> bool) -> Vec<FileId> {
        let nodes = &self.model.now.nodes;
        nodes.iter().filter(|(_, node)| is(&node.attributes.kind)).map(|(id, _)| *id).collect()
    }

    pub fn random_ops(&mut self, count: usize) {
        for _ in 0..count {
            self.random_op();
        }
    }

    pub fn random_op(&mut self) {
        let files = self.of_kind(|kind| *kind == Kind::File);
        if files.len() < 3 {
            self.create(Kind::File);
            return;
        }
        let id = files[self.random.random_range(0..files.len())];
        let offset = self.random.random_range(0..400_000);
        match self.random.random_range(0..20) {
            0..=1 => drop(self.create(Kind::File)),
            2 => drop(self.create(Kind::Directory)),
            3 => drop(self.create(Kind::Symlink(b"../elsewhere".to_vec()))),
            4..=10 => {
                let length = self.random.random_range(1..100_000);
                let byte = self.random.random_range(1..=255);
                self.write(id, offset, &vec![byte; length]);
            }
            11..=12 => self.truncate(id, offset),
            13 => self.truncate(id, 0),
            14..=15 => {
                let length = self.random.random_range(1..200_000);
                self.op(vec![Change::Zero { id, offset, length }], Vec::new());
            }
            16 => {
                let (name, value) = (b"user.tag".to_vec(), Some(vec![offset as u8; 20]));
                self.op(vec![Change::Xattr { id, name, value }], Vec::new());
            }
            17 => {
                let (name, value) = (b"user.tag".to_vec(), None);
                self.op(vec![Change::Xattr { id, name, value }], Vec::new());
            }
            18 => self.op(vec![Change::Reserve { id, offset, length: 70_000 }], Vec::new()),
            _ => self.remove(id),
        }
    }
}

/// A root directory as [`mainstay_sync::volume`] makes it, but for its times.
pub fn root() -> Node {
    let owner = options().root;
    let attributes = Attributes {
        kind: Kind::Directory,
        mode: owner.mode,
        uid: owner.uid,
        gid: owner.gid,
        nlink: 2,
        size: 0,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
    };
    Node { attributes, bytes: Vec::new(), xattrs: BTreeMap::new() }
}

/// Gives out seqs and keeps nothing: for finding out what a writer would have done.
pub struct Counter(pub std::sync::atomic::AtomicU64);

impl Journal for Counter {
    fn append(&self, _: Time, _: Vec<Change>, _: Bytes) -> Result<Seq, Refused> {
        Ok(Seq(self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1))
    }
    fn ready(&self, _: u64, waiter: Waiter) -> Option<Waiter> {
        Some(waiter)
    }
    fn when_committed(&self, _: Seq, waiter: Waiter) {
        waiter(Ok(()));
    }
    fn applied(&self) -> Seq {
        Seq(0)
    }
    fn on_applied(&self, _: Box<dyn Fn(Seq) + Send + Sync>) {}
}

/// Compares a volume with plain files.
pub fn same_as_plain(contents: &Contents, root: &Path) {
    let mut paths = BTreeMap::from([(FileId::ROOT, root.to_owned())]);
    let mut left = vec![FileId::ROOT];
    let mut names = 0;
    while let Some(parent) = left.pop() {
        for ((_, name), child) in contents.entries.range((parent, Vec::new())..) {
            if contents.entries.get(&(parent, name.clone())) != Some(child) {
                break;
            }
            let path = paths[&parent].join(std::str::from_utf8(name).unwrap());
            if contents.nodes[child].attributes.kind == Kind::Directory {
                left.push(*child);
            }
            names += 1;
            check_plain(&contents.nodes[child], &path);
            paths.insert(*child, path);
        }
    }
    check_plain(&contents.nodes[&FileId::ROOT], root);
    assert_eq!(count(root), names, "the same number of names");
}

fn count(directory: &Path) -> usize {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            1 + if entry.file_type().unwrap().is_dir() { count(&entry.path()) } else { 0 }
        })
        .sum()
}

fn check_plain(node: &Node, path: &Path) {
    let of = &node.attributes;
    let found = std::fs::symlink_metadata(path).unwrap();
    let kind = found.file_type();
    match &of.kind {
        Kind::File => assert!(std::fs::read(path).unwrap() == node.bytes, "{path:?}"),
        Kind::Directory => assert!(kind.is_dir()),
        Kind::Symlink(to) => {
            use std::os::unix::ffi::OsStrExt;
            assert_eq!(std::fs::read_link(path).unwrap().as_os_str().as_bytes(), to);
        }
        Kind::Fifo => assert!(kind.is_fifo()),
        Kind::Socket => assert!(kind.is_socket()),
    }
    if !kind.is_symlink() {
        assert_eq!(found.mode() & 0o7777, u32::from(of.mode), "{path:?}");
    }
    assert_eq!((found.uid(), found.gid()), (of.uid, of.gid), "{path:?}");
    assert_eq!((found.mtime(), found.mtime_nsec()), (of.mtime.seconds, of.mtime.nanos.into()));
    for (name, value) in &node.xattrs {
        let mut held = vec![0; 70_000];
        let length = rustix::fs::lgetxattr(path, &name[..], &mut held[..]).unwrap();
        assert_eq!(&held[..length], value);
    }
}
