//! Births and rows, without a volume around them.

use bytes::Bytes;

use super::delta::Delta;
use super::index::{Checkpoint, Index};
use super::live::Live;
use super::objects::ObjectFiles;
use super::rows::{Cursor, Row};
use super::{CHUNK_BYTES, StoreError};
use crate::journal::Objects;
use crate::op::{Attributes, Change, Head, Kind, Record, Time};
use crate::position::{Epoch, FileId, Seq};

const FILE: FileId = FileId(0xa1);

fn attributes(kind: Kind, size: u64) -> Attributes {
    let time = Time::default();
    Attributes {
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        nlink: 1,
        size,
        atime: time,
        mtime: time,
        ctime: time,
    }
}

fn sized(id: FileId, size: u64) -> Change {
    Change::Node { id, attributes: attributes(Kind::File, size) }
}

fn record(seq: u64, changes: Vec<Change>) -> Record {
    let head = Head { epoch: Epoch(1), seq: Seq(seq), at: Time::default(), changes };
    let payload = Bytes::from(vec![seq as u8; head.payload_length() as usize]);
    Record { head, payload }
}

fn write(seq: u64, offset: u64, length: u32, size: u64) -> Record {
    record(seq, vec![sized(FILE, size), Change::Write { id: FILE, offset, length }])
}

/// Objects, index and live state in a directory of their own.
struct Store {
    objects: ObjectFiles,
    index: Index,
    live: Live,
    _dir: tempfile::TempDir,
}

impl Store {
    fn new() -> Store {
        let dir = tempfile::tempdir().unwrap();
        let objects = ObjectFiles::open(&dir.path().join("objects"), 4).unwrap();
        let index = Index::open(&dir.path().join("meta.db")).unwrap();
        let live = Live::new(index.reader().unwrap()).unwrap();
        Store { objects, index, live, _dir: dir }
    }

    fn apply(&mut self, record: &Record) {
        self.live.apply(&self.objects, record).unwrap();
    }

    fn checkpoint(&mut self) {
        let (delta, at, last) = self.live.freeze();
        assert!(last);
        self.index.write(&delta, &at, &[]).unwrap();
        self.live.written();
    }

    /// As after a kill: what was not checkpointed is only in the objects.
    fn forget(&mut self) {
        self.live = Live::new(self.index.reader().unwrap()).unwrap();
    }

    fn rows(&self) -> Vec<Row> {
        let db = self.index.reader().unwrap();
        let (mut cursor, mut rows) = (Cursor::default(), Vec::new());
        loop {
            // Small pages, so that every table is walked in several.
            let page = cursor.next(&db, 2).unwrap();
            if page.is_empty() {
                return rows;
            }
            rows.extend(page);
        }
    }

    fn births(&self) -> Vec<(u64, u64)> {
        let birth = |row| match row {
            Row::Chunk { index, birth, .. } => Some((index, birth.0)),
            _ => None,
        };
        self.rows().into_iter().filter_map(birth).collect()
    }
}

#[test]
fn a_cut_leaves_births_on_what_it_removed() {
    let mut store = Store::new();
    let four = 4 * CHUNK_BYTES;
    store.apply(&write(1, 0, four as u32, four));
    store.checkpoint();
    assert_eq!(store.births(), [(0, 1), (1, 1), (2, 1), (3, 1)]);
    // To the middle of chunk 1, and back: the sizes are as before, the bytes are not.
    store.apply(&record(2, vec![sized(FILE, CHUNK_BYTES + 10)]));
    store.apply(&record(3, vec![sized(FILE, four)]));
    store.checkpoint();
    assert_eq!(store.births(), [(0, 1), (1, 2), (2, 2), (3, 2)]);
    let mut bytes = [9; 20];
    store.objects.read_at(FILE, CHUNK_BYTES, &mut bytes).unwrap();
    assert_eq!((bytes[..10].to_vec(), bytes[10..].to_vec()), (vec![1; 10], vec![0; 10]));
}

#[test]
fn a_cut_that_the_object_already_has_is_noted_again_after_a_kill() {
    let mut store = Store::new();
    store.apply(&write(1, 0, 3 * CHUNK_BYTES as u32, 3 * CHUNK_BYTES));
    store.checkpoint();
    let cut = [record(2, vec![sized(FILE, 0)]), record(3, vec![sized(FILE, 3 * CHUNK_BYTES)])];
    store.apply(&cut[0]);
    store.forget();
    cut.iter().for_each(|record| store.apply(record));
    store.checkpoint();
    assert_eq!(store.births(), [(0, 2), (1, 2), (2, 2)]);
}

