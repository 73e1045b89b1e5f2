//! Bytes through a real mount: what was written is what is read, whoever reads it how and when.

mod rig;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use rig::{Rig, in_child, order};

#[test]
fn what_was_written_is_read_before_and_after_it_is_applied() {
    let Some(mut rig) = Rig::new("mount_data") else { return };
    rig.journal.hold_applies(true);
    fs::write(rig.path("a"), b"one two three").unwrap();
    let file = OpenOptions::new().write(true).open(rig.path("a")).unwrap();
    file.write_all_at(b"TWO", 4).unwrap();
    file.set_len(9).unwrap();
    file.set_len(12).unwrap();
    let expected = b"one TWO t\0\0\0";
    // O_DIRECT goes round the page cache, so that it is the mount that answers.
    assert_eq!(read_direct(&rig, "a"), expected);
    rig.journal.hold_applies(false);
    rig.journal.settle();
    assert_eq!(read_direct(&rig, "a"), expected);
    drop(file);
    rig.remount();
    assert_eq!(fs::read(rig.path("a")).unwrap(), expected);
}

fn read_direct(rig: &Rig, name: &str) -> Vec<u8> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    let mut file = options.read(true).custom_flags(libc::O_DIRECT).open(rig.path(name)).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn two_descriptors_append_without_losing_a_line() {
    let Some(rig) = Rig::new("mount_append") else { return };
    let path = rig.path("log");
    File::create(&path).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let path = path.clone();
            scope.spawn(move || {
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                for line in 0..200 {
                    file.write_all(format!("{writer} {line:04}\n").as_bytes()).unwrap();
                }
            });
        }
    });
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.len(), 400 * 7);
    for writer in ["0", "1"] {
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(writer)).collect();
        assert_eq!(lines.len(), 200);
        assert!(lines.is_sorted(), "each writer's lines are in its order");
    }
}

#[test]
fn a_file_far_beyond_4_gib_is_sparse_and_exact() {
    let Some(mut rig) = Rig::new("mount_sparse") else { return };
    let far = 6 * (1 << 30);
    let mut file = File::create_new(rig.path("far")).unwrap();
    file.write_all_at(b"near", 0).unwrap();
    file.write_all_at(b"far", far).unwrap();
    assert_eq!(file.metadata().unwrap().len(), far + 3);
    rig.journal.settle();
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "holes take no space");
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
    assert!(hole < far, "{hole}");
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(hole)).unwrap();
    assert!(data > hole && data <= far, "{data}");
    let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(far)).unwrap();
    assert_eq!(end, far + 3);
    file.seek(SeekFrom::Start(0)).unwrap();
    drop(file);
    rig.remount();
    let file = File::open(rig.path("far")).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes[..5], far - 2).unwrap();
    assert_eq!(&bytes[..5], b"\0\0far");
}

#[test]
fn locks_hold_between_processes() {
    use rustix::fs::{FlockOperation, fcntl_lock, flock};
    let Some(rig) = Rig::new("mount_locks") else { return };
    let path = rig.path("locked");
    fs::write(&path, "x").unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (first, second) = (open(), open());
    let now = FlockOperation::NonBlockingLockExclusive;
    flock(&first, now).unwrap();
    assert!(flock(&second, now).is_err(), "another descriptor has it");
    flock(&first, FlockOperation::Unlock).unwrap();
    flock(&second, now).unwrap();
    // A POSIX lock belongs to a process.
    fcntl_lock(&first, now).unwrap();
    let taken = |path| in_child("lock_child_process", "lock", path).wait().unwrap().success();
    assert!(!taken(&path), "another process has it");
    fcntl_lock(&first, FlockOperation::Unlock).unwrap();
    assert!(taken(&path));
}

/// No test of its own: what [`locks_hold_between_processes`] runs.
#[test]
fn lock_child_process() {
    let Some((_, path)) = order() else { return };
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let now = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    if rustix::fs::fcntl_lock(&file, now).is_err() {
        std::process::exit(3);
    }
}

#[test]
fn direct_and_cached_access_agree() {
    let Some(mut rig) = Rig::new("mount_direct") else { return };
    let path = rig.path("direct");
    fs::write(&path, vec![1; 3 << 20]).unwrap();
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_DIRECT);
    let direct = options.read(true).write(true).open(&path).unwrap();
    let block = Block([2; 8192]);
    direct.write_all_at(&block.0, 1 << 20).unwrap();
    let mut expected = vec![1; 3 << 20];
    expected[1 << 20..(1 << 20) + 8192].fill(2);
    assert!(fs::read(&path).unwrap() == expected, "a cached read sees a direct write");
    let cached = OpenOptions::new().write(true).open(&path).unwrap();
    cached.write_all_at(&[3; 100], (1 << 20) + 50).unwrap();
    expected[(1 << 20) + 50..(1 << 20) + 150].fill(3);
    let mut block = Block([0; 8192]);
    direct.read_exact_at(&mut block.0, 1 << 20).unwrap();
    assert!(block.0[..] == expected[1 << 20..(1 << 20) + 8192]);
    drop((direct, cached));
    rig.remount();
    assert!(fs::read(&path).unwrap() == expected);
}

#[repr(align(4096))]
struct Block([u8; 8192]);

#[test]
fn reads_race_the_applier_and_never_see_the_past() {
    let Some(rig) = Rig::new("mount_race") else { return };
    let path = rig.path("counter");
    fs::write(&path, vec![0; 64 * 1024]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // Every block holds the round's number; each read must find this round's, whether the
    // applier has done it, is doing it, or has not begun.
    for round in 1..=60_u8 {
        for block in 0..8 {
            file.write_all_at(&[round; 8192], block * 8192).unwrap();
        }
        if round % 5 == 0 {
            file.set_len(10_000).unwrap();
            file.set_len(64 * 1024).unwrap();
        }
        for _ in 0..3 {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            let mut bytes = vec![0; 64 * 1024];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let cut = if round % 5 == 0 { 10_000 } else { bytes.len() };
            assert!(bytes[..cut].iter().all(|byte| *byte == round), "round {round}");
            assert!(bytes[cut..].iter().all(|byte| *byte == 0), "round {round}: past the cut");
        }
    }
}
