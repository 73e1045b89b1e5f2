//! What a check finds in a replica that was tampered with, and what a repair makes of it.

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use mainstay_sync::fsck::{Finding, Severity, fsck};
use mainstay_sync::op::Kind;
use mainstay_sync::position::{ClusterId, Epoch, FileId};
use mainstay_sync::volume::Volume;
use support::{Writer, contents, object_path, options};

/// A closed volume with a few files, and one of them.
fn make(state: &Path) -> FileId {
    let volume = Volume::open(state, options()).unwrap();
    volume.found(ClusterId([1; 16])).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let mut writer = Writer::new(&leading, Epoch(1), 8);
    writer.random_ops(60);
    let id = writer.create(Kind::File);
    writer.write(id, 0, &[5; 5000]);
    drop(leading);
    volume.close().unwrap();
    id
}

fn findings(state: &Path, repair: bool) -> Vec<(Finding, bool)> {
    let report = fsck(state, &options(), repair).unwrap();
    report.problems.into_iter().map(|of| (of.what, of.repaired)).collect()
}

/// Names and bytes of everything, to see that a check changes nothing.
fn fingerprint(state: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![state.to_owned()];
    while let Some(path) = left.pop() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // SQLite's shared memory and our own process id are nobody's content.
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !["lock", "meta.db-shm", "meta.db-wal"].contains(&&*name) {
            lines.push(format!("{path:?} {}", blake3::hash(&fs::read(&path).unwrap())));
        }
    }
    lines.sort();
    lines
}

#[test]
fn a_whole_volume_has_no_problems() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let before = fingerprint(dir.path());
    let report = fsck(dir.path(), &options(), false).unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
    assert_eq!((report.worst(), report.unapplied), (None, 0));
    assert_eq!(fingerprint(dir.path()), before);
    let running = Volume::open(dir.path(), options()).unwrap();
    assert!(fsck(dir.path(), &options(), false).is_err(), "somebody has it open");
    drop(running);
    assert!(fsck(&dir.path().join("nothing"), &options(), false).is_err());
}

#[test]
fn what_does_no_harm_is_repaired_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let id = make(dir.path());
    let object = object_path(dir.path(), id);
    OpenOptions::new().write(true).open(&object).unwrap().write_all_at(b"x", 6000).unwrap();
    let stray = object_path(dir.path(), FileId::new(Epoch(1), 999));
    fs::write(&stray, b"stray").unwrap();
    let odd = dir.path().join("objects/00/README");
    fs::write(&odd, b"odd").unwrap();
    let before = fingerprint(dir.path());
    let found = findings(dir.path(), false);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.contains(&(Finding::Long { id, size: 5000, length: 6001 }, false)));
    assert!(found.contains(&(Finding::Foreign(stray.canonicalize().unwrap()), false)));
    assert_eq!(fingerprint(dir.path()), before, "a check changes nothing");

    let repaired = fsck(dir.path(), &options(), true).unwrap();
    assert_eq!(repaired.problems.len(), 3);
    assert_eq!(repaired.worst(), None);
    assert!(findings(dir.path(), false).is_empty());
    assert_eq!(fs::metadata(&object).unwrap().len(), 5000);
    let kept = mainstay_sync::quarantine::list(dir.path()).unwrap();
    let kept = dir.path().join("quarantine").join(&kept[0].name);
    let bytes: Vec<_> =
        fs::read_dir(kept).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(bytes.contains(&b"stray".to_vec()) && bytes.contains(&b"odd".to_vec()));
}

#[test]
fn what_is_lost_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let id = make(dir.path());
    let object = object_path(dir.path(), id);
    OpenOptions::new().write(true).open(&object).unwrap().set_len(100).unwrap();
    let short = Finding::Short { id, size: 5000, length: 100 };
    assert_eq!(findings(dir.path(), true), [(short, false)]);
    fs::remove_file(&object).unwrap();
    assert_eq!(findings(dir.path(), true), [(Finding::NoObject(id), false)]);
    let db = rusqlite::Connection::open(dir.path().join("meta.db")).unwrap();
    db.execute("DELETE FROM nodes WHERE id = ?", [id.0 as i64]).unwrap();
    drop(db);
    let found = findings(dir.path(), true);
    assert!(matches!(&found[..], [(Finding::Dangling { child, .. }, false)] if *child == id));
    assert_eq!(fsck(dir.path(), &options(), false).unwrap().worst(), Some(Severity::Damage));
}

#[test]
fn an_index_that_is_not_one_is_fatal() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let db = dir.path().join("meta.db");
    let whole = fs::read(&db).unwrap();
    let mut torn = whole.clone();
    torn[..4096].fill(0x55);
    fs::write(&db, torn).unwrap();
    let found = findings(dir.path(), false);
    assert!(matches!(&found[..], [(Finding::Index(_), false)]), "{found:?}");
    fs::write(&db, whole).unwrap();
    assert!(findings(dir.path(), false).is_empty());
}

#[test]
fn a_tail_of_the_log_is_not_taken_for_a_problem_and_a_repair_applies_it() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::open(dir.path(), options()).unwrap();
    volume.found(ClusterId([1; 16])).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    Writer::new(&leading, Epoch(1), 8).random_ops(80);
    let expected = contents(&volume);
    drop((leading, volume));
    let report = fsck(dir.path(), &options(), false).unwrap();
    assert!(report.unapplied > 0 && report.problems.is_empty(), "{report:?}");
    let report = fsck(dir.path(), &options(), true).unwrap();
    assert!(report.unapplied == 0 && report.problems.is_empty(), "{report:?}");
    let volume = Volume::open(dir.path(), options()).unwrap();
    assert_eq!(contents(&volume), expected);
}
