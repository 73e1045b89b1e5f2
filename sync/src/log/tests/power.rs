//! Lives of a log that end in power losses, kills and failed syncs at any point.
//!
//! After each, the log must open, hold everything that it ever called durable, nothing that was
//! never appended or was cut off, and all of it in order.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::model::{Fault, ModelDisk};
use super::{at, record};
use crate::log::{Log, LogError, LogOptions, Stop, UpTo};
use crate::op::Record;
use crate::position::{Position, Seq};

const SEEDS: u64 = 60;
const LIVES: u64 = 12;

fn tiny() -> LogOptions {
    LogOptions { segment_bytes: 8 << 10, tail_bytes: 1 << 10, spare_segments: 2 }
}

/// What one who watched the log knows of it.
struct Witness {
    /// The records from seq 1 on that may be there.
    history: Vec<Record>,
    /// Those of them that must be.
    durable: u64,
    checkpoint: Position,
    epoch: u64,
}

impl Witness {
    fn head(&self) -> u64 {
        self.history.len() as u64
    }

    /// What comes after `after` from now on is of a newer epoch.
    fn cut(&mut self, after: u64) {
        self.history.truncate(after as usize);
        self.epoch += 1;
    }

    /// Checks a log that was just opened.
    fn recovered(&mut self, log: &Log) {
        let head = log.head().seq.0;
        assert_eq!(log.durable(), log.head());
        assert!(
            (self.durable..=self.head()).contains(&head),
            "recovered {head} of {}, of which {} were durable",
            self.head(),
            self.durable
        );
        let first = log.first().0;
        assert!(first <= self.checkpoint.seq.0 + 1);
        let stop = Stop::new(log);
        let mut reader = log.reader(Seq(first - 1)).unwrap();
        while reader.next_seq().0 <= head {
            for frame in reader.next_blocking(UpTo::Durable, 3000, &stop).unwrap() {
                assert_eq!(frame.record(), self.history[frame.seq().0 as usize - 1]);
            }
        }
        self.cut(head);
        self.durable = head;
    }

    /// Lives with the log until it fails or enough was done.
    fn live(&mut self, log: &Log, rng: &mut StdRng) {
        let mut failed_cut = None;
        for _ in 0..rng.random_range(1..60) {
            let outcome = match rng.random_range(0..20) {
                0 => {
                    let cut = rng.random_range(self.checkpoint.seq.0..=self.head());
                    let outcome = log.truncate_after(Seq(cut));
                    match outcome {
                        Ok(()) => self.cut(cut),
                        Err(_) if log.failed().is_some() => failed_cut = Some(cut),
                        Err(_) => {}
                    }
                    outcome
                }
                1..=3 => log.wait_durable(log.head().seq).map(|_| ()),
                4 => {
                    self.release(log);
                    Ok(())
                }
                _ => self.append(log, rng),
            };
            if let Err(error) = outcome {
                assert!(ends(&error), "{error}");
                break;
            }
        }
        // After a cut that failed, the old log or the new one may be there.
        self.durable = log.durable().seq.0.min(failed_cut.unwrap_or(u64::MAX));
    }

    fn append(&mut self, log: &Log, rng: &mut StdRng) -> Result<(), LogError> {
        // Few lengths, so that what was lost or cut off often fits what comes instead.
        let length = [8, 8, 600, 2000][rng.random_range(0..4)];
        let record = record(self.epoch, self.head() + 1, length);
        log.append(&record)?;
        self.history.push(record);
        Ok(())
    }

    fn release(&mut self, log: &Log) {
        self.checkpoint = log.durable();
        log.release(self.checkpoint.seq);
    }
}

/// Names the seed that failed.
struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    #[expect(clippy::print_stderr, reason = "a test's last words")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was seed {}", self.0);
        }
    }
}

fn ends(error: &LogError) -> bool {
    matches!(error, LogError::Failed { .. } | LogError::Io { .. })
}

fn lives(seed: u64) {
    let _named = SeedOnPanic(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = ModelDisk::new(seed);
    let mut witness = Witness { history: Vec::new(), durable: 0, checkpoint: at(0, 0), epoch: 1 };
    for _ in 0..LIVES {
        let fault = if rng.random_ratio(1, 3) { Fault::SyncFails } else { Fault::PowerLost };
        if rng.random_ratio(1, 4) {
            disk.fail_after(rng.random_range(0..15), fault);
        }
        match Log::start(Box::new(disk.clone()), tiny(), witness.checkpoint) {
            Ok(log) => {
                witness.recovered(&log);
                disk.fail_after(rng.random_range(0..120), fault);
                witness.live(&log, &mut rng);
            }
            Err(error) => assert!(ends(&error), "{error}"),
        }
        disk = if rng.random_ratio(1, 3) { disk.after_kill() } else { disk.after_power_loss() };
    }
    let log = Log::start(Box::new(disk), tiny(), witness.checkpoint).unwrap();
    witness.recovered(&log);
}

#[test]
fn what_was_durable_survives_and_nothing_else_comes_back() {
    for seed in 0..SEEDS {
        lives(seed);
    }
}

#[test]
fn a_restarted_log_stays_so_through_power_losses() {
    let floor = at(4, 900);
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = ModelDisk::new(seed);
        let log = Log::start(Box::new(disk.clone()), tiny(), at(0, 0)).unwrap();
        for seq in 1..=10 {
            log.append(&record(1, seq, 1000)).unwrap();
        }
        log.restart_at(floor).unwrap();
        log.append(&record(4, 901, 1000)).unwrap();
        log.wait_durable(Seq(901)).unwrap();
        let mut disk = disk.after_power_loss();
        drop(log);
        for _ in 0..3 {
            disk.fail_after(rng.random_range(0..40), Fault::PowerLost);
            drop(Log::start(Box::new(disk.clone()), tiny(), floor));
            disk = disk.after_power_loss();
        }
        let log = Log::start(Box::new(disk), tiny(), floor).unwrap();
        assert_eq!((log.head(), log.first()), (at(4, 901), Seq(901)), "seed {seed}");
    }
}
