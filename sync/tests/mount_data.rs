//! Bytes through a real mount: what was written is what is read, whoever reads it how and when.

mod rig;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use rig::Rig;

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
