//! Many threads at once in one mount, with everything that touches data and names: writes, maps,
//! cuts, holes, links, renames, removals. Every replica ends with the tree that the mount showed.

mod support;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Cluster, Service};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{CWD, FallocateFlags, RenameFlags};
use support::{assert_equal, binary, bounded, can_run, read};

const THREADS: u64 = 6;
const STEPS: usize = 900;
/// Names that all threads fight for.
const SHARED: u64 = 24;
const BYTES_MAX: u64 = 400_000;

/// A shared, writable mapping of a file that only its owner cuts: a store past the end would kill.
struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    fn new(file: &File, length: usize) -> io::Result<Mapping> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice; nothing else lies there.
        let start =
            unsafe { mmap(std::ptr::null_mut(), length, access, MapFlags::SHARED, file, 0)? };
        Ok(Mapping { start: start.cast(), length })
    }

    fn store(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.length);
        // SAFETY: within the mapping, as just checked; `bytes` is not part of it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(at), bytes.len()) };
    }

    fn sync(&self) -> io::Result<()> {
        let flags = rustix::mm::MsyncFlags::SYNC;
        // SAFETY: exactly this mapping.
        unsafe { rustix::mm::msync(self.start.cast(), self.length, flags)? };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly this mapping, which nobody uses after its owner.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.length) };
    }
}

/// One thread's part.
struct Worker {
    root: PathBuf,
    random: SmallRng,
    /// Mapped by this thread, and written by all.
    own: File,
    done: usize,
}

impl Worker {
    fn run(root: &Path, number: u64) -> usize {
        let path = root.join(format!("mapped{number}"));
        let options = File::options().read(true).write(true).create(true).truncate(true).clone();
        let own = options.open(path).expect("a file");
        let random = SmallRng::seed_from_u64(number);
        let mut worker = Worker { root: root.to_owned(), random, own, done: 0 };
        for _ in 0..STEPS {
            match worker.step() {
                Ok(()) => worker.done += 1,
                // Another thread was faster: the name went, came, or is something else now.
                Err(error) => assert!(is_a_lost_race(&error), "{error}"),
            }
        }
        worker.own.sync_all().expect("acknowledged");
        worker.done
    }

    fn name(&mut self) -> PathBuf {
        let number = self.random.random_range(0..SHARED);
        let folder = ["", "d0", "d1"][self.random.random_range(0..3)];
        self.root.join(folder).join(format!("n{number}"))
    }

    fn file(&mut self) -> io::Result<File> {
        let name = self.name();
        File::options().read(true).write(true).create(true).truncate(false).open(name)
    }

    fn bytes(&mut self) -> Vec<u8> {
        vec![self.random.random_range(1..=255); self.random.random_range(1..30_000)]
    }

    fn step(&mut self) -> io::Result<()> {
        let offset = self.random.random_range(0..BYTES_MAX);
        match self.random.random_range(0..20) {
            0..5 => {
                let bytes = self.bytes();
                self.file()?.write_all_at(&bytes, offset)
            }
            5 => self.file()?.set_len(offset),
            6 => self.file()?.set_len(0),
            7 => {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(rustix::fs::fallocate(self.file()?, hole, offset, 50_000)?)
            }
            8 => self.append(),
            9 => self.file()?.sync_all(),
            10 => fs::rename(self.name(), self.name()),
            11 => {
                let (one, other) = (self.name(), self.name());
                Ok(rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
            }
            12 => fs::hard_link(self.name(), self.name()),
            13 => fs::remove_file(self.name()),
            14 => {
                let (from, to) = (self.file()?, self.file()?);
                let mut at = offset / 2;
                rustix::fs::copy_file_range(&from, Some(&mut at), &to, None, 60_000)?;
                Ok(())
            }
            15 => {
                // Into a file that its owner maps, past none of its ends.
                let other = self.random.random_range(0..THREADS);
                let bytes = self.bytes();
                let path = self.root.join(format!("mapped{other}"));
                File::options().write(true).open(path)?.write_all_at(&bytes, offset)
            }
            _ => self.map(),
        }
    }

    fn append(&mut self) -> io::Result<()> {
        use std::io::Write;
        let (name, bytes) = (self.name(), self.bytes());
        File::options().append(true).open(name)?.write_all(&bytes)
    }

    /// Cuts, maps, stores, and mostly writes back.
    fn map(&mut self) -> io::Result<()> {
        let length = self.random.random_range(10_000..BYTES_MAX);
        self.own.set_len(length)?;
        let map = Mapping::new(&self.own, length as usize)?;
        for _ in 0..5 {
            let bytes = vec![self.random.random(); self.random.random_range(1..5_000)];
            let at = self.random.random_range(0..length as usize - bytes.len());
            map.store(at, &bytes);
        }
        if self.random.random_ratio(2, 3) { map.sync() } else { Ok(()) }
    }
}

fn is_a_lost_race(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [libc::ENOENT, libc::EEXIST, libc::EINVAL].map(Some).contains(&code)
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_that_map_cut_and_rename_leave_one_tree_everywhere() {
    if !can_run("threads_that_map_cut_and_rename_leave_one_tree_everywhere") {
        return;
    }
    let mut plan = Plan::new(binary(), Service::Files);
    plan.ttl = "3s".to_owned();
    plan.durability = "sync".to_owned();
    let mut cluster = Cluster::start(&plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    let mount = cluster.leader().await.expect("a leader").mount();
    cluster.whole().await.unwrap_or_else(|error| panic!("{error:#}"));
    let root = mount.clone();
    let done = bounded(move || {
        ["d0", "d1"].iter().for_each(|name| fs::create_dir(root.join(name)).expect("a directory"));
        for number in 0..THREADS {
            File::create(root.join(format!("mapped{number}"))).expect("a file");
        }
        let work = |number| {
            let root = root.clone();
            std::thread::spawn(move || Worker::run(&root, number))
        };
        let workers: Vec<_> = (0..THREADS).map(work).collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).sum::<usize>()
    })
    .await;
    let all = THREADS as usize * STEPS;
    assert!(done > all / 2, "only {done} of {all} steps did anything");
    let mounted = bounded(move || read(&mount)).await;
    let exported = assert_equal(&mut cluster).await;
    assert_eq!(mounted.difference(&exported), None, "the mount and its export differ");
    assert!(exported.len() > 20, "{} names are left", exported.len());
}
