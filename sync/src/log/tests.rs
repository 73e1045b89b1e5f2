//! The log on a real disk; on worse ones in the modules below.

mod damage;
mod faults;
mod layout;
mod model;
mod power;

use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::op::{Change, Head, Time};
use crate::position::FileId;

/// Small segments, so that a test crosses many; hardly any memory, so that readers use the files.
pub(super) fn small() -> LogOptions {
    LogOptions { segment_bytes: 16 << 10, tail_bytes: 2 << 10, spare_segments: 2 }
}

/// A record whose payload says which it is.
pub(super) fn record(epoch: u64, seq: u64, payload_bytes: usize) -> Record {
    let payload: Vec<u8> = (0..payload_bytes).map(|i| (seq as usize * 7 + i) as u8).collect();
    let id = FileId::new(Epoch(epoch), 1);
    let write = Change::Write { id, offset: 0, length: payload_bytes as u32 };
    Record {
        head: Head {
            epoch: Epoch(epoch),
            seq: Seq(seq),
            at: Time { seconds: seq as i64, nanos: 0 },
            changes: vec![write],
        },
        payload: Bytes::from(payload),
    }
}

pub(super) fn at(epoch: u64, seq: u64) -> Position {
    Position { epoch: Epoch(epoch), seq: Seq(seq) }
}

fn payload_bytes(seq: u64) -> usize {
    [5, 100, 1000, 3000][seq as usize % 4]
}

fn open(dir: &Path) -> Log {
    Log::open(dir, small(), Position::default()).unwrap()
}

fn append(log: &Log, epoch: u64, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        log.append(&record(epoch, seq, payload_bytes(seq))).unwrap();
    }
}

fn read_all(log: &Log, after: u64, up_to: u64) -> Vec<Record> {
    let mut reader = log.reader(Seq(after)).unwrap();
    let stop = Stop::new(log);
    let mut records = Vec::new();
    while reader.next_seq() <= Seq(up_to) {
        let frames = reader.next_blocking(UpTo::Durable, 5000, &stop).unwrap();
        assert!(!frames.is_empty());
        records.extend(frames.iter().map(Frame::record));
    }
    records
}

fn check_reads(log: &Log, after: u64, up_to: u64, epoch_of: impl Fn(u64) -> u64) {
    let expected: Vec<Record> =
        (after + 1..=up_to).map(|seq| record(epoch_of(seq), seq, payload_bytes(seq))).collect();
    assert_eq!(read_all(log, after, up_to), expected);
}

#[test]
fn what_was_appended_is_read_and_found_again() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    assert_eq!((log.head(), log.first()), (at(0, 0), Seq(1)));
    append(&log, 1, 1..=60);
    assert_eq!(log.head(), at(1, 60));
    assert_eq!(log.wait_durable(Seq(60)).unwrap(), at(1, 60));
    check_reads(&log, 0, 60, |_| 1);
    drop(log);
    let log = open(dir.path());
    assert_eq!((log.head(), log.durable(), log.first()), (at(1, 60), at(1, 60), Seq(1)));
    append(&log, 2, 61..=80);
    log.wait_durable(Seq(80)).unwrap();
    check_reads(&log, 17, 80, |seq| if seq <= 60 { 1 } else { 2 });
    drop(log);
    assert_eq!(open(dir.path()).head(), at(2, 80));
}

#[test]
fn closing_makes_durable_what_was_appended() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    append(&log, 1, 1..=30);
    drop(log);
    assert_eq!(open(dir.path()).head(), at(1, 30));
}

#[test]
fn only_the_next_record_is_taken() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    append(&log, 2, 1..=3);
    for (epoch, seq) in [(2, 3), (2, 5), (1, 4)] {
        let refused = log.append(&record(epoch, seq, 5));
        assert!(matches!(refused, Err(LogError::OutOfOrder { .. })), "{epoch}:{seq}");
    }
    let refused = log.append(&record(2, 4, 20_000));
    assert!(matches!(refused, Err(LogError::TooLarge { .. })));
    log.append(&record(3, 4, 5)).unwrap();
    assert!(matches!(log.wait_durable(Seq(5)), Err(LogError::Beyond { .. })));
}

#[test]
fn a_log_may_begin_after_a_checkpoint_and_not_end_before_it() {
    let dir = TempDir::new().unwrap();
    let log = Log::open(dir.path(), small(), at(3, 100)).unwrap();
    assert_eq!((log.head(), log.first()), (at(3, 100), Seq(101)));
    append(&log, 3, 101..=120);
    drop(log);
    let open_at = |floor| Log::open(dir.path(), small(), floor);
    let damaged = |floor| matches!(open_at(floor).err(), Some(LogError::Damaged { .. }));
    assert!(damaged(at(3, 121)), "a durable record is missing at the end");
    assert!(damaged(at(3, 99)), "a record after the checkpoint is missing");
    assert!(damaged(at(2, 110)), "the checkpoint is of another history");
    assert_eq!(open_at(at(3, 120)).unwrap().head(), at(3, 120));
}

