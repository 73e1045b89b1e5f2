//! What a program can see through open files, the clock and locks: the same script on the mount
//! and on a plain directory, line by line the same.

#![allow(clippy::print_stdout, reason = "a child tells its parent")]

mod rig;

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rig::Rig;
use rig::mapping::Mapping;
use rustix::fs::{FallocateFlags, FlockOperation, RenameFlags, flock};
use rustix::io::Errno;

/// What was seen, in order.
type Seen = Vec<String>;

/// Runs `script` on both sides, and compares all that it saw.
fn same(test: &str, script: impl Fn(&Path, &mut Seen)) {
    let Some(mut rig) = Rig::new(test) else { return };
    let plain = rig.beside("plain");
    let (mut got, mut expected) = (Seen::new(), Seen::new());
    script(rig.place(), &mut got);
    script(&plain, &mut expected);
    for (number, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert_eq!(got, expected, "line {number}");
    }
    assert_eq!(got.len(), expected.len());
    assert!(expected.len() > 3, "a script that sees nothing compares nothing");
    // And what a follower has is what was seen.
    let before = contents(rig.place());
    rig.remount();
    assert_eq!(contents(rig.place()), before);
    assert_eq!(before, contents(&plain));
}

fn contents(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

fn code(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(-1)
}

fn io<T: std::fmt::Debug>(what: &str, outcome: std::io::Result<T>) -> String {
    match outcome {
        Ok(of) => format!("{what}: {of:?}"),
        Err(error) => format!("{what}: error {}", code(&error)),
    }
}

fn errno<T: std::fmt::Debug>(what: &str, outcome: Result<T, Errno>) -> String {
    io(what, outcome.map_err(std::io::Error::from))
}

fn all_of(file: &File) -> String {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    file.read_exact_at(&mut bytes, 0).unwrap();
    format!("{} bytes, {}", bytes.len(), blake3::hash(&bytes))
}

fn both(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

#[test]
fn appends_go_to_the_end_whoever_wrote_last() {
    same("appends", |root, seen| {
        let path = root.join("file");
        let open = || OpenOptions::new().append(true).create(true).read(true).open(&path).unwrap();
        let (mut one, mut two) = (open(), open());
        for turn in 0..20 {
            one.write_all(format!("one {turn}\n").as_bytes()).unwrap();
            two.write_all(format!("two {turn}\n").as_bytes()).unwrap();
            seen.push(io("one is at", one.stream_position()));
            seen.push(io("two is at", two.stream_position()));
        }
        // Linux: a pwrite to a file that appends goes to its end too.
        seen.push(io("pwrite", one.write_at(b"at the front?", 0)));
        seen.push(all_of(&one));
        two.set_len(10).unwrap();
        one.write_all(b"after a cut").unwrap();
        seen.push(all_of(&two));
        let mut plain = both(&path);
        plain.seek(SeekFrom::End(7)).unwrap();
        plain.write_all(b"past the end").unwrap();
        seen.push(all_of(&plain));
    });
}

#[test]
fn descriptors_do_what_they_were_opened_for() {
    same("descriptors", |root, seen| {
        let path = root.join("file");
        std::fs::write(&path, "0123456789").unwrap();
        let read = File::open(&path).unwrap();
        let write = OpenOptions::new().write(true).open(&path).unwrap();
        let mut into = [0; 4];
        seen.push(io("read what is written", write.read_at(&mut into, 0)));
        seen.push(io("write what is read", read.write_at(b"x", 0)));
        seen.push(io("cut what is read", read.set_len(1)));
        seen.push(io("read past the end", read.read_at(&mut into, 100)));
        seen.push(io("read over the end", read.read_at(&mut into, 8)));
        seen.push(io("write nothing", write.write_at(b"", 1 << 40)));
        seen.push(all_of(&read));
        seen.push(io("seek before the start", (&read).seek(SeekFrom::Current(-1))));
        seen.push(io("seek far", (&read).seek(SeekFrom::Start(1 << 40))));
        seen.push(errno("sync what is read", rustix::fs::fsync(&read)));
        seen.push(errno("allocate what is read", {
            rustix::fs::fallocate(&read, FallocateFlags::empty(), 0, 10)
        }));
        let directory = File::open(root).unwrap();
        seen.push(io("read a directory", (&directory).read(&mut into)));
        seen.push(io("cut a directory", directory.set_len(0)));
        seen.push(errno("sync a directory", rustix::fs::fsync(&directory)));
        let synced = OpenOptions::new().write(true).custom_flags(libc::O_SYNC).open(&path).unwrap();
        seen.push(io("write and sync", synced.write_at(b"synced", 3)));
        let dsynced =
            OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(&path).unwrap();
        seen.push(io("write and sync data", dsynced.write_at(b"d", 30)));
        seen.push(all_of(&read));
        // One offset for a descriptor and its duplicate, another for one opened anew.
        let copy = read.try_clone().unwrap();
        (&read).seek(SeekFrom::Start(4)).unwrap();
        seen.push(io("a duplicate is at", (&copy).stream_position()));
        seen.push(io("another is at", File::open(&path).unwrap().stream_position()));
        seen.push(errno("exchange with itself", {
            rustix::fs::renameat_with(&directory, "file", &directory, "file", RenameFlags::EXCHANGE)
        }));
    });
}

#[test]
fn allocations_punches_and_holes_are_where_they_should_be() {
    same("allocations", |root, seen| {
        let file = both(&root.join("file"));
        let keep = FallocateFlags::KEEP_SIZE;
        let (punch, zero) = (FallocateFlags::PUNCH_HOLE | keep, FallocateFlags::ZERO_RANGE);
        file.write_all_at(&[7; 300_000], 0).unwrap();
        for (name, mode) in [
            ("grow", FallocateFlags::empty()),
            ("keep", keep),
            ("punch", punch),
            ("zero", zero),
            ("zero, keep", zero | keep),
            ("punch, no keep", FallocateFlags::PUNCH_HOLE),
            ("zero, punch", zero | punch),
            ("no mode", FallocateFlags::from_bits_retain(0x4000)),
        ] {
            for (offset, length) in [
                (0, 4096),
                (5, 10),
                (70_000, 100_000),
                (299_000, 5_000),
                (400_000, 10),
                (0, 0),
                (u64::MAX / 2, u64::MAX / 2),
            ] {
                let outcome = rustix::fs::fallocate(&file, mode, offset, length);
                seen.push(errno(&format!("{name} at {offset} for {length}"), outcome));
                seen.push(all_of(&file));
                if file.metadata().unwrap().len() > 1_000_000 {
                    file.set_len(300_000).unwrap();
                }
            }
            file.write_all_at(&[9; 300_000], 0).unwrap();
            file.set_len(300_000).unwrap();
        }
    });
}

#[test]
fn data_and_holes_are_found_where_they_are() {
    // Before the applier has them, bytes that are written count as data all around.
    let Some(rig) = Rig::new("data_and_holes") else { return };
    let plain = rig.beside("plain");
    let look = |root: &Path| {
        let file = both(&root.join("sparse"));
        file.set_len(1 << 20).unwrap();
        // To whole blocks of 64 KiB, which every file system has.
        for at in [3, 4, 9] {
            file.write_all_at(&[1; 1 << 16], at << 16).unwrap();
        }
        file.sync_all().unwrap();
        rig.journal.settle();
        let mut seen = Seen::new();
        for at in [0, 100, 3 << 16, (5 << 16) - 1, 5 << 16, 9 << 16, 10 << 16, 1 << 20, 2 << 20] {
            use rustix::fs::SeekFrom::{Data, Hole};
            seen.push(errno(&format!("data after {at}"), rustix::fs::seek(&file, Data(at))));
            seen.push(errno(&format!("hole after {at}"), rustix::fs::seek(&file, Hole(at))));
        }
        seen.push(all_of(&file));
        seen
    };
    assert_eq!(look(rig.place()), look(&plain));
}

#[test]
fn copies_within_and_between_files_are_exact() {
    same("copies", |root, seen| {
        let (one, two) = (both(&root.join("one")), both(&root.join("two")));
        let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        one.write_all_at(&bytes, 0).unwrap();
        let copy = |from: &File, to: &File, start: u64, target: u64, length: usize| {
            let (mut start, mut target) = (start, target);
            // A file system may copy less at a time; all do in the end.
            let (mut left, mut copied) = (length, 0);
            while left > 0 {
                match rustix::fs::copy_file_range(
                    from,
                    Some(&mut start),
                    to,
                    Some(&mut target),
                    left,
                ) {
                    Ok(0) => break,
                    Ok(more) => (left, copied) = (left - more, copied + more),
                    Err(error) => return Err(error),
                }
            }
            Ok(copied)
        };
        seen.push(errno("to another", copy(&one, &two, 1_000, 77, 150_000)));
        seen.push(errno("over the end", copy(&one, &two, 199_000, 0, 5_000)));
        seen.push(errno("from past the end", copy(&one, &two, 300_000, 0, 10)));
        seen.push(errno("within, apart", copy(&one, &one, 0, 100_000, 50_000)));
        seen.push(errno("within, overlapping", copy(&one, &one, 0, 100, 5_000)));
        seen.push(errno("to one that is read", {
            copy(&one, &File::open(root.join("two")).unwrap(), 0, 0, 10)
        }));
        let appending = OpenOptions::new().append(true).open(root.join("two")).unwrap();
        seen.push(errno("to one that appends", copy(&one, &appending, 0, 0, 10)));
        seen.push(errno("of a directory", copy(&File::open(root).unwrap(), &two, 0, 0, 10)));
        seen.extend([all_of(&one), all_of(&two)]);
    });
}

/// Longer than the ticks of both sides' clocks.
const TICK: std::time::Duration = std::time::Duration::from_millis(12);

/// Which of a file's times changed over a step.
fn moved(path: &Path, what: &str, seen: &mut Seen, step: impl FnOnce()) {
    let times = || {
        let of = std::fs::symlink_metadata(path).unwrap();
        ((of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec()))
    };
    let before = times();
    std::thread::sleep(TICK);
    step();
    let after = times();
    seen.push(format!("{what}: mtime {}, ctime {}", before.0 != after.0, before.1 != after.1));
}

#[test]
fn times_move_when_they_should_and_stay_when_not() {
    same("times", |root, seen| {
        let (path, other) = (root.join("file"), root.join("other"));
        let file = both(&path);
        file.write_all_at(b"something", 0).unwrap();
        moved(&path, "write", seen, || file.write_all_at(b"x", 0).unwrap());
        moved(&path, "write nothing", seen, || assert_eq!(file.write_at(b"", 0).unwrap(), 0));
        moved(&path, "read", seen, || drop(std::fs::read(&path).unwrap()));
        moved(&path, "grow", seen, || file.set_len(100).unwrap());
        moved(&path, "cut", seen, || file.set_len(3).unwrap());
        moved(&path, "the same size", seen, || file.set_len(3).unwrap());
        moved(&path, "open to cut", seen, || drop(File::create(&path).unwrap()));
        moved(&path, "allocate", seen, || {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 50).unwrap();
        });
        moved(&path, "punch", seen, || {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, punch, 0, 10).unwrap();
        });
        moved(&path, "chmod", seen, || {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        });
        moved(&path, "chown to the same", seen, || {
            std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        });
        moved(&path, "an attribute", seen, || {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&path, "user.a", b"1", flags).unwrap();
        });
        moved(&path, "no attribute", seen, || rustix::fs::removexattr(&path, "user.a").unwrap());
        moved(&path, "sync", seen, || file.sync_all().unwrap());
        moved(root, "a link, its directory", seen, || std::fs::hard_link(&path, &other).unwrap());
        moved(&path, "unlink of another name", seen, || std::fs::remove_file(&other).unwrap());
        moved(&path, "link", seen, || std::fs::hard_link(&path, &other).unwrap());
        moved(root, "unlink, its directory", seen, || std::fs::remove_file(&other).unwrap());
        moved(root, "rename, its directory", seen, || std::fs::rename(&path, &other).unwrap());
        let of = || {
            let of = std::fs::metadata(if other.exists() { &other } else { &path }).unwrap();
            (of.ctime(), of.ctime_nsec())
        };
        let before = of();
        std::thread::sleep(TICK);
        std::fs::rename(&other, &path).unwrap();
        seen.push(format!("rename: ctime {}", of() != before));
    });
}

