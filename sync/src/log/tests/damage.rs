//! Bytes that changed after they were durable, and files that are gone or shorter.

use bytes::Bytes;

use super::model::ModelDisk;
use super::{at, record};
use crate::log::disk::Disk;
use crate::log::format::{FrameHeader, SEGMENT_HEADER_BYTES, SegmentId, body_crc, frame_stride};
use crate::log::segment::{Place, Segment, Walk};
use crate::log::{Frame, Log, LogError, LogOptions, UpTo, recovery};
use crate::position::{Position, Seq};

const RECORDS: u64 = 9;

fn options() -> LogOptions {
    LogOptions { segment_bytes: 5 << 10, tail_bytes: 0, spare_segments: 0 }
}

fn start(disk: &ModelDisk) -> Result<Log, LogError> {
    Log::start(Box::new(disk.clone()), options(), Position::default())
}

/// A log of two segments, every record synced by itself; and the names of the segments.
fn small_log() -> (ModelDisk, Vec<String>) {
    let disk = ModelDisk::new(1);
    let log = start(&disk).unwrap();
    for seq in 1..=RECORDS {
        log.append(&record(1, seq, 120)).unwrap();
        log.wait_durable(Seq(seq)).unwrap();
    }
    drop(log);
    let listing = recovery::list(&disk).unwrap();
    let names: Vec<String> =
        listing.segments.iter().map(|segment| segment.id().file_name()).collect();
    assert_eq!(names.len(), 2);
    (disk, names)
}

/// The records that a recovery would find, each checked; or why it would not.
fn recovered(disk: &ModelDisk) -> Result<u64, LogError> {
    let listing = recovery::list(disk)?;
    let ends = recovery::follow(disk, &listing, Position::default())?;
    let mut found = 0;
    for (index, segment) in listing.segments.iter().enumerate() {
        let end = listing.segments.get(index + 1).map_or(ends.head.seq, |next| next.base().seq);
        let mut walk = Walk::new(segment.id(), segment.file.clone());
        while found < end.0 {
            let Place::Frame(header, body) = walk.place().unwrap() else { panic!("a gap") };
            walk.step_over(&header);
            found += 1;
            assert_eq!(Frame::decode(body).unwrap().record(), record(1, found, 120));
        }
    }
    assert_eq!(found, ends.head.seq.0);
    Ok(found)
}

#[test]
fn every_flipped_bit_gives_a_prefix_or_is_damage() {
    let (disk, names) = small_log();
    let frame = frame_stride(Frame::encode(&record(1, 1, 120)).bytes.len()) as usize;
    for (index, name) in names.iter().enumerate() {
        let whole = disk.bytes(name);
        let mut offsets: Vec<usize> = (0..64).collect();
        offsets.extend(SEGMENT_HEADER_BYTES as usize..whole.len());
        for bit in offsets.iter().flat_map(|offset| offset * 8..offset * 8 + 8) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            disk.set_bytes(name, bytes);
            let (outcome, last) = (recovered(&disk), index + 1 == names.len());
            match outcome {
                Err(LogError::Damaged { .. }) | Err(LogError::Format { .. }) => {}
                Err(error) => panic!("bit {bit} of {name}: {error}"),
                // Padding and what follows the last record mean nothing. The last record itself
                // is not told from a torn one: nothing that came after says that it was durable.
                Ok(RECORDS) => {}
                Ok(found) => {
                    let used = last && bit / 8 >= SEGMENT_HEADER_BYTES as usize;
                    assert!(
                        used && found == RECORDS - 1,
                        "bit {bit} of {name}: {found} of {frame}"
                    );
                }
            }
        }
        disk.set_bytes(name, whole);
    }
}

#[test]
fn a_record_before_a_durable_one_is_damage_wherever_it_breaks() {
    let (disk, names) = small_log();
    for name in &names {
        let whole = disk.bytes(name);
        let listing = recovery::list(&disk).unwrap();
        let id = SegmentId::of_file_name(name).unwrap();
        let segment = listing.segments.iter().find(|segment| segment.id() == id).unwrap();
        let mut walk = Walk::new(id, segment.file.clone());
        while let Some(header) = walk.header().unwrap() {
            for at in [0, 5, 20, 36, 36 + header.length as usize - 1] {
                let mut bytes = whole.clone();
                bytes[walk.offset as usize + at] ^= 0x10;
                disk.set_bytes(name, bytes);
                let outcome = recovered(&disk);
                if header.position.seq < Seq(RECORDS) {
                    let Err(LogError::Damaged { seq, .. }) = outcome else {
                        panic!("record {} broke at {at}: {outcome:?}", header.position)
                    };
                    assert_eq!(seq, header.position.seq);
                } else {
                    assert_eq!(outcome.unwrap(), RECORDS - 1);
                }
            }
            disk.set_bytes(name, whole.clone());
            walk.step_over(&header);
        }
    }
}

#[test]
fn what_a_start_has_found_is_known_durable_to_the_next() {
    let (disk, _) = small_log();
    drop(start(&disk).unwrap());
    let listing = recovery::list(&disk).unwrap();
    let last = listing.segments.last().unwrap();
    let name = last.id().file_name();
    let mut walk = Walk::new(last.id(), last.file.clone());
    while walk.header().unwrap().is_some_and(|header| header.position.seq < Seq(RECORDS)) {
        let header = walk.header().unwrap().unwrap();
        walk.step_over(&header);
    }
    let mut bytes = disk.bytes(&name);
    bytes[walk.offset as usize + 60] ^= 1;
    disk.set_bytes(&name, bytes);
    let outcome = recovered(&disk);
    assert!(matches!(outcome, Err(LogError::Damaged { seq: Seq(RECORDS), .. })), "{outcome:?}");
}

