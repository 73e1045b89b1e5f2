//! A host that dies: whatever its file system had not been told to sync is gone.
//!
//! The state directory is on an ext4 of its own, which is shut down as a power cut would (its
//! journal not flushed either) and mounted again. What was acknowledged must be there, and the
//! volume must be a prefix of its log; in the middle of a delta, the old volume or the new one.

mod support;

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use mainstay_sync::log::LogOptions;
use mainstay_sync::op::{Attributes, Kind};
use mainstay_sync::position::{ClusterId, Epoch, FileId, Seq};
use mainstay_sync::volume::{Volume, VolumeOptions};
use support::{
    Contents, Counter, DELTA_STEPS, Writer, contents, copy_all, delta_all, options, root,
};

const CLUSTER: ClusterId = ClusterId([9; 16]);

/// Set in the child process: which one it is, where it works, and its seed or the leader.
const CHILD: &str = "MAINSTAY_TEST_POWER_CHILD";
const CHILD_DIR: &str = "MAINSTAY_TEST_POWER_DIR";
const CHILD_WITH: &str = "MAINSTAY_TEST_POWER_WITH";

/// Kills it when it goes, also when the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A disk in a file: a new one at each cut, as somebody else's mount namespace may hold on to the
/// file system that was shut down.
struct Disk {
    dir: tempfile::TempDir,
    cuts: Cell<u32>,
}

