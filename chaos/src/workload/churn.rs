//! Seeded trouble for a directory tree: what an SFTP server's users do to it, faster.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rustix::fs::{CWD, FallocateFlags, FileType, Mode, RenameFlags, XattrFlags};

/// A source of operations; equal seeds do equal things to equal trees.
#[derive(Debug)]
pub struct Churn {
    random: StdRng,
    seed: u64,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    count: u64,
}

impl Churn {
    /// Operations of one seed; different seeds use different names.
    #[must_use]
    pub fn new(seed: u64) -> Churn {
        let random = StdRng::seed_from_u64(seed);
        Churn { random, seed, files: Vec::new(), folders: vec![PathBuf::new()], count: 0 }
    }

    /// How many new names it has made.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Does `operations` of them below `root`.
    ///
    /// # Errors
    /// The first operation that the file system refused though it should not have.
    pub fn run(&mut self, root: &Path, operations: usize) -> io::Result<()> {
        for _ in 0..operations {
            self.step(root)?;
        }
        Ok(())
    }

    fn step(&mut self, root: &Path) -> io::Result<()> {
        match self.random.random_range(0..100) {
            0..14 => self.create(root),
            14..32 => self.write(root),
            32..36 => self.append(root),
            36..42 => self.resize(root),
            42..46 => self.punch(root),
            46..48 => self.copy_range(root),
            48..51 => self.make_folder(root),
            51..53 => self.remove_folder(root),
            53..60 => self.rename(root),
            60..62 => self.exchange(root),
            62..74 => self.remove(root),
            74..76 => self.write_without_a_name(root),
            76..80 => self.change_mode(root),
            80..82 => self.change_owner(root),
            82..85 => self.change_times(root),
            85..88 => self.change_xattr(root),
            88..91 => self.link(root),
            91..93 => self.make_node(root),
            93..96 => self.sync(root),
            _ => self.replace(root),
        }
    }

    fn fresh(&mut self) -> PathBuf {
        self.count += 1;
        let folder = self.folders.choose(&mut self.random).expect("the root is always there");
        folder.join(OsString::from(format!("s{}-{}", self.seed, self.count)))
    }

