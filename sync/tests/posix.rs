//! The corners of POSIX that a service may lean on, one by one.

mod rig;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::Rig;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), Errno> {
    rustix::fs::renameat_with(CWD, from, CWD, to, flags)
}

fn code<T: std::fmt::Debug>(outcome: std::io::Result<T>) -> i32 {
    outcome.expect_err("an error").raw_os_error().expect("of the system")
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn names_have_their_limits() {
    let Some(rig) = Rig::new("posix_names") else { return };
    let longest = "n".repeat(255);
    fs::write(rig.path(&longest), "x").unwrap();
    assert_eq!(fs::read(rig.path(&longest)).unwrap(), b"x");
    let too_long = rig.path(&"n".repeat(256));
    assert_eq!(code(fs::write(&too_long, "x")), libc::ENAMETOOLONG);
    assert_eq!(code(fs::metadata(&too_long)), libc::ENAMETOOLONG);
    assert_eq!(code(fs::create_dir(&too_long)), libc::ENAMETOOLONG);
    assert_eq!(code(fs::rename(rig.path(&longest), &too_long)), libc::ENAMETOOLONG);
    let target = "t".repeat(4095);
    symlink(&target, rig.path("link")).unwrap();
    assert_eq!(fs::read_link(rig.path("link")).unwrap().as_os_str().len(), 4095);
    // Any bytes but `/` and zero are a name.
    let odd = std::ffi::OsStr::new("a\n\t\u{7f} \\");
    fs::write(rig.place().join(odd), "odd").unwrap();
    let names: Vec<_> =
        fs::read_dir(rig.place()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name == odd));
}

#[test]
fn renames_refuse_what_would_break_the_tree() {
    let Some(rig) = Rig::new("posix_rename") else { return };
    let at = |name: &str| rig.path(name);
    fs::create_dir_all(at("dir/sub")).unwrap();
    fs::create_dir_all(at("empty")).unwrap();
    fs::write(at("file"), "1").unwrap();
    fs::write(at("other"), "2").unwrap();
    let (plain, keep) = (RenameFlags::empty(), RenameFlags::NOREPLACE);
    assert_eq!(rename(&at("dir"), &at("dir/sub/in"), plain), Err(Errno::INVAL));
    assert_eq!(rename(&at("dir/sub"), &at("dir"), plain), Err(Errno::NOTEMPTY));
    assert_eq!(rename(&at("file"), &at("dir"), plain), Err(Errno::ISDIR));
    assert_eq!(rename(&at("dir"), &at("file"), plain), Err(Errno::NOTDIR));
    assert_eq!(rename(&at("empty"), &at("dir"), plain), Err(Errno::NOTEMPTY));
    assert_eq!(rename(&at("file"), &at("other"), keep), Err(Errno::EXIST));
    assert_eq!(rename(&at("file"), &at("gone"), RenameFlags::EXCHANGE), Err(Errno::NOENT));
    assert_eq!(rename(&at("file"), &at("x"), RenameFlags::WHITEOUT), Err(Errno::INVAL));
    let swap = RenameFlags::EXCHANGE;
    assert_eq!(rename(&at("dir"), &at("dir/sub"), swap), Err(Errno::INVAL));
    rename(&at("file"), &at("dir/sub"), swap).unwrap();
    assert_eq!(fs::read(at("dir/sub")).unwrap(), b"1");
    assert!(at("file").is_dir());
    assert_eq!(fs::metadata(at("dir")).unwrap().nlink(), 2, "its subdirectory moved away");
    // Two names of one file: nothing happens.
    fs::hard_link(at("other"), at("again")).unwrap();
    fs::rename(at("other"), at("again")).unwrap();
    assert!(at("other").exists() && at("again").exists());
}

