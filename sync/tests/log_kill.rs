//! A process that appends is killed, again and again, and the log goes on where it was.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use mainstay_sync::log::{Log, LogOptions, Stop, UpTo};
use mainstay_sync::op::{Change, Head, Record, Time};
use mainstay_sync::position::{Epoch, FileId, Position, Seq};

/// Tells the child which log to append to. Without it `appending_child` has nothing to do.
const DIR: &str = "MAINSTAY_TEST_LOG_DIR";
const KILLS: u64 = 5;
const APPENDS_PER_LIFE: usize = 60;

fn open(dir: &Path) -> Log {
    let options = LogOptions { segment_bytes: 64 << 10, tail_bytes: 0, spare_segments: 1 };
    Log::open(dir, options, Position::default()).expect("a killed log opens")
}

/// The record that every life would write at `seq`, but for its epoch.
fn record(epoch: u64, seq: u64) -> Record {
    let payload: Vec<u8> = (0..100 + seq * 37 % 3000).map(|i| (i + seq) as u8).collect();
    let id = FileId::new(Epoch(1), 1);
    let changes = vec![Change::Write { id, offset: seq, length: payload.len() as u32 }];
    let head = Head { epoch: Epoch(epoch), seq: Seq(seq), at: Time::default(), changes };
    Record { head, payload: Bytes::from(payload) }
}

/// Not a test of its own: what `a_killed_log_goes_on` starts and kills.
#[test]
fn appending_child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let log = open(Path::new(&dir));
    let epoch = log.head().epoch.0 + 1;
    let mut out = std::io::stdout();
    for seq in log.head().seq.0 + 1.. {
        log.append(&record(epoch, seq)).expect("the log takes records");
        if seq % 3 == 0 {
            let durable = log.wait_durable(Seq(seq)).expect("the log makes them durable");
            // The parent is gone: so is the reason to go on.
            if writeln!(out, "\ndurable {}", durable.seq).and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    }
}

/// Kills the child however the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One life of the child: the last seq that it called durable before it was killed.
fn live_and_die(dir: &Path) -> u64 {
    let mut child = Killed(
        Command::new(std::env::current_exe().expect("a test knows its binary"))
            .args(["--exact", "appending_child", "--nocapture"])
            .env(DIR, dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary starts again"),
    );
    let lines = BufReader::new(child.0.stdout.take().expect("it was piped")).lines();
    let told = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("durable ").and_then(|seq| seq.parse::<u64>().ok()));
    told.take(APPENDS_PER_LIFE).last().expect("the child appended")
}

#[test]
fn a_killed_log_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut durable = 0;
    for _ in 0..KILLS {
        durable = live_and_die(dir.path()).max(durable);
    }
    let log = open(dir.path());
    let head = log.head();
    assert!(head.seq.0 >= durable, "{head} was recovered, {durable} was durable");
    assert_eq!(head.epoch.0, KILLS, "each life was an epoch of its own");
    let mut reader = log.reader(Seq(0)).expect("nothing was released");
    let stop = Stop::new(&log);
    while reader.next_seq() <= head.seq {
        for frame in reader.next_blocking(UpTo::Durable, 1 << 20, &stop).expect("all is readable") {
            assert_eq!(frame.record(), record(frame.head.epoch.0, frame.head.seq.0));
        }
    }
}