#[test]
fn released_segments_are_used_again_and_pins_keep_them() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    append(&log, 1, 1..=40);
    let pin = log.pin(Seq(10)).unwrap();
    log.wait_durable(Seq(40)).unwrap();
    log.release(Seq(40));
    assert!(log.first() > Seq(1) && log.first() <= Seq(11), "{}", log.first());
    check_reads(&log, 10, 40, |_| 1);
    drop(pin);
    assert!(log.first() > Seq(11));
    assert!(matches!(log.reader(Seq(10)), Err(LogError::Released { .. })));
    for round in 1..20 {
        append(&log, 1, round * 40 + 1..=round * 40 + 40);
        log.wait_durable(Seq(round * 40 + 40)).unwrap();
        log.release(Seq(round * 40 + 40));
    }
    drop(log);
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert!(files < 20, "{files} files are left");
    let log = Log::open(dir.path(), small(), at(1, 790)).unwrap();
    assert_eq!(log.head(), at(1, 800));
    check_reads(&log, 795, 800, |_| 1);
}

#[test]
fn a_truncated_tail_never_comes_back() {
    let dir = TempDir::new().unwrap();
    for cut in [59, 40, 33, 12, 1, 0] {
        let log = open(dir.path());
        append(&log, log.head().epoch.0.max(1), log.head().seq.0 + 1..=60);
        let past = log.reader(Seq(60)).unwrap();
        assert!(matches!(log.truncate_after(Seq(cut)), Err(LogError::InUse { .. })));
        drop(past);
        log.truncate_after(Seq(cut)).unwrap();
        assert_eq!(log.head().seq, Seq(cut));
        drop(log);
        let log = open(dir.path());
        assert_eq!(log.head().seq, Seq(cut));
        // Of the same lengths, so that old frames would follow exactly.
        let epoch = 100 - cut;
        append(&log, epoch, cut + 1..=cut + 3);
        drop(log);
        let log = open(dir.path());
        assert_eq!(log.head(), at(epoch, cut + 3));
        let written = read_all(&log, cut, cut + 3);
        assert!(written.iter().all(|record| record.head.epoch == Epoch(epoch)));
        log.truncate_after(Seq(cut)).unwrap();
    }
}

#[test]
fn a_reader_goes_on_over_a_cut_behind_it() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    append(&log, 1, 1..=30);
    log.wait_durable(Seq(30)).unwrap();
    let stop = Stop::new(&log);
    let mut reader = log.reader(Seq(0)).unwrap();
    while reader.next_seq() < Seq(10) {
        reader.next_blocking(UpTo::Durable, 1, &stop).unwrap();
    }
    log.truncate_after(Seq(12)).unwrap();
    append(&log, 2, 13..=40);
    log.wait_durable(Seq(40)).unwrap();
    while reader.next_seq() <= Seq(40) {
        for frame in reader.next_blocking(UpTo::Durable, 1, &stop).unwrap() {
            let epoch = if frame.seq() <= Seq(12) { 1 } else { 2 };
            assert_eq!(frame.position().epoch, Epoch(epoch));
        }
    }
}

#[test]
fn restarting_forgets_everything_before() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    append(&log, 1, 1..=50);
    let pin = log.pin(Seq(20)).unwrap();
    assert!(matches!(log.restart_at(at(4, 900)), Err(LogError::InUse { .. })));
    drop(pin);
    log.restart_at(at(4, 900)).unwrap();
    assert_eq!((log.head(), log.durable(), log.first()), (at(4, 900), at(4, 900), Seq(901)));
    append(&log, 4, 901..=910);
    drop(log);
    let log = Log::open(dir.path(), small(), at(4, 900)).unwrap();
    assert_eq!((log.head(), log.first()), (at(4, 910), Seq(901)));
    drop(log);
    let log = Log::open(dir.path(), small(), at(4, 900)).unwrap();
    log.restart_at(at(5, 3)).unwrap();
    drop(log);
    assert_eq!(Log::open(dir.path(), small(), at(5, 3)).unwrap().head(), at(5, 3));
}

#[test]
fn hooks_hear_of_every_sync_in_order() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    log.on_durable(Box::new(move |position| told.lock().unwrap().push(position)));
    append(&log, 1, 1..=20);
    log.seal(Epoch(1)).unwrap();
    let heard = heard.lock().unwrap();
    assert!(heard.is_sorted() && heard.last() == Some(&at(1, 20)), "{heard:?}");
}

