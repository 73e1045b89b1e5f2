//! When the mount must not answer, must wait, or must go.

mod rig;

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mainstay_sync::capture::{Gate, Mount, MountError, MountOptions};
use mainstay_sync::image::Image;
use mainstay_sync::journal::Refused;
use mainstay_sync::position::Epoch;
use rig::journal::TestJournal;
use rig::objects::TestObjects;
use rig::service::Service;
use rig::{Rig, eventually, in_child, is_mounted, order};

fn unanswered(rig: &Rig) -> u64 {
    rig.mount.as_ref().unwrap().stats().unanswered
}

#[test]
fn a_shut_gate_answers_nothing_until_the_abort() {
    let Some(rig) = Rig::new("fencing_gate") else { return };
    fs::write(rig.path("old"), "old").unwrap();
    // No release may come late and be counted below.
    eventually("everything is answered", || unanswered(&rig) == 0);
    rig.gate.set(false);
    // Each tells by its status what it saw: an error, were it only EIO, is a failure.
    let mut services = [
        Service::start("echo x > \"$1\"", &rig.path("new")),
        Service::start("cat \"$1\"", &rig.path("old")),
        Service::start("stat \"$1\"", &rig.path("missing")),
        Service::start("sync \"$1\"", &rig.path("old")),
    ];
    eventually("each has a request without an answer", || unanswered(&rig) >= 4);
    // Opening the gate again gives back nothing: whoever shut it is done with this mount.
    rig.gate.set(true);
    assert!(services.iter_mut().all(Service::is_running));
    for service in &mut services {
        service.kill();
    }
    let mount = rig.mount.as_ref().unwrap();
    mount.abort().unwrap();
    for service in &mut services {
        assert_eq!(service.end().signal(), Some(libc::SIGKILL), "no answer came before");
    }
    assert!(!is_mounted(rig.place()));
    eventually("nothing is held any more", || unanswered(&rig) == 0);
    assert!(!mount.stats().serving);
    mount.abort().expect("again is nothing");
}

#[test]
fn what_a_deposed_journal_refuses_is_not_answered() {
    let Some(rig) = Rig::new("fencing_deposed") else { return };
    fs::write(rig.path("file"), "x").unwrap();
    rig.journal.hold_commits(true);
    fs::write(rig.path("file"), "y").unwrap();
    let mut syncing = Service::start("sync \"$1\"", &rig.path("file"));
    eventually("the fsync waits", || rig.journal.waiting_for_commit() == 1);
    rig.journal.refuse(Some(Refused::Deposed));
    // Another file: the kernel has this one locked for as long as its fsync lasts.
    let mut writing = Service::start("echo z > \"$1\"", &rig.path("other"));
    eventually("both are without an answer", || unanswered(&rig) >= 2);
    assert!(syncing.is_running() && writing.is_running());
    rig.mount.as_ref().unwrap().abort().unwrap();
    syncing.end();
    writing.end();
}

#[test]
fn a_full_disk_and_a_failed_log_have_their_errors() {
    let Some(rig) = Rig::new("fencing_errors") else { return };
    let path = rig.path("file");
    let file = File::create_new(&path).unwrap();
    let code = |outcome: std::io::Result<()>| outcome.unwrap_err().raw_os_error();
    rig.journal.refuse(Some(Refused::NoSpace));
    assert_eq!(code(fs::write(rig.path("new"), "x")), Some(libc::ENOSPC));
    assert!(!rig.path("new").exists(), "what was refused has changed nothing");
    assert_eq!(code(fs::remove_file(&path)), Some(libc::ENOSPC));
    rig.journal.refuse(None);
    fs::write(&path, "room again").unwrap();
    rig.journal.hold_commits(true);
    fs::write(&path, "written").unwrap();
    rig.journal.refuse(Some(Refused::Failed("the disk is gone".into())));
    assert_eq!(code(fs::write(rig.path("new"), "x")), Some(libc::EIO));
    assert_eq!(code(file.sync_all()), Some(libc::EIO));
    assert_eq!(fs::read(&path).unwrap(), b"written", "reads go on");
}

#[test]
fn writers_wait_for_room_and_keep_no_thread_from_readers() {
    let Some(rig) = Rig::new("fencing_room") else { return };
    fs::write(rig.path("other"), "read me").unwrap();
    // More than the mount has threads.
    let names: Vec<_> = (0..20).map(|number| rig.path(&format!("f{number}"))).collect();
    names.iter().for_each(|name| fs::write(name, "").unwrap());
    rig.journal.set_full(true);
    let start = |name: &std::path::PathBuf| Service::start("echo x >> \"$1\"", name);
    let mut writers: Vec<_> = names.iter().map(start).collect();
    eventually("all wait", || rig.journal.waiting_for_room() == 20);
    assert_eq!(fs::read(rig.path("other")).unwrap(), b"read me");
    assert_eq!(fs::read_dir(rig.place()).unwrap().count(), 21);
    assert!(writers.iter_mut().all(Service::is_running));
    rig.journal.set_full(false);
    assert!(writers.iter_mut().all(|writer| writer.end().success()));
    assert!(names.iter().all(|name| fs::read(name).unwrap() == b"x\n"));
}

#[test]
fn a_mount_in_use_says_so_and_goes_later() {
    let Some(mut rig) = Rig::new("fencing_busy") else { return };
    let file = File::create_new(rig.path("file")).unwrap();
    let mount = rig.mount.clone().unwrap();
    let said = mount.unmount().unwrap_err();
    assert!(matches!(said, MountError::Busy { .. }), "{said}");
    assert!(rig.path("file").exists(), "and is as it was");
    let said = rig.try_mount().map(drop).unwrap_err();
    assert!(matches!(said, MountError::Mounted { .. }), "{said}");
    drop(file);
    rig.remount();
    assert!(rig.path("file").exists());
}

#[test]
fn the_dead_mount_of_a_killed_daemon_is_cleared() {
    let Some(mut rig) = Rig::new("fencing_dead") else { return };
    rig.mount.take().unwrap().abort().unwrap();
    let place = rig.place().to_owned();
    let mut daemon = in_child("daemon_child_process", "mount", &place);
    eventually("the other daemon has mounted", || is_mounted(&place));
    eventually("and serves", || fs::metadata(place.join("served")).is_ok());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let error = fs::metadata(&place).unwrap_err().raw_os_error();
    assert!(matches!(error, Some(libc::ENOTCONN | libc::ECONNABORTED)), "{error:?}");
    rig.mount();
    fs::write(rig.path("file"), "x").unwrap();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let name = place.to_str().unwrap();
    assert_eq!(table.lines().filter(|line| line.contains(name)).count(), 1, "no mount on a mount");
}

/// No test of its own: a daemon for [`the_dead_mount_of_a_killed_daemon_is_cleared`] to kill.
#[test]
fn daemon_child_process() {
    struct Always(AtomicBool);
    impl Gate for Always {
        fn open(&self) -> bool {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }
    let Some((_, place)) = order() else { return };
    let objects = tempfile::tempdir().unwrap();
    let objects = Arc::new(TestObjects::new(objects.path()));
    let journal = TestJournal::start(objects.clone());
    let options = MountOptions::new(&place, "other", Epoch(1));
    let gate = Arc::new(Always(AtomicBool::new(true)));
    let mount = Mount::new(options, Image::default(), journal, objects, gate).unwrap();
    // The daemon must not touch its own mount; here it may, since its threads are up.
    File::create_new(place.join("served")).unwrap();
    // Until it is killed; should the test die first, it does not stay for ever.
    std::thread::sleep(rig::PATIENCE * 2);
    drop(mount);
}
