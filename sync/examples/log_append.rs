//! How many durable appends a second the log does here, beside a plain write and sync.
//!
//! `cargo run --release -p mainstay-sync --example log_append -- DIR [SECONDS]`. DIR must be on
//! the disk to measure; the files made in it are removed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_sync::log::{Log, LogOptions};
use mainstay_sync::op::{Change, Head, Record, Time};
use mainstay_sync::position::{Epoch, FileId, Position, Seq};

/// A Postgres page, the commonest write.
const WRITE_BYTES: usize = 8 << 10;
const FILE_BYTES: u64 = 32 << 20;

#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("name a directory on the disk to measure")?;
    let seconds = arguments.next().map_or(Ok(3), |seconds| seconds.parse())?;
    let dir = tempfile::tempdir_in(Path::new(&dir))?;
    let lasts = Duration::from_secs(seconds);
    println!("plain write + sync, 1 thread:  {:6.0}/s", plain(dir.path(), lasts)?);
    for threads in [1, 8] {
        let rate = logged(&dir.path().join(threads.to_string()), threads, lasts)?;
        println!("log append + wait, {threads} thread(s): {rate:6.0}/s");
    }
    Ok(())
}

fn plain(dir: &Path, lasts: Duration) -> std::io::Result<f64> {
    let file = File::create(dir.join("plain"))?;
    file.write_all_at(&vec![0; usize::try_from(FILE_BYTES).unwrap_or(0)], 0)?;
    file.sync_all()?;
    let page = [7; WRITE_BYTES];
    let since = Instant::now();
    let mut done = 0;
    while since.elapsed() < lasts {
        file.write_all_at(&page, done * WRITE_BYTES as u64 % FILE_BYTES)?;
        file.sync_data()?;
        done += 1;
    }
    Ok(done as f64 / since.elapsed().as_secs_f64())
}

fn logged(dir: &Path, threads: usize, lasts: Duration) -> Result<f64, Box<dyn std::error::Error>> {
    let log = Log::open(dir, LogOptions::default(), Position::default())?;
    let (next, done) = (Mutex::new(Seq(1)), AtomicU64::new(0));
    let payload = Bytes::from(vec![7; WRITE_BYTES]);
    let since = Instant::now();
    std::thread::scope(|scope| {
        let work = || {
            while since.elapsed() < lasts {
                let mut next = next.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let seq = *next;
                log.append(&record(seq, payload.clone()))?;
                *next = seq.next();
                drop(next);
                log.wait_durable(seq)?;
                // As a checkpoint would, so that segments are used again.
                log.release(seq);
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or(Err(mainstay_sync::log::LogError::Closed))
        })
    })?;
    Ok(done.load(Ordering::Relaxed) as f64 / since.elapsed().as_secs_f64())
}

fn record(seq: Seq, payload: Bytes) -> Record {
    let id = FileId::new(Epoch(1), 1);
    let length = WRITE_BYTES as u32;
    let changes = vec![Change::Write { id, offset: seq.0 * u64::from(length), length }];
    Record { head: Head { epoch: Epoch(1), seq, at: Time::default(), changes }, payload }
}