#[test]
fn links_and_removals_say_what_is_wrong() {
    let Some(rig) = Rig::new("posix_links") else { return };
    let at = |name: &str| rig.path(name);
    fs::create_dir_all(at("dir/sub")).unwrap();
    fs::write(at("file"), "1").unwrap();
    assert_eq!(code(fs::hard_link(at("dir"), at("x"))), libc::EPERM);
    assert_eq!(code(fs::hard_link(at("file"), at("dir"))), libc::EEXIST);
    assert_eq!(code(fs::remove_dir(at("dir"))), libc::ENOTEMPTY);
    assert_eq!(code(fs::remove_dir(at("file"))), libc::ENOTDIR);
    assert_eq!(code(fs::remove_file(at("dir"))), libc::EISDIR);
    assert_eq!(code(fs::remove_file(at("none"))), libc::ENOENT);
    assert_eq!(code(fs::create_dir(at("file/x"))), libc::ENOTDIR);
    assert_eq!(code(File::create_new(at("file"))), libc::EEXIST);
    symlink("loop", at("loop")).unwrap();
    assert_eq!(code(File::open(at("loop"))), libc::ELOOP);
    let device = rustix::fs::mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::RUSR, 0x103);
    assert_eq!(device, Err(Errno::PERM));
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let listener = UnixListener::bind(at("socket")).unwrap();
    std::os::unix::net::UnixStream::connect(at("socket")).unwrap();
    drop(listener);
}

#[test]
fn what_is_open_lives_on_without_a_name() {
    let Some(mut rig) = Rig::new("posix_unlinked") else { return };
    let mut file = File::create_new(rig.path("temp")).unwrap();
    file.write_all(b"first").unwrap();
    fs::remove_file(rig.path("temp")).unwrap();
    file.write_all(b" second").unwrap();
    let mut reader =
        OpenOptions::new().write(true).create_new(true).open(rig.path("temp")).unwrap();
    reader.write_all(b"another file of that name").unwrap();
    let seen = file.metadata().unwrap();
    assert_eq!((seen.nlink(), seen.len()), (0, 12));
    let mut bytes = [0; 12];
    let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    File::open(own).unwrap().read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"first second");
    assert_eq!(rig.journal.orphans(), 1);
    drop(file);
    rig::eventually("its last holder took it along", || rig.journal.orphans() == 0);
    // The same for a file that a rename replaced, and a directory.
    let replaced = File::open(rig.path("temp")).unwrap();
    fs::write(rig.path("new"), "new").unwrap();
    fs::rename(rig.path("new"), rig.path("temp")).unwrap();
    let mut text = String::new();
    (&replaced).read_to_string(&mut text).unwrap();
    assert_eq!(text, "another file of that name");
    fs::create_dir(rig.path("dir")).unwrap();
    let dir = File::open(rig.path("dir")).unwrap();
    fs::remove_dir(rig.path("dir")).unwrap();
    let made = rustix::fs::mkdirat(&dir, "in", Mode::RWXU);
    assert_eq!(made, Err(Errno::NOENT));
    assert_eq!(rustix::fs::Dir::read_from(&dir).unwrap().count(), 0);
    assert_eq!(rig.journal.orphans(), 2);
    drop((dir, replaced, reader));
    rig::eventually("nothing is left", || rig.journal.orphans() == 0);
    rig.remount();
    assert_eq!(fs::read(rig.path("temp")).unwrap(), b"new");
}

#[test]
fn what_a_dead_leader_had_open_is_gone_at_the_next_mount() {
    let Some(mut rig) = Rig::new("posix_orphans") else { return };
    let file = File::create_new(rig.path("temp")).unwrap();
    fs::remove_file(rig.path("temp")).unwrap();
    rig.mount.take().unwrap().abort().unwrap();
    // The release of an aborted mount never comes.
    drop(file);
    assert_eq!(rig.journal.orphans(), 1);
    rig.mount();
    assert_eq!(rig.journal.orphans(), 0);
}

