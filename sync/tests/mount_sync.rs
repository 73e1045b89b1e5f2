//! Who waits for the commit, and for whose.

mod rig;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Child;

use mainstay_sync::position::Seq;
use rig::mapping::Mapping;
use rig::service::Service;
use rig::{Rig, eventually, in_child, order};

#[test]
fn fsync_waits_for_its_own_file_and_no_other() {
    let Some(rig) = Rig::new("sync_own") else { return };
    let mut mine = File::create_new(rig.path("mine")).unwrap();
    let mut other = File::create_new(rig.path("other")).unwrap();
    rig.journal.settle();
    rig.journal.hold_commits(true);
    // Nothing of it is under way: answered at once, whatever strangers do.
    other.write_all(b"a stranger's").unwrap();
    assert!(Service::start(SYNC, &rig.path("mine")).end().success());
    mine.write_all(b"mine").unwrap();
    let needed = rig.journal.head();
    other.write_all(b"later").unwrap();
    let mut syncing = Service::start(SYNC, &rig.path("mine"));
    eventually("the fsync waits", || rig.journal.waiting_for_commit() == 1);
    rig.journal.commit_to(Seq(needed.0 - 1));
    assert_eq!(rig.journal.waiting_for_commit(), 1);
    assert!(syncing.is_running(), "its own op is not committed");
    // The stranger's later op never is, and it does not matter.
    rig.journal.commit_to(needed);
    assert!(syncing.end().success());
    assert_eq!(rig.journal.asked_for_commit(), [needed]);
}

#[test]
fn fsync_of_a_directory_waits_for_its_entries() {
    let Some(rig) = Rig::new("sync_dir") else { return };
    rig.journal.settle();
    assert!(Service::start(SYNC, rig.place()).end().success());
    rig.journal.hold_commits(true);
    fs::write(rig.path("new"), "").unwrap();
    let mut syncing = Service::start(SYNC, rig.place());
    eventually("the fsync waits", || rig.journal.waiting_for_commit() == 1);
    assert!(syncing.is_running());
    rig.journal.hold_commits(false);
    assert!(syncing.end().success());
}

/// `fsync(2)` of one file or directory.
const SYNC: &str = "exec sync \"$1\"";

#[test]
fn synchronous_writes_return_committed_and_wait_once() {
    let Some(rig) = Rig::new("sync_flags") else { return };
    for flags in ["dsync", "sync", "direct,dsync"] {
        let path = rig.path(flags);
        File::create_new(&path).unwrap();
        rig.journal.settle();
        let before = rig.journal.asked_for_commit().len();
        rig.journal.hold_commits(true);
        let write = format!("exec dd if=/dev/zero of=\"$1\" bs=4096 count=1 oflag={flags}");
        let mut writing = Service::start(&write, &path);
        eventually("the write waits", || rig.journal.waiting_for_commit() == 1);
        assert!(writing.is_running(), "{flags}");
        rig.journal.hold_commits(false);
        assert!(writing.end().success());
        assert_eq!(rig.journal.asked_for_commit().len(), before + 1, "{flags} waits once");
        assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
    }
}

#[test]
fn msync_commits_what_was_stored_through_a_mapping() {
    let Some(mut rig) = Rig::new("sync_mmap") else { return };
    let path = rig.path("mapped");
    fs::write(&path, vec![1; 8192]).unwrap();
    rig.journal.settle();
    rig.journal.hold_commits(true);
    let mut child = mapping_child("msync", &path);
    eventually("the msync waits", || rig.journal.waiting_for_commit() > 0);
    assert!(child.try_wait().unwrap().is_none(), "it returned before the commit");
    rig.journal.hold_commits(false);
    assert!(child.wait().unwrap().success());
    assert_eq!(&fs::read(&path).unwrap()[4094..4098], STORED);
    rig.remount();
    assert_eq!(&fs::read(&path).unwrap()[4094..4098], STORED);
}

#[test]
fn stores_without_msync_are_captured_when_the_mapping_goes() {
    let Some(mut rig) = Rig::new("sync_mmap_closed") else { return };
    let path = rig.path("mapped");
    fs::write(&path, vec![0; 8192]).unwrap();
    assert!(mapping_child("unmap", &path).wait().unwrap().success());
    rig.remount();
    assert_eq!(&fs::read(&path).unwrap()[4094..4098], STORED);
}

#[test]
fn a_mapped_file_lives_on_without_a_name() {
    let Some(mut rig) = Rig::new("sync_mmap_unlinked") else { return };
    let path = rig.path("mapped");
    fs::write(&path, vec![0; 8192]).unwrap();
    assert!(mapping_child("unlink", &path).wait().unwrap().success());
    rig.remount();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(rig.journal.orphans(), 0);
}

const STORED: &[u8] = b"over";

/// Starts a process that maps `path`.
///
/// Not in this process: `munmap` of dirty pages waits for their write-back with the address
/// space locked, and the mount's threads, being in the same one, could not serve it.
fn mapping_child(what: &str, path: &Path) -> Child {
    in_child("mapping_child_process", what, path)
}

/// No test of its own: what [`mapping_child`] runs.
#[test]
fn mapping_child_process() {
    let Some((what, path)) = order() else { return };
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let map = Mapping::new(&file, 8192);
    drop(file);
    map.store(4094, STORED);
    match what.as_str() {
        "msync" => map.sync(),
        "unlink" => {
            fs::remove_file(&path).unwrap();
            fs::write(&path, "new").unwrap();
            map.store(0, b"still there");
            map.sync();
            assert_eq!(map.load(0, 11), b"still there");
        }
        _ => {}
    }
}

#[test]
fn a_barrier_returns_when_everything_answered_is_committed() {
    let Some(rig) = Rig::new("sync_barrier") else { return };
    rig.journal.hold_commits(true);
    fs::write(rig.path("a"), "x").unwrap();
    let mount = rig.mount.clone().unwrap();
    let waiting = std::thread::spawn(move || mount.barrier());
    eventually("the barrier waits", || rig.journal.waiting_for_commit() == 1);
    assert!(!waiting.is_finished());
    rig.journal.hold_commits(false);
    waiting.join().unwrap().unwrap();
}
