//! Seeded trouble for a directory tree: what an SFTP server's users do to it, faster.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

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
            0..20 => self.create(root),
            20..50 => self.write(root),
            50..58 => self.resize(root),
            58..64 => self.make_folder(root),
            64..74 => self.rename(root),
            74..82 => self.remove(root),
            82..88 => self.change_mode(root),
            88..92 => self.link(root),
            92..96 => self.sync(root),
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
