//! A disk in memory that is as bad as a real one may be.
//!
//! Fault model: when power is lost, every sector written since its file's last sync is there or
//! is not, each by itself, and of the changes of names since the directory's last sync a prefix
//! is there (journaling file systems keep their order). A failed sync leaves some sectors behind
//! and calls all of them clean. A kill loses nothing. Writes may be short. Synced bytes stay.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::log::disk::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// What happens at the operation that the countdown ends at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing reaches the disk from here on: power is gone.
    PowerLost,
    /// The next sync fails, as fsync does: once.
    SyncFails,
}

#[derive(Clone, Default)]
struct Content {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone)]
enum NameChange {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

struct Inner {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<NameChange>,
    rng: StdRng,
    fault: Option<(u64, Fault)>,
    power_lost: bool,
    sync_fails: bool,
    room_bytes: Option<usize>,
}

/// Clones are one disk.
#[derive(Clone)]
pub struct ModelDisk(Arc<Mutex<Inner>>);

struct ModelFile(ModelDisk, usize);

impl ModelDisk {
    pub fn new(seed: u64) -> ModelDisk {
        ModelDisk::with(Vec::new(), BTreeMap::new(), seed)
    }

    fn with(files: Vec<Content>, names: BTreeMap<String, usize>, seed: u64) -> ModelDisk {
        ModelDisk(Arc::new(Mutex::new(Inner {
            files,
            durable_names: names.clone(),
            names,
            changes: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            fault: None,
            power_lost: false,
            sync_fails: false,
            room_bytes: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// After `operations` more that change the disk, `fault` strikes.
    pub fn fail_after(&self, operations: u64, fault: Fault) {
        self.lock().fault = Some((operations, fault));
    }

    /// All files together may have so many bytes.
    pub fn set_room(&self, bytes: Option<usize>) {
        self.lock().room_bytes = bytes;
    }

    /// The disk that a process finds which starts after this one was killed.
    pub fn after_kill(&self) -> ModelDisk {
        let mut inner = self.lock();
        let seed = inner.rng.random();
        let killed = ModelDisk::with(inner.files.clone(), inner.names.clone(), seed);
        let mut next = killed.lock();
        next.durable_names = inner.durable_names.clone();
        next.changes = inner.changes.clone();
        drop(next);
        killed
    }

    /// The disk as it may be after a power loss now.
    pub fn after_power_loss(&self) -> ModelDisk {
        let mut inner = self.lock();
        let Inner { files, rng, changes, durable_names, .. } = &mut *inner;
        let mut names = durable_names.clone();
        let kept = rng.random_range(0..=changes.len());
        for change in &changes[..kept] {
            change.apply(&mut names);
        }
        let files = files.iter().map(|file| file.after_power_loss(rng)).collect();
        ModelDisk::with(files, names, rng.random())
    }

    /// The bytes of a file, to damage.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let inner = self.lock();
        inner.files[inner.names[name]].cached.clone()
    }

    /// Puts other bytes in a file's place.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut inner = self.lock();
        let index = inner.names[name];
        inner.files[index] =
            Content { cached: bytes.clone(), durable: bytes, dirty: BTreeSet::new() };
    }
}

impl Inner {
    /// Counts one operation that changes the disk.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.fault {
            Some((0, Fault::PowerLost)) => self.power_lost = true,
            Some((0, Fault::SyncFails)) => {
                self.sync_fails = true;
                self.fault = None;
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        if self.power_lost { Err(io::Error::other("power is lost")) } else { Ok(()) }
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create(name, file) => {
                names.insert(name.clone(), *file);
            }
            NameChange::Rename(from, to) => {
                let file = names.remove(from).expect("names change in order");
                names.insert(to.clone(), file);
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Content {
    fn copy_sector(from: &[u8], to: &mut Vec<u8>, sector: usize) {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(from.len());
        if to.len() < end {
            to.resize(end, 0);
        }
        to[start..end].copy_from_slice(&from[start..end]);
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            Content::copy_sector(&self.cached, &mut self.durable, sector);
        }
    }

    fn fail_to_sync(&mut self, rng: &mut StdRng) {
        for sector in std::mem::take(&mut self.dirty) {
            if rng.random() {
                Content::copy_sector(&self.cached, &mut self.durable, sector);
            }
        }
    }

    fn after_power_loss(&self, rng: &mut StdRng) -> Content {
        let mut durable = self.durable.clone();
        for sector in &self.dirty {
            if rng.random() {
                Content::copy_sector(&self.cached, &mut durable, *sector);
            }
        }
        Content { cached: durable.clone(), durable, dirty: BTreeSet::new() }
    }
}

impl Disk for ModelDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let inner = self.lock();
        let size = |file: &usize| inner.files[*file].cached.len() as u64;
        Ok(inner.names.iter().map(|(name, file)| (name.clone(), size(file))).collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.lock().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(ModelFile(self.clone(), file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        inner.operate()?;
        let file = inner.files.len();
        inner.files.push(Content::default());
        inner.change(NameChange::Create(name.to_owned(), file));
        Ok(Arc::new(ModelFile(self.clone(), file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.operate()?;
        inner.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.operate()?;
        inner.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.operate()?;
        inner.changes.clear();
        inner.durable_names = inner.names.clone();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("model").join(name)
    }
}

impl DiskFile for ModelFile {
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut inner = self.0.lock();
        inner.operate()?;
        let mut bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
        if inner.rng.random_ratio(1, 4) {
            let short = inner.rng.random_range(1..=bytes.len());
            bytes.truncate(short);
        }
        let offset = offset as usize;
        let end = offset + bytes.len();
        let used: usize = inner.names.values().map(|file| inner.files[*file].cached.len()).sum();
        let content = &inner.files[self.1];
        let growth = end.saturating_sub(content.cached.len());
        if inner.room_bytes.is_some_and(|room| growth > 0 && used + growth > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = &mut inner.files[self.1];
        if content.cached.len() < end {
            content.cached.resize(end, 0);
        }
        content.cached[offset..end].copy_from_slice(&bytes);
        content.dirty.extend(offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        Ok(bytes.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.0.lock();
        let cached = &inner.files[self.1].cached;
        let from = cached.get(offset as usize..).unwrap_or_default();
        let length = from.len().min(into.len());
        into[..length].copy_from_slice(&from[..length]);
        Ok(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.operate()?;
        let Inner { files, rng, sync_fails, .. } = &mut *inner;
        if std::mem::take(sync_fails) {
            files[self.1].fail_to_sync(rng);
            return Err(io::Error::other("a sync failed"));
        }
        files[self.1].sync();
        Ok(())
    }
}