#[test]
fn a_hole_stamps_what_was_written_and_no_more() {
    let mut store = Store::new();
    store.apply(&write(1, 0, 10, 10 * CHUNK_BYTES));
    store.apply(&write(2, 5 * CHUNK_BYTES, 10, 10 * CHUNK_BYTES));
    store.checkpoint();
    let (offset, length) = (CHUNK_BYTES, u64::MAX);
    store.apply(&record(3, vec![Change::Zero { id: FILE, offset, length }]));
    store.apply(&write(4, 7 * CHUNK_BYTES, 1, 10 * CHUNK_BYTES));
    store.checkpoint();
    assert_eq!(store.births(), [(0, 1), (5, 3), (7, 4)]);
    let mut bytes = [9; 10];
    store.objects.read_at(FILE, 5 * CHUNK_BYTES, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 10]);
}

#[test]
fn what_is_taken_away_leaves_tombstones() {
    let mut store = Store::new();
    let entry = |seq, child| {
        let name = b"name".to_vec();
        record(seq, vec![Change::Entry { parent: FileId::ROOT, name, child }])
    };
    let tag = |seq, value: Option<&[u8]>| {
        let (name, value) = (b"user.a".to_vec(), value.map(<[u8]>::to_vec));
        record(seq, vec![Change::Xattr { id: FileId::ROOT, name, value }])
    };
    store.apply(&record(1, vec![sized(FILE, 0)]));
    store.apply(&entry(2, Some(FILE)));
    store.apply(&tag(3, Some(b"x")));
    store.checkpoint();
    store.apply(&entry(4, None));
    store.apply(&tag(5, None));
    store.apply(&record(6, vec![Change::Gone { id: FILE }]));
    store.checkpoint();
    let (parent, name, birth) = (FileId::ROOT, b"name".to_vec(), Seq(4));
    assert_eq!(
        store.rows(),
        [
            Row::Entry { parent, name, child: None, birth },
            Row::Xattr { id: parent, name: b"user.a".to_vec(), value: None, birth: Seq(5) },
            Row::Gone { id: FILE, birth: Seq(6) },
        ]
    );
    assert_eq!(store.index.doomed().unwrap(), [FILE]);
}

#[test]
fn a_failed_checkpoint_is_written_again_before_what_came_after_it() {
    let mut store = Store::new();
    store.apply(&record(1, vec![sized(FILE, 0)]));
    let (first, at, _) = store.live.freeze();
    assert_eq!(at.position.seq, Seq(1));
    store.apply(&record(2, vec![sized(FileId(0xb2), 0)]));
    let (again, at, last) = store.live.freeze();
    assert_eq!((&again, at.position.seq, last), (&first, Seq(1), false));
    assert_eq!(store.live.node(FILE).unwrap().map(|of| of.size), Some(0), "seen meanwhile");
    store.live.written();
    let (rest, at, last) = store.live.freeze();
    assert_eq!((rest.nodes.len(), at.position.seq, last), (1, Seq(2), true));
}

#[test]
fn writing_holes_and_cuts_of_one_delta_end_with_the_last_word() {
    let mut delta = Delta::default();
    let size = |_| 4 * CHUNK_BYTES;
    delta.note(&write(1, 0, 4 * CHUNK_BYTES as u32, 4 * CHUNK_BYTES).head, size);
    delta.note(&record(2, vec![sized(FILE, CHUNK_BYTES)]).head, size);
    delta.note(&write(3, 2 * CHUNK_BYTES, 1, 3 * CHUNK_BYTES).head, |_| CHUNK_BYTES);
    let chunks = &delta.chunks[&FILE];
    let births: Vec<_> = chunks.written.values().map(|birth| birth.0).collect();
    assert_eq!(births, [1, 2, 3, 2]);
    assert_eq!(chunks.cut, [(1, 4, Seq(2))]);
}

#[test]
fn an_index_that_was_cleared_begins_where_it_is_told() {
    let mut store = Store::new();
    store.apply(&write(1, 0, 10, 10));
    store.checkpoint();
    let start = Checkpoint { building: true, floor: Seq(4), ..Checkpoint::default() };
    store.index.clear(&start).unwrap();
    assert!(store.rows().is_empty());
    assert_eq!(store.index.checkpoint().unwrap(), start);
}

#[test]
fn an_object_is_never_reached_through_a_symlink() {
    let store = Store::new();
    let target = store.objects.root().join("outside");
    std::fs::write(&target, b"mine").unwrap();
    std::os::unix::fs::symlink(&target, store.objects.path(FILE)).unwrap();
    let refused = store.objects.write_at(FILE, 0, b"theirs");
    assert!(matches!(refused, Err(StoreError::File { .. })));
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
}