impl Disk {
    /// `None`: this machine cannot have one, which was said aloud.
    fn new(test: &str) -> Option<Disk> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk { dir, cuts: Cell::new(0) };
        std::fs::create_dir(disk.point()).unwrap();
        File::create(disk.image()).unwrap().set_len(512 << 20).unwrap();
        let made = run("mkfs.ext4", &["-q", "-F", "-m", "0", &disk.image()]);
        let mounted = made.and_then(|()| disk.mount());
        match mounted.and_then(|()| disk.cut()) {
            Ok(()) => Some(disk),
            Err(why) => {
                let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
                None
            }
        }
    }

    fn image(&self) -> String {
        self.dir.path().join(format!("image{}", self.cuts.get())).to_str().unwrap().to_owned()
    }

    fn point(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop,noatime", &self.image(), self.point().to_str().unwrap()])
    }

    /// Loses power, and comes back with what was synced. Nobody may be at work on it.
    fn cut(&self) -> Result<(), String> {
        // EXT4_IOC_SHUTDOWN, and of its flags EXT4_GOING_FLAGS_NOLOGFLUSH.
        const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
        let nothing_flushed: u32 = 2;
        let point = File::open(self.point()).unwrap();
        // SAFETY: the request reads a u32 through the pointer, which lives longer than the call.
        let shut = unsafe { libc::ioctl(point.as_raw_fd(), SHUTDOWN, &raw const nothing_flushed) };
        if shut != 0 {
            return Err(format!("no power cut: {}", std::io::Error::last_os_error()));
        }
        drop(point);
        run("umount", &["-l", self.point().to_str().unwrap()])?;
        let before = self.image();
        self.cuts.set(self.cuts.get() + 1);
        run("cp", &["--sparse=always", &before, &self.image()])?;
        std::fs::remove_file(before).unwrap();
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", self.point().to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

fn child(which: &str, dir: &Path, with: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["child_on_the_disk", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, which)
        .env(CHILD_DIR, dir)
        .env(CHILD_WITH, with)
        .stdin(Stdio::null())
        .process_group(0);
    command
}

/// Not a test of its own: what the child processes of the others run.
#[test]
fn child_on_the_disk() {
    let variable = |name| std::env::var(name).ok();
    let (Some(which), Some(dir), Some(with)) =
        (variable(CHILD), variable(CHILD_DIR), variable(CHILD_WITH))
    else {
        return;
    };
    match which.as_str() {
        "writes" => write(Path::new(&dir), with.parse().unwrap()),
        _ => catch_up(Path::new(&with), Path::new(&dir), which == "goes back"),
    }
}

/// Writes until killed, and says what is committed.
fn write(dir: &Path, seed: u64) {
    // Small segments, a slow applier and many checkpoints: everything is always half done.
    let log = LogOptions { segment_bytes: 256 << 10, spare_segments: 1, ..options().log };
    let checkpoint_interval = Duration::from_millis(15);
    let options = VolumeOptions { log, checkpoint_interval, ..options() };
    let volume = Volume::open(dir, options).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::over(leading.journal.clone(), Epoch(1), seed);
    writer.model.now.nodes.insert(FileId::ROOT, root());
    leading.journal.on_applied(Box::new(|_| std::thread::sleep(Duration::from_millis(1))));
    loop {
        let (told, room) = std::sync::mpsc::channel();
        let waiter = Box::new(move |outcome| told.send(outcome).unwrap());
        if leading.journal.ready(100_000, waiter).is_none() {
            room.recv().unwrap().unwrap();
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

#[test]
fn a_power_cut_leaves_a_prefix_with_everything_that_was_acknowledged() {
    let Some(disk) = Disk::new("a_power_cut_leaves_a_prefix") else { return };
    for (seed, lines) in [(1_u64, 3), (2, 40), (3, 200), (4, 500), (5, 900)] {
        let state = disk.point().join(format!("state{seed}"));
        let child = child("writes", &state, &seed.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = Killed(child.unwrap());
        let mut acknowledged = Seq(0);
        let mut lines_left = lines;
        for line in BufReader::new(child.0.stdout.take().unwrap()).lines() {
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
        disk.cut().unwrap();

        let report = mainstay_sync::fsck::fsck(&state, &options(), false).unwrap();
        assert!(report.problems.is_empty(), "seed {seed}: {report:?}");
        let volume = Volume::open(&state, options()).unwrap();
        let head = volume.head().seq;
        assert!(head >= acknowledged, "{acknowledged} was acknowledged, the log ends at {head}");
        let mut found = contents(&volume);
        // Made by the volume, at a time that the model cannot know.
        let at_root = &mut found.nodes.get_mut(&FileId::ROOT).unwrap().attributes;
        *at_root = Attributes { nlink: at_root.nlink, ..root().attributes };
        let mut writer = Writer::over(Arc::new(Counter(AtomicU64::new(1))), Epoch(1), seed);
        writer.model.now.nodes.insert(FileId::ROOT, root());
        while writer.last < head {
            writer.op_up_to(head);
        }
        writer.model.check(&found);
        drop(volume);
        std::fs::remove_dir_all(state).unwrap();
    }
}

fn open(dir: &Path) -> Volume {
    Volume::open(dir, options()).unwrap()
}

fn catch_up(leader: &Path, follower: &Path, whole: bool) {
    let (leader, follower) = (open(leader), open(follower));
    let (head, theirs) = (follower.head().seq, leader.lineage());
    let base = follower.lineage().common_ancestor(head, &theirs, leader.head().seq);
    delta_all(&leader, &follower, base, whole, |_| {});
}

/// A leader and a follower of it, in directories of their own, and what they hold. The follower
/// is behind; or it went on alone and lost.
fn pair(dir: &Path, diverged: bool) -> (Contents, Contents) {
    let (one, two) = (open(&dir.join("leader")), open(&dir.join("follower")));
    one.found(CLUSTER).unwrap();
    let leading = one.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::new(&leading, Epoch(1), 31);
    writer.random_ops(60);
    copy_all(&one, &two, |_| {});
    if !diverged {
        writer.random_ops(60);
        one.wait_applied(one.head().seq).unwrap();
        let (before, after) = (contents(&two), contents(&one));
        drop((writer, leading));
        one.close().unwrap();
        two.close().unwrap();
        return (before, after);
    }
    writer.random_ops(30);
    let kept = writer.create(Kind::File);
    writer.write(kept, 0, b"only here");
    leading.end();
    let lost = contents(&one);
    let leading = two.lead(Epoch(2), "b").unwrap();
    let mut writer = Writer::new(&leading, Epoch(2), 32);
    for (id, node) in contents(&two).nodes {
        writer.model.now.nodes.insert(id, node);
    }
    writer.random_ops(30);
    two.wait_applied(two.head().seq).unwrap();
    let won = contents(&two);
    drop((writer, leading));
    one.close().unwrap();
    two.close().unwrap();
    let names = ["leader", "follower", "between"].map(|name| dir.join(name));
    std::fs::rename(&names[0], &names[2]).unwrap();
    std::fs::rename(&names[1], &names[0]).unwrap();
    std::fs::rename(&names[2], &names[1]).unwrap();
    (lost, won)
}

#[test]
fn a_power_cut_at_any_step_of_a_delta_leaves_the_old_volume_or_the_new_one() {
    let Some(disk) = Disk::new("a_power_cut_at_any_step_of_a_delta") else { return };
    for (which, diverged) in [("catches up", false), ("goes back", true)] {
        let dir = tempfile::tempdir().unwrap();
        let (before, after) = pair(dir.path(), diverged);
        for (step, switched) in DELTA_STEPS {
            let (leader, state) = (disk.point().join("leader"), disk.point().join("follower"));
            for (from, to) in [("leader", &leader), ("follower", &state)] {
                run("cp", &["-a", dir.path().join(from).to_str().unwrap(), to.to_str().unwrap()])
                    .unwrap();
            }
            rustix::fs::syncfs(File::open(disk.point()).unwrap()).unwrap();
            let with = leader.to_str().unwrap();
            let output =
                child(which, &state, with).env("MAINSTAY_TEST_KILL_AT", step).output().unwrap();
            assert!(!output.status.success(), "{which}: it is killed at {step:?}");
            disk.cut().unwrap();

            let follower = open(&state);
            let now = contents(&follower);
            let expected = if switched { &after } else { &before };
            assert!(now == *expected, "{which}: not as it should be, cut at {step:?}");
            drop(follower);
            let report = mainstay_sync::fsck::fsck(&state, &options(), false).unwrap();
            assert!(report.problems.is_empty(), "{which}, {step:?}: {report:?}");
            if diverged && switched {
                let kept = mainstay_sync::quarantine::list(&state).unwrap();
                assert_eq!(kept.len(), 1, "{step:?}: what lost is kept");
                assert!(holds(&state.join("quarantine"), b"only here"), "{step:?}: with its bytes");
            }
            for done in [leader, state] {
                std::fs::remove_dir_all(done).unwrap();
            }
        }
    }
}

fn holds(below: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(below).unwrap().flatten().any(|entry| {
        let path = entry.path();
        match std::fs::symlink_metadata(&path).unwrap() {
            of if of.is_dir() => holds(&path, bytes),
            of => of.is_file() && std::fs::read(&path).unwrap() == bytes,
        }
    })
}
