//! What people and disks get wrong around the offline commands: a clear error, and nothing changed.

// A test that is skipped says so where people look.
#![allow(clippy::print_stderr)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstay_sync::export::{ExportError, export};
use mainstay_sync::import::{ImportError, import};
use mainstay_sync::op::Kind;
use mainstay_sync::position::{ClusterId, Epoch, FileId};
use mainstay_sync::quarantine;
use mainstay_sync::volume::Volume;
use support::{Writer, contents, object_path, options, same_as_plain};

const CLUSTER: ClusterId = ClusterId([6; 16]);

/// A small file system of its own, unmounted when it goes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where it cannot be mounted, which is said.
    fn mount(at: &Path, bytes: u64, test: &str) -> Option<SmallDisk> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={bytes}");
        let mut command = Command::new("mount");
        let done = command.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        match done {
            Ok(output) if output.status.success() => Some(SmallDisk(at.to_owned())),
            other => {
                eprintln!("SKIPPED: {test}: no tmpfs can be mounted here: {other:?}");
                None
            }
        }
    }

    /// Takes every byte that is left, until the file goes.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).unwrap();
        for size in [64 * 1024, 4096] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A closed volume with a file of 3 MB, and that file.
fn make(state: &Path) -> FileId {
    let volume = Volume::open(state, options()).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::new(&leading, Epoch(1), 8);
    writer.random_ops(20);
    let id = writer.create(Kind::File);
    (0..30).for_each(|at| writer.write(id, at * 100_000, &[at as u8 + 1; 100_000]));
    drop((writer, leading));
    volume.close().unwrap();
    id
}

/// Names and bytes of everything but what a process leaves of itself.
fn fingerprint(state: &Path) -> Vec<String> {
    let (mut lines, mut left) = (Vec::new(), vec![state.to_owned()]);
    while let Some(path) = left.pop() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let of = fs::symlink_metadata(&path).unwrap();
        if of.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if of.is_file() && !["lock", "meta.db-shm", "meta.db-wal"].contains(&&*name) {
            lines.push(format!("{path:?} {}", blake3::hash(&fs::read(&path).unwrap())));
        }
    }
    lines.sort();
    lines
}

#[test]
fn an_export_to_a_full_disk_says_so_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (state, test) = (dir.path().join("state"), "an_export_to_a_full_disk");
    make(&state);
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 1 << 20, test) else { return };
    for (target, there) in [(disk.0.clone(), true), (disk.0.join("new"), false)] {
        let refused = export(&state, &options(), &target).unwrap_err();
        assert!(matches!(refused, ExportError::Tree(_)), "{refused}");
        assert!(refused.to_string().contains("make room"), "{refused}");
        assert_eq!(target.exists(), there);
        assert!(!there || fs::read_dir(&target).unwrap().next().is_none());
    }
    let volume = Volume::open(&state, options()).unwrap();
    let expected = contents(&volume);
    volume.close().unwrap();
    let target = dir.path().join("target");
    export(&state, &options(), &target).unwrap();
    same_as_plain(&expected, &target);
}

#[test]
fn what_is_in_quarantine_is_exported_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (state, test) = (dir.path().join("state"), "what_is_in_quarantine_is_exported");
    make(&state);
    let volume = Volume::open(&state, options()).unwrap();
    volume.set_aside("a test").unwrap();
    volume.close().unwrap();
    let name = quarantine::list(&state).unwrap().remove(0).name;
    let before = fingerprint(&state.join("quarantine"));
    let taken = dir.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("precious"), "data").unwrap();
    let refused = quarantine::export(&state, &name, &taken).unwrap_err();
    assert!(matches!(&refused, ExportError::NotEmpty(path) if *path == taken), "{refused}");
    assert_eq!(fs::read(taken.join("precious")).unwrap(), b"data");
    let inside = quarantine::export(&state, &name, &state.join("out")).unwrap_err();
    assert!(matches!(inside, ExportError::Inside(_)), "{inside}");
    if let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 1 << 20, test) {
        let target = disk.0.join("new");
        let refused = quarantine::export(&state, &name, &target).unwrap_err();
        assert!(refused.to_string().contains("make room"), "{refused}");
        assert!(!target.exists(), "nothing is left of it");
    }
    assert_eq!(fingerprint(&state.join("quarantine")), before);
    quarantine::export(&state, &name, &dir.path().join("target")).unwrap();
}

