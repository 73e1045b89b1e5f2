//! Plain files in and out of a replica that does not run, byte for byte.

// A test that is skipped says so where people look.
#![allow(clippy::print_stderr)]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use mainstay_sync::export::{ExportError, export};
use mainstay_sync::import::{ImportError, import};
use mainstay_sync::position::{Epoch, Position, Seq};
use mainstay_sync::volume::{Volume, VolumeError};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use support::{contents, copy_all, options, same_as_plain};

fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One of everything that a volume may hold.
fn make_source(root: &Path) {
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("plain"), b"some bytes").unwrap();
    fs::write(root.join("nothing"), b"").unwrap();
    fs::write(root.join("sub/deep/setuid"), vec![7; 300_000]).unwrap();
    fs::set_permissions(root.join("sub/deep/setuid"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::write(root.join("sub/readonly"), b"ro").unwrap();
    fs::set_permissions(root.join("sub/readonly"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::hard_link(root.join("plain"), root.join("sub/second name")).unwrap();
    symlink("../plain", root.join("sub/link")).unwrap();
    symlink("nowhere at all", root.join("dangling")).unwrap();
    let mode = Mode::from_raw_mode(0o620);
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    rustix::fs::mknodat(CWD, root.join("socket"), FileType::Socket, mode, 0).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"first", 0).unwrap();
    sparse.write_all_at(b"far away", 5 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    let odd = std::ffi::OsStr::new("name with \n newline and \u{e9}");
    fs::write(root.join(odd), b"odd").unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(root.join("sub"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(root.join("dangling"), Some(77), Some(78)).unwrap();
    }
    let tagged = rustix::fs::setxattr(root.join("plain"), "user.tag", b"v\0v", XattrFlags::empty());
    if tagged.is_err() {
        eprintln!("SKIPPED: extended attributes: the temporary directory has none");
    }
    for (name, seconds) in [("plain", 1), ("sub/link", -5), ("sub/deep", 1_000_000_000), ("sub", 9)]
    {
        set_mtime(&root.join(name), seconds, 123_456_789);
    }
    set_mtime(root, 42, 1);
}

/// Everything that `stat` says and that must be kept, by name.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![root.to_owned()];
    let mut inodes = Vec::new();
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let kind = found.file_type();
        let mut content = String::new();
        if kind.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if kind.is_symlink() {
            content = format!("{:?}", fs::read_link(&path).unwrap());
        } else if kind.is_file() {
            content = format!("{} {}", found.len(), blake3::hash(&fs::read(&path).unwrap()));
        }
        let mut value = vec![0; 1000];
        if let Ok(length) = rustix::fs::lgetxattr(&path, "user.tag", &mut value[..]) {
            content += &format!(" {:?}", &value[..length]);
        }
        let links = if kind.is_dir() { 0 } else { found.nlink() };
        if links > 1 {
            inodes.push(found.ino());
        }
        lines.push(format!(
            "{:?} {kind:?} {:o} {}:{} {links} {}.{:09} {content}",
            path.strip_prefix(root).unwrap(),
            found.mode(),
            found.uid(),
            found.gid(),
            found.mtime(),
            found.mtime_nsec(),
        ));
    }
    inodes.dedup();
    lines.push(format!("{} files with several names", inodes.len()));
    lines.sort();
    lines
}

#[test]
fn what_goes_in_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let (source, state, target) =
        (dir.path().join("source"), dir.path().join("state"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    make_source(&source);
    let imported = import(&source, &state, &options()).unwrap();
    assert_eq!(imported.position, Position { epoch: Epoch(1), seq: Seq(1) });
    let exported = export(&state, &options(), &target).unwrap();
    assert_eq!(exported.files, imported.files);
    assert_eq!(listing(&target), listing(&source));
    let (held, taken) = (fs::metadata(source.join("sparse")), fs::metadata(target.join("sparse")));
    assert!(taken.unwrap().blocks() <= held.unwrap().blocks() + 2048, "holes stay holes");

    // And it can be led and copied like any other.
    let volume = Volume::open(&state, options()).unwrap();
    assert_eq!(volume.cluster(), None, "it is to found one");
    volume.found(mainstay_sync::position::ClusterId([4; 16])).unwrap();
    let leading = volume.lead(Epoch(2), "a").unwrap();
    let follower = Volume::open(&dir.path().join("follower"), options()).unwrap();
    copy_all(&volume, &follower, |_| {});
    assert_eq!(contents(&follower), contents(&volume));
    same_as_plain(&contents(&follower), &source);
    drop((leading, follower));
    drop(volume);
    let report = mainstay_sync::fsck::fsck(&state, &options(), false).unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
}

#[test]
fn an_import_only_fills_what_is_blank() {
    let dir = tempfile::tempdir().unwrap();
    let (source, state) = (dir.path().join("source"), dir.path().join("state"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), b"a").unwrap();
    import(&source, &state, &options()).unwrap();
    assert!(matches!(import(&source, &state, &options()), Err(ImportError::NotBlank { .. })));
    let inside = source.join("state");
    assert!(matches!(import(&source, &inside, &options()), Err(ImportError::Nested { .. })));
    let around = dir.path();
    assert!(import(&source, around, &options()).is_err());
}

#[test]
fn an_export_touches_nothing_but_an_empty_target() {
    let dir = tempfile::tempdir().unwrap();
    let (source, state) = (dir.path().join("source"), dir.path().join("state"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), b"a").unwrap();
    import(&source, &state, &options()).unwrap();
    assert!(matches!(export(&state, &options(), &source), Err(ExportError::NotEmpty(_))));
    assert!(matches!(export(&state, &options(), &state.join("out")), Err(ExportError::Inside(_))));
    assert!(!state.join("out").exists());
    let target = dir.path().join("target");
    let volume = Volume::open(&state, options()).unwrap();
    let refused = export(&state, &options(), &target).unwrap_err();
    assert!(matches!(refused, ExportError::Volume(VolumeError::InUse { .. })), "{refused}");
    assert!(!target.exists());
    drop(volume);
    let nothing = dir.path().join("nothing");
    assert!(export(&nothing, &options(), &target).is_err());
    assert!(!nothing.exists() && !target.exists());
    export(&state, &options(), &target).unwrap();
}

#[test]
fn an_export_holds_what_only_the_log_had() {
    let dir = tempfile::tempdir().unwrap();
    let (state, target) = (dir.path().join("state"), dir.path().join("target"));
    let volume = Volume::open(&state, options()).unwrap();
    volume.found(mainstay_sync::position::ClusterId([1; 16])).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    support::Writer::new(&leading, Epoch(1), 4).random_ops(150);
    let expected = contents(&volume);
    drop((leading, volume));
    export(&state, &options(), &target).unwrap();
    same_as_plain(&expected, &target);
}

#[test]
fn quarantine_is_listed_exported_bounded_and_dropped() {
    use mainstay_sync::quarantine;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut expected = Vec::new();
    let bounded = mainstay_sync::volume::VolumeOptions { quarantine_bytes_max: 1, ..options() };
    for (epoch, options) in [(1, options()), (2, options()), (3, bounded)] {
        let volume = Volume::open(&state, options).unwrap();
        volume.found(mainstay_sync::position::ClusterId([1; 16])).unwrap();
        let leading = volume.lead(Epoch(epoch), "a").unwrap();
        support::Writer::new(&leading, Epoch(epoch), epoch).random_ops(40);
        expected.push(contents(&volume));
        drop(leading);
        let aside = volume.set_aside("a test").unwrap();
        let dropped = if epoch == 3 { 2 } else { 0 };
        assert_eq!(aside.dropped.len(), dropped, "only what the bound asks for");
        volume.close().unwrap();
    }
    let kept = quarantine::list(&state).unwrap();
    assert_eq!(kept.len(), 1, "the newest stays, whatever its size");
    let (name, target) = (kept[0].name.clone(), dir.path().join("target"));
    assert!(kept[0].bytes > 1);
    quarantine::export(&state, &name, &target).unwrap();
    same_as_plain(&expected[2], &target);
    assert!(quarantine::show(&state, "9-9").unwrap_err().to_string().contains("9-9"));
    assert!(quarantine::drop_kept(&state, "..").is_err());
    quarantine::drop_kept(&state, &name).unwrap();
    assert!(quarantine::list(&state).unwrap().is_empty());
}