#[test]
fn a_setgid_directory_hands_its_group_down() {
    let Some(rig) = Rig::new("posix_setgid") else { return };
    let dir = rig.path("dir");
    fs::create_dir(&dir).unwrap();
    rustix::fs::chown(&dir, None, Some(Gid::from_raw(7))).unwrap();
    set_mode(&dir, 0o2775);
    fs::write(dir.join("file"), "x").unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    assert_eq!(fs::metadata(dir.join("file")).unwrap().gid(), 7);
    let sub = fs::metadata(dir.join("sub")).unwrap();
    assert_eq!((sub.gid(), sub.mode() & 0o2000), (7, 0o2000));
}

/// Runs `script` in a shell of an ordinary user, with `path` as its `$1`.
fn as_nobody(script: &str, path: &Path) -> bool {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(path).uid(65534).gid(65534).current_dir("/");
    command.stderr(std::process::Stdio::null()).status().unwrap().success()
}

#[test]
fn permissions_hold_and_strangers_writes_void_setuid() {
    let Some(rig) = Rig::new("posix_permissions") else { return };
    let file = rig.path("program");
    fs::write(&file, "x").unwrap();
    set_mode(&file, 0o644);
    assert!(as_nobody("cat \"$1\"", &file));
    assert!(!as_nobody("echo y >> \"$1\"", &file), "others may not write");
    set_mode(&file, 0o6777);
    fs::write(&file, "root keeps them").unwrap();
    assert_eq!(mode_of(&file), 0o6777);
    assert!(as_nobody("echo y >> \"$1\"", &file));
    assert_eq!(mode_of(&file), 0o777, "a stranger's write voids both");
    set_mode(&file, 0o6777);
    assert!(as_nobody("truncate -s 3 \"$1\"", &file));
    assert_eq!(mode_of(&file), 0o777, "so does a truncation");
    set_mode(&file, 0o6777);
    assert!(as_nobody("fallocate -l 9000 \"$1\"", &file));
    assert_eq!(mode_of(&file), 0o777, "and an allocation");
    set_mode(&file, 0o6777);
    rustix::fs::chown(&file, Some(Uid::from_raw(1)), None).unwrap();
    assert_eq!(mode_of(&file), 0o777, "and a new owner, even by root");
    // A sticky directory: only the owner removes.
    let dir = rig.path("shared");
    fs::create_dir(&dir).unwrap();
    set_mode(&dir, 0o1777);
    fs::write(dir.join("roots"), "x").unwrap();
    assert!(!as_nobody("rm -f \"$1\"", &dir.join("roots")));
    assert!(as_nobody("echo x > \"$1\" && rm \"$1\"", &dir.join("own")));
    assert!(!as_nobody("chmod 777 \"$1\"", &dir.join("roots")));
}

fn set_times(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn times_are_exact_to_the_nanosecond_also_before_1970() {
    let Some(mut rig) = Rig::new("posix_times") else { return };
    let times = [(0, 1), (-1, 0), (-1, 999_999_999), (-123_456_789, 5), (4_000_000_000, 7)];
    let path = |number: usize| PathBuf::from(format!("t{number}"));
    for (number, (seconds, nanos)) in times.into_iter().enumerate() {
        let at = rig.place().join(path(number));
        fs::write(&at, "x").unwrap();
        set_times(&at, seconds, nanos);
    }
    for pass in ["as set", "after a remount"] {
        for (number, (seconds, nanos)) in times.into_iter().enumerate() {
            let seen = fs::metadata(rig.place().join(path(number))).unwrap();
            assert_eq!((seen.mtime(), seen.mtime_nsec()), (seconds, nanos), "{pass}");
            assert_eq!((seen.atime(), seen.atime_nsec()), (seconds, nanos), "{pass}");
        }
        rig.remount();
    }
    // Reading does not move the access time.
    fs::read(rig.place().join(path(0))).unwrap();
    assert_eq!(fs::metadata(rig.place().join(path(0))).unwrap().atime(), 0);
}

#[test]
fn sizes_and_allocations_have_their_errors() {
    let Some(rig) = Rig::new("posix_sizes") else { return };
    let path = rig.path("file");
    let file = File::create_new(&path).unwrap();
    let flags = FallocateFlags::empty();
    rustix::fs::fallocate(&file, flags, 0, 10_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 50_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    let collapse = rustix::fs::fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096);
    assert_eq!(collapse, Err(Errno::OPNOTSUPP));
    // No object on any replica could be this long.
    assert_eq!(code(file.set_len(1 << 50)), libc::EFBIG);
    assert_eq!(code(file.write_at(b"x", 1 << 50)), libc::EFBIG);
    assert_eq!(rustix::fs::fallocate(&file, flags, 1 << 50, 1), Err(Errno::FBIG));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 1 << 50, 1 << 20).unwrap();
    assert_eq!(code(OpenOptions::new().write(true).open(rig.place())), libc::EISDIR);
    rig.journal.settle();
}