#[test]
fn locks_keep_out_who_they_should() {
    same("locks", |root, seen| {
        let path = root.join("file");
        let open = || both(&path);
        let (one, two) = (open(), open());
        let now = |file: &File, how| errno("flock", flock(file, how));
        seen.push(now(&one, FlockOperation::NonBlockingLockShared));
        seen.push(now(&two, FlockOperation::NonBlockingLockShared));
        seen.push(now(&two, FlockOperation::NonBlockingLockExclusive));
        seen.push(now(&one, FlockOperation::NonBlockingUnlock));
        seen.push(now(&two, FlockOperation::NonBlockingLockExclusive));
        seen.push(now(&one, FlockOperation::NonBlockingLockShared));
        // The lock goes with the last duplicate.
        let copy = two.try_clone().unwrap();
        drop(two);
        seen.push(now(&one, FlockOperation::NonBlockingLockShared));
        drop(copy);
        seen.push(now(&one, FlockOperation::NonBlockingLockShared));
        // Of a byte range, as seen by another process.
        let ours = open();
        let held = FlockOperation::NonBlockingLockExclusive;
        seen.push(errno("fcntl", rustix::fs::fcntl_lock(&ours, held)));
        seen.push(format!("another process: {}", other_process_locks(&path)));
        // POSIX: any close of the file lets go of all of the process' locks.
        drop(open());
        seen.push(format!("after a close: {}", other_process_locks(&path)));
    });
}

