//! Kills and power losses: whatever was on its way, the volume found again is a prefix of its log.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use mainstay_sync::log::LogOptions;
use mainstay_sync::op::Attributes;
use mainstay_sync::position::{ClusterId, Epoch, FileId, Seq};
use mainstay_sync::volume::{Volume, VolumeOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::{Counter, Writer, births, contents, copy_tree, options, root};

const CLUSTER: ClusterId = ClusterId([9; 16]);

/// Set in the child process: the state directory and the seed.
const CHILD_DIR: &str = "MAINSTAY_TEST_KILL_DIR";
const CHILD_SEED: &str = "MAINSTAY_TEST_KILL_SEED";

/// A disk that lost power keeps, of what was not synced, any part. Objects are not synced between
/// checkpoints, so each may be as at the checkpoint, as at the end, or missing if it is new.
#[test]
fn any_mix_of_old_and_new_objects_is_replayed_to_the_same_volume() {
    for seed in 0..4 {
        let (dir, old, mixed) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        let volume = Volume::open(dir.path(), options()).unwrap();
        volume.found(CLUSTER).unwrap();
        let leading = volume.lead(Epoch(1), "a").unwrap();
        let mut writer = Writer::new(&leading, Epoch(1), seed);
        writer.random_ops(120);
        volume.wait_applied(volume.head().seq).unwrap();
        volume.checkpoint().unwrap();
        copy_tree(&dir.path().join("objects"), old.path());
        writer.random_ops(200);
        let expected = contents(&volume);
        let model = writer.model.clone();
        drop((writer, leading, volume));
        // What is there now is what a kill leaves; from it, what a power loss may leave.
        copy_tree(dir.path(), mixed.path());
        mix(&mixed.path().join("objects"), old.path(), seed);

        let mixed = Volume::open(mixed.path(), options()).unwrap();
        assert_eq!(contents(&mixed), expected, "seed {seed}");
        let killed = Volume::open(dir.path(), options()).unwrap();
        assert_eq!(contents(&killed), expected, "seed {seed}");
        model.check(&expected);
        assert_eq!(births(&mixed), births(&killed), "seed {seed}: births too");
    }
}

fn mix(objects: &Path, old: &Path, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    for low in 0..256 {
        let low = format!("{low:02x}");
        for entry in std::fs::read_dir(objects.join(&low)).unwrap() {
            let entry = entry.unwrap();
            let before = old.join(&low).join(entry.file_name());
            match (random.random::<bool>(), before.exists()) {
                (true, _) => {}
                (false, true) => drop(std::fs::copy(before, entry.path()).unwrap()),
                (false, false) => std::fs::remove_file(entry.path()).unwrap(),
            }
        }
    }
}

/// Not a test of its own: what the child process of the next one runs.
#[test]
fn child_that_is_killed() {
    let (Ok(dir), Ok(seed)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_SEED)) else {
        return;
    };
    // Small segments and a slow applier: the log is far ahead of the objects, and the objects of
    // the checkpoint.
    let log = LogOptions { segment_bytes: 256 << 10, spare_segments: 1, ..options().log };
    let checkpoint_interval = Duration::from_millis(15);
    let options = VolumeOptions { log, checkpoint_interval, ..options() };
    let volume = Volume::open(Path::new(&dir), options).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::over(leading.journal.clone(), Epoch(1), seed.parse().unwrap());
    writer.model.now.nodes.insert(FileId::ROOT, root());
    leading.journal.on_applied(Box::new(|_| std::thread::sleep(Duration::from_millis(3))));
    loop {
        let (told, room) = std::sync::mpsc::channel();
        let waiter = Box::new(move |outcome| told.send(outcome).unwrap());
        match leading.journal.ready(100_000, waiter) {
            Some(_) => {}
            None => room.recv().unwrap().unwrap(),
        }
        writer.random_op();
        let seq = writer.last;
        let say = move |outcome: Result<(), _>| {
            outcome.unwrap();
            let mut out = std::io::stdout().lock();
            if writeln!(out, "committed {seq}").and_then(|()| out.flush()).is_err() {
                // Nobody is left to kill us.
                std::process::exit(0);
            }
        };
        leading.journal.when_committed(seq, Box::new(say));
    }
}

/// Kills it when it goes, also when the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_leader_is_found_at_a_prefix_with_everything_it_acknowledged() {
    for (seed, lines) in [(1_u64, 20), (2, 150), (3, 700)] {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_is_killed", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_SEED, seed.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let output = BufReader::new(child.0.stdout.take().unwrap());
        let mut acknowledged = Seq(0);
        let mut lines_left = lines;
        for line in output.lines() {
            let line = line.unwrap();
            // The test runner's own words may come before ours on a line.
            let Some((_, seq)) = line.split_once("committed ") else { continue };
            acknowledged = acknowledged.max(Seq(seq.trim().parse().unwrap()));
            lines_left -= 1;
            if lines_left == 0 {
                break;
            }
        }
        assert_eq!(lines_left, 0, "the child ended by itself");
        drop(child);

        let volume = Volume::open(dir.path(), options()).unwrap();
        let head = volume.head().seq;
        assert!(head >= acknowledged, "{acknowledged} was acknowledged, the log ends at {head}");
        let mut found = contents(&volume);
        // Made by the volume, at a time that the model cannot know.
        let at_root = &mut found.nodes.get_mut(&FileId::ROOT).unwrap().attributes;
        *at_root = Attributes { nlink: at_root.nlink, ..root().attributes };
        let counter = Counter(AtomicU64::new(1));
        let mut writer = Writer::over(Arc::new(counter), Epoch(1), seed);
        writer.model.now.nodes.insert(FileId::ROOT, root());
        while writer.last < head {
            writer.op_up_to(head);
        }
        writer.model.check(&found);
        drop(volume);
        let report = mainstay_sync::fsck::fsck(dir.path(), &options(), false).unwrap();
        assert!(report.problems.is_empty(), "{report:?}");
    }
}
