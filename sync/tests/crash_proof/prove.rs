//! Records a store's log and starts the store again at many prefixes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mainstay_sync::capture::{Gate, Mount, MountOptions};
use mainstay_sync::journal::{Journal, Refused, Waiter};
use mainstay_sync::log::{Frame, Stop, UpTo};
use mainstay_sync::op::{Change, Record, Time};
use mainstay_sync::position::{ClusterId, Epoch, Seq};
use mainstay_sync::volume::{Volume, VolumeOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::plain::dump;
use crate::{rig, support};

pub const CHILD: &str = "MAINSTAY_TEST_CRASH_STORE";
pub const CHILD_DIR: &str = "MAINSTAY_TEST_CRASH_DIR";
/// Rows that each store writes.
pub const ROWS: u64 = 60;

const CLUSTER: ClusterId = ClusterId([3; 16]);

struct Open;

impl Gate for Open {
    fn open(&self) -> bool {
        true
    }
}

/// Ends with the test, whatever happens, and its process group with it.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            // Not a group's leader: then there is none of that number.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The volume's journal, which remembers what the store asked to be safe.
struct Asked {
    journal: Arc<dyn Journal>,
    fsynced: Mutex<BTreeSet<u64>>,
}

impl Journal for Asked {
    fn append(&self, at: Time, changes: Vec<Change>, payload: Bytes) -> Result<Seq, Refused> {
        self.journal.append(at, changes, payload)
    }

    fn ready(&self, bytes: u64, waiter: Waiter) -> Option<Waiter> {
        self.journal.ready(bytes, waiter)
    }

    fn when_committed(&self, seq: Seq, waiter: Waiter) {
        self.fsynced.lock().unwrap().insert(seq.0);
        self.journal.when_committed(seq, waiter);
    }

    fn applied(&self) -> Seq {
        self.journal.applied()
    }

    fn on_applied(&self, told: Box<dyn Fn(Seq) + Send + Sync>) {
        self.journal.on_applied(told);
    }
}

/// A store's whole log.
struct Recorded {
    records: Vec<Record>,
    /// After which op each row was acknowledged at the latest.
    acknowledged: BTreeMap<u64, Seq>,
    /// Up to where an fsync waited, of each that there was.
    fsynced: BTreeSet<u64>,
}

/// Runs `store` on a mount, in a process of its own that says `row n` once it holds row n.
fn record(store: &str) -> Option<Recorded> {
    if let Some(reason) = rig::unable() {
        rig::skipped(store, reason);
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    // Databases insist on users of their own.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let place = dir.path().join("mount");
    let options = VolumeOptions { log_bytes_max: 1 << 30, ..support::options() };
    let volume = Volume::open(&dir.path().join("state"), options).unwrap();
    volume.found(CLUSTER).unwrap();
    let _pin = volume.log().pin(Seq(0)).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let options = MountOptions::new(&place, "crash", Epoch(1));
    let (image, objects) = (leading.image.clone(), leading.objects.clone());
    let journal = Arc::new(Asked { journal: leading.journal.clone(), fsynced: Mutex::default() });
    let mount = Mount::new(options, image, journal.clone(), objects, Arc::new(Open)).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child_that_stores", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, store)
        .env(CHILD_DIR, &place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut acknowledged = BTreeMap::new();
    for line in BufReader::new(child.0.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, row)) = line.split_once("row ") else { continue };
        acknowledged.insert(row.trim().parse().unwrap(), volume.head().seq);
    }
    assert!(child.0.wait().unwrap().success(), "{store} failed");
    drop(child);
    assert_eq!(acknowledged.len() as u64, ROWS, "{store}");
    let last = volume.head().seq;
    let log = volume.log();
    let stop = Stop::new(&log);
    let mut reader = log.reader(Seq(0)).unwrap();
    let mut records = Vec::new();
    while reader.next_seq() <= last {
        let frames = reader.next_blocking(UpTo::Durable, 1 << 20, &stop).unwrap();
        records.extend(frames.iter().map(Frame::record));
    }
    drop(reader);
    mount.abort().unwrap();
    let fsynced = std::mem::take(&mut *journal.fsynced.lock().unwrap());
    Some(Recorded { records, acknowledged, fsynced })
}

/// After which ops the store is started again, unless `PREFIXES` says otherwise.
#[derive(Clone, Copy)]
pub enum Points {
    /// After each.
    Every,
    /// After so many.
    Sample(usize),
}

/// Logs of at most so many ops are small.
const SMALL: u64 = 4_000;

fn choose(recorded: &Recorded, points: Points, seed: u64) -> BTreeSet<u64> {
    let first = recorded.acknowledged[&1].0;
    let last = recorded.records.last().unwrap().head.seq.0;
    let asked = std::env::var("PREFIXES").ok();
    let points = match asked.as_deref().map(str::parse) {
        Some(Ok(number)) => Points::Sample(number),
        Some(Err(_)) => Points::Every,
        None => points,
    };
    let fsynced: Vec<u64> = recorded.fsynced.range(first..=last).copied().collect();
    let around = |seq: u64| (seq.saturating_sub(1)..=seq + 1).map(|at| at.clamp(first, last));
    match points {
        Points::Every if last - first <= SMALL => (first..=last).collect(),
        Points::Every => fsynced.into_iter().flat_map(around).collect(),
        Points::Sample(number) => {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut chosen = BTreeSet::from([first, last]);
            for turn in 0..number {
                let seq = match turn % 3 {
                    0 => fsynced[random.random_range(0..fsynced.len())] + random.random_range(0..2),
                    1 => {
                        let near = recorded.acknowledged[&random.random_range(1..=ROWS)].0;
                        near.saturating_sub(random.random_range(0..3))
                    }
                    _ => random.random_range(first..=last),
                };
                chosen.insert(seq.clamp(first, last));
            }
            chosen
        }
    }
}

/// Builds the volume at many prefixes and has `holds` say how many rows the store finds there.
pub fn prove(store: &str, holds: fn(&Path) -> Result<u64, String>, points: Points) {
    let Some(recorded) = record(store) else { return };
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let chosen = choose(&recorded, points, seed);
    println!(
        "{store}: {} ops, {} fsyncs, {} prefixes",
        recorded.records.len(),
        recorded.fsynced.len(),
        chosen.len()
    );
    let state = tempfile::tempdir().unwrap();
    let volume = Volume::open(state.path(), support::options()).unwrap();
    volume.found(CLUSTER).unwrap();
    let mut next = recorded.records.iter();
    for prefix in chosen {
        while volume.head().seq < Seq(prefix) {
            // As a follower's intake does: what is not applied is bounded.
            let (told, room) = std::sync::mpsc::channel();
            let waiter = Box::new(move |outcome| told.send(outcome).unwrap());
            if volume.ready(1 << 20, waiter).is_none() {
                room.recv().unwrap().unwrap();
            }
            volume.receive(Epoch(1), next.next().unwrap()).unwrap();
        }
        let above = tempfile::tempdir().unwrap();
        std::fs::set_permissions(above.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let plain = above.path().join("data");
        std::fs::create_dir(&plain).unwrap();
        dump(&volume, &plain);
        let needed = recorded.acknowledged.values().filter(|seq| seq.0 <= prefix).count() as u64;
        match holds(&plain) {
            Ok(rows) => assert!(
                rows >= needed && rows <= ROWS,
                "{store}, SEED={seed}, op {prefix}: {rows} rows, {needed} were acknowledged"
            ),
            Err(why) => panic!("{store}, SEED={seed}, op {prefix}: {why}"),
        }
    }
}