#[test]
fn extended_attributes_follow_their_flags() {
    let Some(mut rig) = Rig::new("posix_xattrs") else { return };
    let path = rig.path("file");
    fs::write(&path, "x").unwrap();
    let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
    set("user.a", b"1", XattrFlags::CREATE).unwrap();
    assert_eq!(set("user.a", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.b", b"2", XattrFlags::REPLACE), Err(Errno::NODATA));
    set("trusted.t", b"", XattrFlags::empty()).unwrap();
    set("user.big", &vec![7; 65_536], XattrFlags::empty()).unwrap();
    assert_eq!(set("system.x", b"1", XattrFlags::empty()), Err(Errno::OPNOTSUPP));
    let acl = set("system.posix_acl_access", b"\x02\0\0\0", XattrFlags::empty());
    assert!(acl.is_err(), "ACLs would not be enforced");
    let mut small = [0; 2];
    let long = rustix::fs::getxattr(&path, "user.big", &mut small[..]);
    assert_eq!(long, Err(Errno::RANGE));
    assert_eq!(rustix::fs::removexattr(&path, "user.none"), Err(Errno::NODATA));
    rustix::fs::removexattr(&path, "user.big").unwrap();
    let path = path.clone();
    rig.remount();
    let mut names = [0; 100];
    let length = rustix::fs::listxattr(&path, &mut names[..]).unwrap();
    assert_eq!(&names[..length], b"trusted.t\0user.a\0");
    let mut value = [0; 4];
    assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut value[..]), Ok(1));
}

#[test]
fn a_listing_neither_skips_nor_repeats_while_names_come_and_go() {
    let Some(rig) = Rig::new("posix_listing") else { return };
    for number in 0..3000 {
        File::create(rig.path(&format!("stays{number:04}"))).unwrap();
    }
    let mut seen = Vec::new();
    for (number, entry) in fs::read_dir(rig.place()).unwrap().enumerate() {
        seen.push(entry.unwrap().file_name().into_string().unwrap());
        if number % 10 == 0 {
            File::create(rig.path(&format!("comes{number:04}"))).unwrap();
            let _ = fs::remove_file(rig.path(&format!("comes{:04}", number / 2)));
        }
        assert!(number < 100_000, "a listing that feeds itself never ends");
    }
    let total = seen.len();
    seen.retain(|name| name.starts_with("stays"));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3000);
    assert!(total >= 3000);
    // Removing while listing, as `rm -r` does, leaves nothing.
    for entry in fs::read_dir(rig.place()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(fs::read_dir(rig.place()).unwrap().count(), 0);
}

#[test]
fn statfs_tells_of_the_disk_beneath() {
    let Some(rig) = Rig::new("posix_statfs") else { return };
    let seen = rustix::fs::statvfs(rig.place()).unwrap();
    assert!(seen.f_blocks > 0 && seen.f_bavail > 0);
    assert_eq!(seen.f_namemax, 255);
}