/// Whether another process gets the whole file's lock at once.
fn other_process_locks(path: &Path) -> bool {
    let script =
        "import fcntl, sys\nfcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script]).arg(path).stderr(std::process::Stdio::null());
    command.status().expect("python3 runs").success()
}

#[test]
fn what_is_mapped_and_what_is_written_are_one() {
    const TEST: &str = "what_is_mapped_and_what_is_written_are_one";
    const ROOT: &str = "MAINSTAY_TEST_MAPPED_ROOT";
    // In a process of its own: a page fault that this process has to answer itself may find the one
    // who would answer it waiting for the memory map that the fault holds.
    if let Some(root) = std::env::var_os(ROOT) {
        for line in mapped(Path::new(&root)) {
            // Not after what the test harness began to say.
            println!("\nseen: {line}");
        }
        return;
    }
    same("mappings", |root, seen| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", TEST, "--nocapture"]).env(ROOT, root);
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        seen.extend(said.lines().filter_map(|line| line.strip_prefix("seen: ")).map(Into::into));
    });
}

fn mapped(root: &Path) -> Seen {
    let mut seen = Seen::new();
    let path = root.join("file");
    let file = both(&path);
    file.write_all_at(&[1; 20_000], 0).unwrap();
    let map = Mapping::new(&file, 20_000);
    map.store(5_000, b"by the map");
    let mut into = [0; 10];
    file.read_exact_at(&mut into, 5_000).unwrap();
    seen.push(format!("read sees {:?}", String::from_utf8_lossy(&into)));
    file.write_all_at(b"by a write", 9_000).unwrap();
    seen.push(format!("the map sees {:?}", String::from_utf8_lossy(&map.load(9_000, 10))));
    file.set_len(6_000).unwrap();
    file.set_len(20_000).unwrap();
    seen.push(format!("cut and grown: {:?}", map.load(9_000, 10)));
    map.store(15_000, b"after it grew");
    map.sync();
    seen.push(all_of(&file));
    std::fs::rename(&path, root.join("moved")).unwrap();
    map.store(0, b"moved");
    drop(map);
    file.sync_all().unwrap();
    seen.push(all_of(&file));
    seen
}