    fn some_file(&mut self) -> Option<PathBuf> {
        self.files.choose(&mut self.random).cloned()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.random.random_range(1..20_000)];
        self.random.fill(&mut bytes[..]);
        bytes
    }

    fn create(&mut self, root: &Path) -> io::Result<()> {
        let (path, bytes) = (self.fresh(), self.bytes());
        fs::write(root.join(&path), bytes)?;
        self.files.push(path);
        Ok(())
    }

    fn write(&mut self, root: &Path) -> io::Result<()> {
        let (Some(path), bytes) = (self.some_file(), self.bytes()) else { return Ok(()) };
        let offset = self.random.random_range(0..100_000);
        File::options().write(true).open(root.join(path))?.write_all_at(&bytes, offset)
    }

    fn resize(&mut self, root: &Path) -> io::Result<()> {
        let Some(path) = self.some_file() else { return Ok(()) };
        let size = self.random.random_range(0..150_000);
        File::options().write(true).open(root.join(path))?.set_len(size)
    }

    fn make_folder(&mut self, root: &Path) -> io::Result<()> {
        let path = self.fresh();
        fs::create_dir(root.join(&path))?;
        self.folders.push(path);
        Ok(())
    }

    fn rename(&mut self, root: &Path) -> io::Result<()> {
        let (Some(from), to) = (self.some_file(), self.fresh()) else { return Ok(()) };
        fs::rename(root.join(&from), root.join(&to))?;
        self.files.retain(|path| *path != from);
        self.files.push(to);
        Ok(())
    }

    fn remove(&mut self, root: &Path) -> io::Result<()> {
        let Some(path) = self.some_file() else { return Ok(()) };
        fs::remove_file(root.join(&path))?;
        self.files.retain(|file| *file != path);
        Ok(())
    }

    fn change_mode(&mut self, root: &Path) -> io::Result<()> {
        let Some(path) = self.some_file() else { return Ok(()) };
        let mode = self.random.random_range(0..0o1000) | 0o600;
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode))
    }

    fn link(&mut self, root: &Path) -> io::Result<()> {
        let (Some(path), new) = (self.some_file(), self.fresh()) else { return Ok(()) };
        if self.random.random() {
            fs::hard_link(root.join(path), root.join(&new))?;
            self.files.push(new);
        } else {
            symlink(path, root.join(new))?;
        }
        Ok(())
    }

    fn open(&mut self, root: &Path) -> io::Result<Option<File>> {
        let Some(path) = self.some_file() else { return Ok(None) };
        File::options().read(true).write(true).open(root.join(path)).map(Some)
    }

    fn append(&mut self, root: &Path) -> io::Result<()> {
        let (Some(path), bytes) = (self.some_file(), self.bytes()) else { return Ok(()) };
        File::options().append(true).open(root.join(path))?.write_all(&bytes)
    }

    fn punch(&mut self, root: &Path) -> io::Result<()> {
        let (offset, length) =
            (self.random.random_range(0..90_000), self.random.random_range(1..30_000));
        let flags = match self.random.random_range(0..3) {
            0 => FallocateFlags::empty(),
            1 => FallocateFlags::KEEP_SIZE,
            _ => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        };
        let Some(file) = self.open(root)? else { return Ok(()) };
        Ok(rustix::fs::fallocate(file, flags, offset, length)?)
    }

    fn copy_range(&mut self, root: &Path) -> io::Result<()> {
        let (mut offset, length) =
            (self.random.random_range(0..50_000), self.random.random_range(1..30_000));
        let (Some(from), Some(to)) = (self.open(root)?, self.open(root)?) else { return Ok(()) };
        let (from_id, to_id) = (from.metadata()?.ino(), to.metadata()?.ino());
        if from_id != to_id {
            rustix::fs::copy_file_range(from, None, to, Some(&mut offset), length)?;
        }
        Ok(())
    }

    /// A folder of its own, removed again; others may be in use as parents.
    fn remove_folder(&mut self, root: &Path) -> io::Result<()> {
        let path = root.join(self.fresh());
        fs::create_dir(&path)?;
        fs::remove_dir(path)
    }

    fn exchange(&mut self, root: &Path) -> io::Result<()> {
        let (Some(one), Some(other)) = (self.some_file(), self.some_file()) else { return Ok(()) };
        if one == other {
            return Ok(());
        }
        let (one, other) = (root.join(one), root.join(other));
        Ok(rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    /// Writes to a file whose only name is gone: nothing of it may be left.
    fn write_without_a_name(&mut self, root: &Path) -> io::Result<()> {
        let (path, bytes) = (root.join(self.fresh()), self.bytes());
        let file = File::create(&path)?;
        fs::remove_file(path)?;
        file.write_all_at(&bytes, 10)
    }

    fn change_owner(&mut self, root: &Path) -> io::Result<()> {
        let Some(path) = self.some_file() else { return Ok(()) };
        let (uid, gid) = (self.random.random_range(0..5), self.random.random_range(0..5));
        std::os::unix::fs::chown(root.join(path), Some(uid), Some(gid))
    }

    fn change_times(&mut self, root: &Path) -> io::Result<()> {
        let (seconds, nanos) = (
            self.random.random_range(0..2_000_000_000),
            self.random.random_range(0..1_000_000_000),
        );
        let Some(file) = self.open(root)? else { return Ok(()) };
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
    }

    fn change_xattr(&mut self, root: &Path) -> io::Result<()> {
        let name = format!("user.churn{}", self.random.random_range(0..3));
        let bytes = self.bytes();
        let Some(path) = self.some_file().map(|path| root.join(path)) else { return Ok(()) };
        if self.random.random_ratio(2, 3) {
            let value = &bytes[..bytes.len().min(200)];
            return Ok(rustix::fs::setxattr(path, name, value, XattrFlags::empty())?);
        }
        match rustix::fs::removexattr(path, name) {
            Err(rustix::io::Errno::NODATA) => Ok(()),
            other => Ok(other?),
        }
    }

    fn make_node(&mut self, root: &Path) -> io::Result<()> {
        let kind = if self.random.random() { FileType::Fifo } else { FileType::Socket };
        let path = root.join(self.fresh());
        Ok(rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), 0)?)
    }

    fn sync(&mut self, root: &Path) -> io::Result<()> {
        let Some(path) = self.some_file() else { return Ok(()) };
        File::options().write(true).open(root.join(path))?.sync_all()
    }

    /// The way a careful program replaces a file: write another, sync it, rename it over.
    fn replace(&mut self, root: &Path) -> io::Result<()> {
        let (Some(path), new) = (self.some_file(), self.fresh()) else { return Ok(()) };
        let bytes = self.bytes();
        fs::write(root.join(&new), bytes)?;
        File::open(root.join(&new))?.sync_all()?;
        fs::rename(root.join(new), root.join(path))
    }
}