#[test]
fn every_cut_of_the_last_segment_gives_a_prefix() {
    let (disk, names) = small_log();
    let whole = disk.bytes(&names[1]);
    let mut last_found = 0;
    for length in 0..whole.len() {
        disk.set_bytes(&names[1], whole[..length].to_vec());
        let found = recovered(&disk).unwrap();
        assert!(found >= last_found, "more bytes, fewer records");
        last_found = found;
        if length % 97 == 0 {
            let log = start(&disk.after_kill()).unwrap();
            assert_eq!(log.head(), at(1, found));
            log.append(&record(2, found + 1, 120)).unwrap();
            log.wait_durable(Seq(found + 1)).unwrap();
        }
    }
    assert_eq!(last_found, RECORDS);
}

#[test]
fn a_shorter_first_segment_and_a_missing_one_are_damage() {
    let (disk, names) = small_log();
    let whole = disk.bytes(&names[0]);
    for length in (0..whole.len()).step_by(61) {
        disk.set_bytes(&names[0], whole[..length].to_vec());
        match recovered(&disk) {
            Ok(found) => assert_eq!(found, RECORDS, "only what is past its last frame is cut"),
            Err(error) => assert!(matches!(error, LogError::Damaged { .. }), "{error}"),
        }
    }
    disk.set_bytes(&names[0], whole);
    disk.remove(&names[0]).unwrap();
    assert!(matches!(recovered(&disk), Err(LogError::Damaged { .. })));
    assert!(matches!(start(&disk), Err(LogError::Damaged { .. })));
}

#[test]
fn a_lost_header_does_not_hide_durable_records() {
    let (disk, names) = small_log();
    let mut bytes = disk.bytes(&names[1]);
    bytes[..SEGMENT_HEADER_BYTES as usize].fill(0);
    disk.set_bytes(&names[1], bytes);
    assert!(matches!(recovered(&disk), Err(LogError::Damaged { .. })));
}

#[test]
fn damage_changes_no_file() {
    let (disk, names) = small_log();
    let mut bytes = disk.bytes(&names[0]);
    bytes[SEGMENT_HEADER_BYTES as usize + 50] ^= 1;
    disk.set_bytes(&names[0], bytes);
    let files = |disk: &ModelDisk| {
        let names = disk.list().unwrap().into_iter().map(|(name, _)| name);
        names.map(|name| (disk.bytes(&name), name)).collect::<Vec<_>>()
    };
    let before = files(&disk);
    let error = start(&disk).err().expect("a durable record is unreadable");
    assert!(error.to_string().contains(&names[0]), "{error}");
    assert_eq!(files(&disk), before);
}

#[test]
fn a_lost_batch_in_a_file_that_was_not_begun_never_comes_back() {
    let disk = ModelDisk::new(3);
    let ready = recovery::list(&disk).unwrap().blanks.len();
    assert_eq!(ready, 0);
    let log = start(&disk).unwrap();
    while log.shared().lock().ready.is_empty() {
        std::thread::yield_now();
    }
    drop(log);
    // A first batch whose frames reached the disk and whose header did not.
    let blank = recovery::list(&disk).unwrap().blanks.remove(0);
    let frames: Vec<(FrameHeader, Bytes)> = (1..=3)
        .map(|seq| {
            let bytes = Frame::encode(&record(1, seq, 50)).bytes;
            let (length, body_crc) = (bytes.len() as u32, body_crc(&bytes));
            (FrameHeader { length, body_crc, position: at(1, seq), durable: Seq(0) }, bytes)
        })
        .collect();
    Segment::begun(&blank, Position::default())
        .write_frames(SEGMENT_HEADER_BYTES, &frames)
        .unwrap();
    let log = start(&disk).unwrap();
    assert_eq!(log.head(), at(0, 0));
    log.append(&record(1, 1, 50)).unwrap();
    drop(log);
    assert_eq!(start(&disk).unwrap().head(), at(1, 1));
}

#[test]
fn a_reader_of_the_files_sees_what_was_written_since_it_last_looked() {
    let disk = ModelDisk::new(4);
    let log = start(&disk).unwrap();
    let mut reader = log.reader(Seq(0)).unwrap();
    let stop = crate::log::Stop::new(&log);
    for seq in 1..=30 {
        log.append(&record(1, seq, 60)).unwrap();
        log.wait_durable(Seq(seq)).unwrap();
        let frames = reader.next_blocking(UpTo::Durable, 1000, &stop).unwrap();
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].record(), record(1, seq, 60));
    }
}

#[test]
fn a_reader_reports_what_changed_under_it() {
    let (disk, names) = small_log();
    let log = start(&disk).unwrap();
    let mut bytes = disk.bytes(&names[0]);
    bytes[SEGMENT_HEADER_BYTES as usize + 60] ^= 1;
    disk.set_bytes(&names[0], bytes);
    let mut reader = log.reader(Seq(0)).unwrap();
    let outcome = reader.next_blocking(UpTo::Durable, 1000, &crate::log::Stop::new(&log));
    assert!(matches!(outcome, Err(LogError::Damaged { seq: Seq(1), .. })), "{outcome:?}");
}
