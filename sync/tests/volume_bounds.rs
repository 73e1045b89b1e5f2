//! A volume at its bounds: full disks, slow appliers, tails that must go.

// A test that is skipped says so where people look.
#![allow(clippy::print_stderr)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_sync::journal::Refused;
use mainstay_sync::op::{Change, Kind};
use mainstay_sync::position::{ClusterId, Epoch, FileId, Position, Seq};
use mainstay_sync::volume::{Allowance, Volume, VolumeError, VolumeOptions};
use support::{Writer, contents, options, record_of};

const CLUSTER: ClusterId = ClusterId([7; 16]);

/// Waits for what another thread brings about; far longer than it takes anywhere.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "still not so: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A small file system of its own, unmounted when it goes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where it cannot be mounted, which is said.
    fn mount(at: &Path, bytes: u64, test: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(at)
            .output();
        match done {
            Ok(output) if output.status.success() => Some(SmallDisk(at.to_owned())),
            other => {
                eprintln!("SKIPPED: {test}: no tmpfs can be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_bound_on_appends_ends_with_the_leadership_and_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::open(dir.path(), options()).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let nothing = Some(Allowance { bytes: 0, until: None });
    volume.allow_appends(nothing);
    let (told, hears) = mpsc::channel();
    let parked = volume.ready(1, Box::new(move |outcome| told.send(outcome).unwrap()));
    assert!(parked.is_none() && volume.wants_to_append(), "it waits at the bound");
    volume.allow_appends(None);
    assert_eq!(hears.try_recv(), Ok(Ok(())), "and goes on without one");
    volume.allow_appends(nothing);
    leading.end();
    // Whoever bounds may be a step behind.
    volume.allow_appends(nothing);
    assert!(volume.ready(1, Box::new(|_| ())).is_some(), "a follower's intake is not bounded");
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let name = "a_full_disk_is_waited_for_and_nothing_is_lost";
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 40 << 20, name) else { return };
    let volume = Volume::open(&disk.0.join("state"), options()).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::new(&leading, Epoch(1), 1);
    let id = writer.create(Kind::File);
    volume.wait_applied(volume.head().seq).unwrap();
    // The log has room ahead of itself; the objects have none from now on.
    let ballast = disk.0.join("ballast");
    fill(&ballast);
    writer.write(id, 0, &vec![7; 300_000]);
    eventually("it says that the disk is full", || {
        volume.trouble().is_some_and(|trouble| trouble.contains("full"))
    });
    assert!(volume.applied() < volume.head().seq);
    std::fs::remove_file(&ballast).unwrap();
    volume.wait_applied(volume.head().seq).unwrap();
    eventually("it is content again", || volume.trouble().is_none());
    writer.model.check(&contents(&volume));

    // The same for the index: rows enough that they do not fit.
    for _ in 0..300 {
        writer.create(Kind::File);
    }
    volume.wait_applied(volume.head().seq).unwrap();
    fill(&ballast);
    let refused = volume.checkpoint().unwrap_err();
    assert!(refused.is_full(), "{refused}");
    std::fs::remove_file(&ballast).unwrap();
    volume.checkpoint().unwrap();
    let model = writer.model.clone();
    drop((writer, leading, volume));
    let volume = Volume::open(&disk.0.join("state"), options()).unwrap();
    model.check(&contents(&volume));
}

/// Takes every byte that is left.
fn fill(ballast: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(ballast).unwrap();
    for size in [64 * 1024, 4096] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn writers_wait_while_too_much_is_unapplied() {
    let dir = tempfile::tempdir().unwrap();
    let options = VolumeOptions { unapplied_bytes_max: 100_000, ..options() };
    let volume = Volume::open(dir.path(), options).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::new(&leading, Epoch(1), 1);
    let id = writer.create(Kind::File);
    volume.wait_applied(volume.head().seq).unwrap();
    // Nobody is turned away when nothing waits, however much it brings.
    assert!(leading.journal.ready(1 << 30, Box::new(|_| {})).is_some());
    // The applier tells us of each op, and goes on when we let it.
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    leading.journal.on_applied(Box::new(move |_| {
        let _ = held.lock().unwrap().recv();
    }));
    writer.write(id, 0, &[1; 10]);
    writer.write(id, 0, &vec![1; 200_000]);
    let (told, answer) = mpsc::channel();
    let waiter = Box::new(move |outcome| told.send(outcome).unwrap());
    assert!(leading.journal.ready(1000, waiter).is_none(), "it must wait");
    assert!(answer.try_recv().is_err());
    drop(release);
    assert_eq!(answer.recv_timeout(Duration::from_secs(60)).unwrap(), Ok(()));
    volume.wait_applied(volume.head().seq).unwrap();
}

#[test]
fn whoever_waits_for_room_is_told_when_the_leadership_ends() {
    let dir = tempfile::tempdir().unwrap();
    let options = VolumeOptions { log_bytes_max: 0, ..options() };
    let volume = Volume::open(dir.path(), options).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let journal = leading.journal.clone();
    let mut writer = Writer::new(&leading, Epoch(1), 1);
    let (told, answers) = mpsc::channel();
    let mut waiting = 0;
    // A log that may hold nothing makes everybody wait for a checkpoint, sooner or later.
    for _ in 0..200 {
        writer.random_op();
        let told = told.clone();
        let waiter = Box::new(move |outcome| told.send(outcome).unwrap());
        waiting += usize::from(journal.ready(1000, waiter).is_none());
    }
    assert!(waiting > 0);
    leading.end();
    for _ in 0..waiting {
        // Let in by a checkpoint, or turned away: nobody is forgotten.
        answers.recv_timeout(Duration::from_secs(60)).unwrap().ok();
    }
}

#[test]
fn records_that_were_never_applied_are_cut_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::open(dir.path(), options()).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::new(&leading, Epoch(1), 1);
    let id = writer.create(Kind::File);
    volume.wait_applied(volume.head().seq).unwrap();
    let (ancestor, model) = (volume.head(), writer.model.clone());
    // An applier that cannot go on leaves what comes now in the log alone.
    let object = support::object_path(dir.path(), id);
    std::fs::create_dir(&object).unwrap();
    writer.write(id, 0, &[3; 1000]);
    volume.wait_applied(volume.head().seq).unwrap_err();
    std::fs::remove_dir(&object).unwrap();
    drop((writer, leading));
    volume.truncate_after(ancestor).unwrap();
    assert_eq!(volume.head(), ancestor);
    model.check(&contents(&volume));
    let kept = mainstay_sync::quarantine::list(dir.path()).unwrap();
    assert!(kept[0].manifest.position > ancestor, "{kept:?}");
    let records = dir.path().join("quarantine").join(&kept[0].name).join("records");
    assert!(std::fs::metadata(records).unwrap().len() > 1000);
    // A newer leader's records take the place of those that went.
    let start = Change::EpochStart { node: "b".into() };
    let next = ancestor.seq.next();
    volume.receive(Epoch(2), &record_of(Epoch(2), next, vec![start])).unwrap();
    volume.wait_applied(next).unwrap();
    assert_eq!(volume.lineage().0, [(Epoch(1), Seq(1)), (Epoch(2), next)]);
}

/// What the process before applied is in the objects, whether it was applied again yet or not.
#[test]
fn a_tail_that_an_earlier_process_applied_is_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::open(dir.path(), options()).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::new(&leading, Epoch(1), 1);
    let ancestor = volume.checkpoint().unwrap();
    let id = writer.create(Kind::File);
    // So much that it is not applied again by the time the volume is open.
    for part in 0..40 {
        writer.write(id, part << 19, &vec![7; 1 << 19]);
    }
    let head = volume.head();
    volume.wait_applied(head.seq).unwrap();
    drop((writer, leading, volume));
    let volume = Volume::open(dir.path(), options()).unwrap();
    assert_eq!(volume.touched(), head.seq);
    let refused = volume.truncate_after(ancestor).unwrap_err();
    assert!(matches!(refused, VolumeError::Applied { .. }), "{refused}");
    assert_eq!(volume.head(), head);
}

#[test]
fn a_tail_that_was_applied_is_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::open(dir.path(), options()).unwrap();
    volume.found(CLUSTER).unwrap();
    let start = Change::EpochStart { node: "a".into() };
    volume.receive(Epoch(1), &record_of(Epoch(1), Seq(1), vec![start])).unwrap();
    volume.wait_applied(Seq(1)).unwrap();
    let ancestor = volume.head();
    let applied = volume.truncate_after(Position::default()).unwrap_err();
    assert!(matches!(applied, VolumeError::Applied { .. }), "{applied}");
    volume.truncate_after(ancestor).unwrap();
    // It goes on after the refusal and after having had nothing to do.
    let entry = Change::Node { id: FileId(5), attributes: support::root().attributes };
    volume.receive(Epoch(1), &record_of(Epoch(1), Seq(2), vec![entry])).unwrap();
    volume.wait_applied(Seq(2)).unwrap();
    assert_eq!(volume.lineage().0, [(Epoch(1), Seq(1))]);
}