#[test]
fn a_sealed_log_takes_no_older_epoch() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    append(&log, 2, 1..=10);
    assert_eq!(log.seal(Epoch(3)).unwrap(), at(2, 10));
    assert_eq!(log.durable(), at(2, 10));
    for epoch in [2, 3] {
        let refused = log.append(&record(epoch, 11, 5));
        assert!(matches!(refused, Err(LogError::Sealed { .. })), "{epoch}");
    }
    assert_eq!(log.seal(Epoch(1)).unwrap(), at(2, 10), "an older seal changes nothing");
    log.append(&record(4, 11, 5)).unwrap();
}

#[test]
fn a_sealed_log_takes_the_older_records_that_a_newer_leader_hands_over() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    append(&log, 2, 1..=10);
    log.seal(Epoch(3)).unwrap();
    let from_the_old = log.append_by(Epoch(3), &record(2, 11, 5));
    assert!(matches!(from_the_old, Err(LogError::Sealed { .. })));
    log.append_by(Epoch(4), &record(2, 11, 5)).unwrap();
    let from_the_future = log.append_by(Epoch(4), &record(5, 12, 5));
    assert!(matches!(from_the_future, Err(LogError::OutOfOrder { .. })));
    log.append_by(Epoch(4), &record(4, 12, 5)).unwrap();
    assert_eq!(log.wait_durable(Seq(12)).unwrap(), at(4, 12));
}

#[test]
fn a_closed_log_leaves_its_directory_alone_although_clones_are_held() {
    let dir = TempDir::new().unwrap();
    for _ in 0..20 {
        let log = open(dir.path());
        let held = log.clone();
        append(&log, 1, 1..=3);
        log.close();
        assert_eq!(held.durable(), at(1, 3), "what was taken is durable");
        assert!(matches!(held.append(&record(1, 4, 5)), Err(LogError::Closed)));
        assert!(held.threads.handles().is_empty(), "no thread is left to touch it");
        // Gone, and begun anew under the same name.
        std::fs::remove_dir_all(dir.path()).unwrap();
        let names = || std::fs::read_dir(dir.path()).map(Iterator::count).unwrap_or(0);
        assert_eq!(names(), 0);
    }
}

#[test]
fn a_stop_wakes_a_waiting_reader() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let stop = Stop::new(&log);
    let mut reader = log.reader(Seq(0)).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| reader.next_blocking(UpTo::Durable, 1000, &stop).unwrap());
        stop.stop();
        assert!(waiting.join().unwrap().is_empty());
    });
}

#[tokio::test]
async fn async_readers_follow_appends_and_files() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    append(&log, 1, 1..=40);
    log.wait_durable(Seq(40)).unwrap();
    let mut reader = log.reader(Seq(0)).unwrap();
    let appending = log.clone();
    let reading = tokio::spawn(async move {
        let mut seqs = Vec::new();
        while reader.next_seq() <= Seq(60) {
            let frames = reader.next(UpTo::Appended, 4000).await.unwrap();
            seqs.extend(frames.iter().map(|frame| frame.seq().0));
        }
        seqs
    });
    for seq in 41..=60 {
        tokio::task::yield_now().await;
        append(&appending, 1, seq..=seq);
    }
    assert_eq!(reading.await.unwrap(), (1..=60).collect::<Vec<u64>>());
}

#[test]
fn a_reader_of_appends_never_looks_on_the_disk_for_what_is_not_there_yet() {
    const LAST: u64 = 3000;
    let dir = TempDir::new().unwrap();
    let options = LogOptions { segment_bytes: 256 << 10, tail_bytes: 0, spare_segments: 2 };
    let log = Log::open(dir.path(), options, Position::default()).unwrap();
    let mut reader = log.reader(Seq(0)).unwrap();
    let stop = Stop::new(&log);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 1..=LAST {
                log.append(&record(1, seq, 100)).unwrap();
                if seq % 10 == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 1;
        while expected <= LAST {
            for frame in reader.next_blocking(UpTo::Appended, 700, &stop).unwrap() {
                assert_eq!(frame.record(), record(1, expected, 100));
                expected += 1;
            }
        }
    });
}

#[test]
fn inspecting_reports_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    append(&open(dir.path()), 1, 1..=30);
    let names = || {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let inspection = inspect(dir.path(), Position::default()).unwrap();
    assert_eq!(inspection.head.unwrap(), at(1, 30));
    let records: u64 = inspection.segments.iter().map(|segment| segment.records).sum();
    assert_eq!(records, 30);
    assert!(inspection.segments.iter().all(|segment| segment.broken.is_none()));
    assert!(matches!(inspect(dir.path(), at(1, 31)).unwrap().head, Err(LogError::Damaged { .. })));
    assert_eq!(names(), before);
}
