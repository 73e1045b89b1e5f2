//! A disk that refuses: failed writes and syncs, no space.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::model::{Fault, ModelDisk};
use super::{at, record};
use crate::log::{Log, LogError, LogOptions, Stop, UpTo};
use crate::position::{Epoch, Position, Seq};

const PATIENCE: Duration = Duration::from_secs(60);

fn options() -> LogOptions {
    LogOptions { segment_bytes: 8 << 10, tail_bytes: 0, spare_segments: 0 }
}

fn start(disk: &ModelDisk) -> Log {
    Log::start(Box::new(disk.clone()), options(), Position::default()).unwrap()
}

/// Both segments ahead are there, so that no operation but the writer's comes.
fn prepared(log: &Log) {
    let since = Instant::now();
    while log.shared().lock().ready.len() < 2 {
        assert!(since.elapsed() < PATIENCE, "no segments were prepared");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_again() {
    let disk = ModelDisk::new(1);
    let log = start(&disk);
    let told = Arc::new(AtomicU64::new(0));
    let hook = told.clone();
    log.on_durable(Box::new(move |position| hook.store(position.seq.0, Ordering::SeqCst)));
    log.append(&record(1, 1, 50)).unwrap();
    log.wait_durable(Seq(1)).unwrap();
    prepared(&log);
    let mut reader = log.reader(Seq(1)).unwrap();
    let stop = Stop::new(&log);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| reader.next_blocking(UpTo::Durable, 1000, &stop));
        disk.fail_after(0, Fault::SyncFails);
        log.append(&record(1, 2, 50)).unwrap();
        let failed = |error| matches!(error, LogError::Failed { .. });
        assert!(failed(log.wait_durable(Seq(2)).unwrap_err()));
        assert!(failed(reading.join().unwrap().unwrap_err()));
        assert!(failed(log.append(&record(1, 3, 50)).unwrap_err()));
        assert!(failed(log.seal(Epoch(1)).unwrap_err()), "no ballot from a failed log");
        assert!(failed(log.truncate_after(Seq(1)).unwrap_err()));
        assert!(failed(log.failed().unwrap()));
    });
    assert_eq!(log.durable(), at(1, 1));
    assert_eq!(log.wait_durable(Seq(1)).unwrap(), at(1, 1), "that much still holds");
    drop(log);
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[test]
fn a_failed_write_is_as_final() {
    let disk = ModelDisk::new(1);
    let log = start(&disk);
    prepared(&log);
    disk.fail_after(0, Fault::PowerLost);
    log.append(&record(1, 1, 50)).unwrap();
    assert!(matches!(log.wait_durable(Seq(1)), Err(LogError::Failed { .. })));
    assert!(matches!(log.append(&record(1, 2, 50)), Err(LogError::Failed { .. })));
}

#[test]
fn on_a_full_disk_what_was_taken_is_written_and_the_rest_refused() {
    let disk = ModelDisk::new(1);
    disk.set_room(Some(3 * (8 << 10) + 100));
    let log = start(&disk);
    let mut taken = 0;
    let refused = loop {
        match log.append(&record(1, taken + 1, 1000)) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LogError::NoSpace), "{refused}");
    assert!(taken >= 9, "three segments hold more than {taken}");
    assert_eq!(log.wait_durable(Seq(taken)).unwrap(), at(1, taken));
    assert!(log.failed().is_none());
    // A checkpoint makes room: released segments are used again.
    log.release(Seq(taken));
    goes_on(&log, &mut taken);
    // The log survives a start on a full disk.
    while log.append(&record(1, taken + 1, 1000)).is_ok() {
        taken += 1;
    }
    drop(log);
    let floor = at(1, taken - 1);
    let log = Log::start(Box::new(disk.clone()), options(), floor).unwrap();
    assert_eq!(log.head(), at(1, taken));
    assert!(matches!(log.append(&record(1, taken + 1, 1000)), Err(LogError::NoSpace)));
    disk.set_room(None);
    goes_on(&log, &mut taken);
    log.wait_durable(Seq(taken)).unwrap();
    drop(log);
    assert_eq!(Log::start(Box::new(disk), options(), floor).unwrap().head(), at(1, taken));
}

fn goes_on(log: &Log, taken: &mut u64) {
    let since = Instant::now();
    while let Err(error) = log.append(&record(1, *taken + 1, 1000)) {
        assert!(matches!(error, LogError::NoSpace), "{error}");
        assert!(since.elapsed() < PATIENCE, "there is room again, yet nothing is taken");
        std::thread::sleep(Duration::from_millis(5));
    }
    *taken += 1;
}

#[test]
fn sealing_waits_for_the_sync_in_flight_and_for_its_hooks() {
    let log = start(&ModelDisk::new(1));
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (held, told) = (gate.clone(), Arc::new(AtomicU64::new(0)));
    let hook = told.clone();
    log.on_durable(Box::new(move |position| {
        let mut open = held.0.lock().unwrap();
        while !*open {
            open = held.1.wait(open).unwrap();
        }
        hook.store(position.seq.0, Ordering::SeqCst);
    }));
    for seq in 1..=5 {
        log.append(&record(1, seq, 50)).unwrap();
    }
    std::thread::scope(|scope| {
        let sealing = scope.spawn(|| {
            let position = log.seal(Epoch(1)).unwrap();
            (position, told.load(Ordering::SeqCst))
        });
        // Sealed at once, though the hook still holds the first batch.
        let since = Instant::now();
        while log.shared().lock().sealed < Epoch(1) {
            assert!(since.elapsed() < PATIENCE, "the seal was not set");
            std::thread::yield_now();
        }
        assert!(matches!(log.append(&record(1, 6, 50)), Err(LogError::Sealed { .. })));
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        assert_eq!(sealing.join().unwrap(), (at(1, 5), 5));
    });
}