#[test]
fn a_leadership_waits_for_nothing_after_the_volume_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::open(dir.path(), options()).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    volume.clone().close().unwrap();
    let gone = vec![Change::Gone { id: FileId(9) }];
    let refused = leading.journal.append(Default::default(), gone, Bytes::new());
    assert!(refused.is_err());
    assert!(matches!(volume.wait_applied(Seq(u64::MAX)), Err(VolumeError::Closed)));
}

#[test]
fn an_object_that_cannot_be_written_fails_the_volume_and_not_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::open(dir.path(), options()).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::new(&leading, Epoch(1), 1);
    let id = writer.create(Kind::File);
    volume.wait_applied(volume.head().seq).unwrap();
    // Where its object belongs there is something else, as after a damaged directory.
    let object = support::object_path(dir.path(), id);
    std::fs::create_dir(&object).unwrap();
    writer.write(id, 0, &[3; 1000]);
    let head = volume.head().seq;
    let failed = volume.wait_applied(head).unwrap_err();
    assert!(matches!(failed, VolumeError::Failed(_)), "{failed}");
    assert!(volume.trouble().is_some());
    let gone = vec![Change::Gone { id: FileId(9) }];
    let refused = leading.journal.append(Default::default(), gone, Bytes::new());
    assert!(matches!(refused, Err(Refused::Failed(_))), "{refused:?}");
    let (told, answer) = mpsc::channel();
    let waiter = Box::new(move |outcome| told.send(outcome).unwrap());
    leading.journal.when_committed(Seq(head.0 + 1), waiter);
    assert!(matches!(answer.recv().unwrap(), Err(Refused::Failed(_))));
    assert!(volume.checkpoint().is_err(), "nothing is claimed after a failure");
    let model = writer.model.clone();
    drop((writer, leading, volume));
    std::fs::remove_dir(&object).unwrap();
    let volume = Volume::open(dir.path(), options()).unwrap();
    model.check(&contents(&volume));
}