#[test]
fn a_chunk_is_not_mended_where_its_bad_bytes_cannot_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let test = "a_chunk_is_not_mended_where_its_bad_bytes_cannot_be_kept";
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 60 << 20, test) else { return };
    let state = disk.0.join("state");
    let id = make(&state);
    let volume = Volume::open(&state, options()).unwrap();
    let at = volume.head().seq;
    let before = fs::read(object_path(&state, id)).unwrap();
    let ballast = disk.fill();
    let good = vec![9; 65_536];
    let refused = volume.mend_chunk(id, 3, at, &good, "a test").unwrap_err();
    assert!(refused.to_string().contains("quarantine"), "{refused}");
    assert_eq!(fs::read(object_path(&state, id)).unwrap(), before, "the chunk is as it was");
    assert!(quarantine::list(&state).unwrap().is_empty());
    fs::remove_file(ballast).unwrap();
    volume.mend_chunk(id, 3, at, &good, "a test").unwrap().expect("it is mended");
    assert_eq!(quarantine::list(&state).unwrap().len(), 1);
    let mended = fs::read(object_path(&state, id)).unwrap();
    assert_eq!(mended[3 * 65_536..4 * 65_536], good[..]);
}

#[test]
fn a_tree_that_changes_while_it_is_imported_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (source, state) = (dir.path().join("source"), dir.path().join("state"));
    fs::create_dir(&source).unwrap();
    for name in 0..50 {
        fs::write(source.join(format!("quiet{name}")), vec![name; 50_000]).unwrap();
    }
    fs::write(source.join("busy"), [0; 8]).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let (stop, busy) = (ended.clone(), source.join("busy"));
    let writing = std::thread::spawn(move || {
        let file = File::options().write(true).open(busy).unwrap();
        let mut count = 0_u64;
        while !stop.load(Ordering::Acquire) {
            count += 1;
            file.write_all_at(&count.to_le_bytes(), 0).unwrap();
        }
    });
    let refused = import(&source, &state, &options());
    ended.store(true, Ordering::Release);
    writing.join().unwrap();
    let refused = refused.unwrap_err();
    assert!(
        matches!(&refused, ImportError::Changed(path) if path.ends_with("busy")),
        "the file that changed is named: {refused}"
    );
    // What it left is no volume that anybody could take for one, and the next import replaces it.
    assert!(export(&state, &options(), &dir.path().join("nothing")).is_err());
    assert!(Volume::open(&state, options()).unwrap().building());
    import(&source, &state, &options()).unwrap();
    let volume = Volume::open(&state, options()).unwrap();
    same_as_plain(&contents(&volume), &source);
}

#[test]
fn a_state_directory_of_a_newer_version_is_named_and_left_as_it_is() {
    type Change = fn(&Path);
    let newer: [(&str, Change); 3] = [
        ("vow", |state| {
            let path = state.join("vow");
            let mut bytes = fs::read(&path).unwrap();
            // The format is the body's first number, after the magic and the checksum.
            bytes[12] = 9;
            let sum = crc32c::crc32c(&bytes[12..]).to_le_bytes();
            bytes[8..12].copy_from_slice(&sum);
            fs::write(path, bytes).unwrap();
        }),
        ("meta.db", |state| {
            let db = rusqlite::Connection::open(state.join("meta.db")).unwrap();
            db.pragma_update(None, "user_version", 9).unwrap();
        }),
        (".log", |state| {
            for entry in fs::read_dir(state.join("log")).unwrap() {
                let path = entry.unwrap().path();
                let mut bytes = fs::read(&path).unwrap();
                if !bytes.starts_with(b"MAINLOG") {
                    continue;
                }
                bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
                let sum = crc32c::crc32c(&bytes[..12]);
                let sum = crc32c::crc32c_append(sum, &bytes[16..56]).to_le_bytes();
                bytes[12..16].copy_from_slice(&sum);
                fs::write(path, bytes).unwrap();
            }
        }),
    ];
    for (what, change) in newer {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        make(&state);
        change(&state);
        let before = fingerprint(&state);
        let refused = Volume::open(&state, options()).map(drop).unwrap_err().to_string();
        assert!(refused.contains(what) && refused.contains("format 9"), "{what}: {refused}");
        let target = dir.path().join("target");
        let refused = export(&state, &options(), &target).unwrap_err().to_string();
        assert!(refused.contains(what) && !target.exists(), "{what}: {refused}");
        assert_eq!(fingerprint(&state), before, "{what}: nothing was changed");
    }
}

#[test]
fn a_missing_object_is_no_file_of_zeros_and_a_foreign_one_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let id = make(&state);
    let foreign = state.join("objects/00/README");
    fs::write(&foreign, "not ours").unwrap();
    export(&state, &options(), &dir.path().join("whole")).unwrap();
    assert_eq!(fs::read(&foreign).unwrap(), b"not ours");

    let object = object_path(&state, id);
    let bytes = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    let target = dir.path().join("target");
    let refused = export(&state, &options(), &target).unwrap_err().to_string();
    assert!(refused.contains(&format!("{:016x}", id.0)), "the object is named: {refused}");
    assert!(!target.exists(), "nothing that looks whole is left");
    fs::write(&object, &bytes[..1000]).unwrap();
    let refused = export(&state, &options(), &target).unwrap_err().to_string();
    assert!(refused.contains("it has 1000 where the file has 3000000 bytes"), "{refused}");
    assert!(!target.exists());
    fs::write(&object, bytes).unwrap();
    export(&state, &options(), &target).unwrap();
}
