//! The files: one snapshot, and the journal of what came after it.
//!
//! `snapshot-N` holds everything up to the journal N, which holds everything since. A new snapshot is
//! written under another name, synced, and renamed; the folder is synced before the old pair goes.
//! A record that is torn at the journal's end was never acknowledged and is cut off; a bad one
//! before the end is damage, and refused.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Value;

/// client, number, and a sum of both.
const RECORD: usize = 4 + 8 + 8;

/// A journal that is this long, in records, gives way to a snapshot.
const SNAPSHOT_AFTER: usize = 2_000;

/// The open journal of a store.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    number: u64,
    file: File,
    length: usize,
}

impl Journal {
    /// Opens what is there, or an empty one, and says what it holds.
    pub fn open(folder: &Path) -> Result<(Journal, Vec<Value>)> {
        let number = newest(folder)?;
        let values = Journal::read(folder)?;
        let path = folder.join(name("journal", number));
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        let whole = file.metadata()?.len() / RECORD as u64 * RECORD as u64;
        // A torn record must not stand before the next one.
        let whole = if ends_torn(&mut file, whole)? { whole - RECORD as u64 } else { whole };
        file.set_len(whole)?;
        file.seek(std::io::SeekFrom::End(0))?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        let length = usize::try_from(whole)? / RECORD;
        Ok((Journal { folder: folder.to_owned(), number, file, length }, values))
    }

    /// What a store holds.
    pub fn read(folder: &Path) -> Result<Vec<Value>> {
        let number = newest(folder)?;
        let mut values = Vec::new();
        if number > 0 {
            let snapshot = fs::read(folder.join(name("snapshot", number)))?;
            let (found, torn) = records(&snapshot);
            ensure!(!torn, "snapshot {number} is damaged");
            values = found;
        }
        let journal = fs::read(folder.join(name("journal", number))).unwrap_or_default();
        let (found, _) = records(&journal);
        let beyond = journal.len() / RECORD - found.len();
        ensure!(beyond <= 1, "journal {number} is damaged {beyond} records before its end");
        values.extend(found);
        Ok(values)
    }

    /// Makes one value durable.
    pub fn append(&mut self, value: Value) -> Result<()> {
        self.file.write_all(&record(value))?;
        self.file.sync_data()?;
        self.length += 1;
        Ok(())
    }

    /// Takes a snapshot of `values`, which is all there is, if the journal is long.
    pub fn tidy(&mut self, values: &[Value]) -> Result<()> {
        if self.length < SNAPSHOT_AFTER {
            return Ok(());
        }
        let next = self.number + 1;
        let journal = File::create(self.folder.join(name("journal", next)))?;
        journal.sync_all()?;
        let bytes: Vec<u8> = values.iter().copied().flat_map(record).collect();
        let written = self.folder.join("snapshot-new");
        let mut file = File::create(&written)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&written, self.folder.join(name("snapshot", next)))?;
        File::open(&self.folder)?.sync_all()?;
        let old = std::mem::replace(&mut self.number, next);
        (self.file, self.length) = (journal, 0);
        let _ = fs::remove_file(self.folder.join(name("journal", old)));
        let _ = fs::remove_file(self.folder.join(name("snapshot", old)));
        Ok(())
    }
}

fn name(kind: &str, number: u64) -> String {
    format!("{kind}-{number}")
}

/// The newest snapshot's number; 0 is the empty one that needs no file.
fn newest(folder: &Path) -> Result<u64> {
    let mut newest = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("snapshot-")?.parse().ok());
        newest = newest.max(number.unwrap_or(0));
    }
    Ok(newest)
}

/// Whether the last whole record is not what was written.
fn ends_torn(file: &mut File, whole: u64) -> Result<bool> {
    let Some(last) = whole.checked_sub(RECORD as u64) else { return Ok(false) };
    file.seek(std::io::SeekFrom::Start(last))?;
    let mut bytes = [0; RECORD];
    file.read_exact(&mut bytes)?;
    Ok(value(&bytes).is_none())
}

fn sum((client, number): Value) -> u64 {
    (u64::from(client) << 40 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

fn record(value: Value) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..4].copy_from_slice(&value.0.to_le_bytes());
    bytes[4..12].copy_from_slice(&value.1.to_le_bytes());
    bytes[12..].copy_from_slice(&sum(value).to_le_bytes());
    bytes
}

fn value(bytes: &[u8]) -> Option<Value> {
    let client = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let number = u64::from_le_bytes(bytes.get(4..12)?.try_into().ok()?);
    let stored = u64::from_le_bytes(bytes.get(12..RECORD)?.try_into().ok()?);
    (stored == sum((client, number))).then_some((client, number))
}

/// The good records at the start, and whether anything stands behind them.
fn records(bytes: &[u8]) -> (Vec<Value>, bool) {
    let values: Vec<_> = bytes.chunks_exact(RECORD).map_while(value).collect();
    let rest = bytes.len() != values.len() * RECORD;
    (values, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(folder: &Path, count: u64) {
        let (mut journal, mut values) = Journal::open(folder).expect("a store");
        for number in 0..count {
            journal.append((1, number)).expect("appended");
            values.push((1, number));
            journal.tidy(&values).expect("tidied");
        }
    }

    #[test]
    fn what_was_appended_is_there_again_across_snapshots() {
        let folder = tempfile::tempdir().expect("a folder");
        filled(folder.path(), 5_000);
        let (_, values) = Journal::open(folder.path()).expect("a store");
        assert_eq!(values, (0..5_000).map(|number| (1, number)).collect::<Vec<_>>());
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 2);
        super::super::check(folder.path()).expect("it is sound");
    }

    #[test]
    fn a_torn_end_is_cut_off_and_damage_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        filled(folder.path(), 3);
        let path = folder.path().join("journal-0");
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[2 * RECORD] ^= 1;
        bytes.push(7);
        std::fs::write(&path, &bytes).expect("written");
        let (mut journal, values) = Journal::open(folder.path()).expect("a store");
        assert_eq!(values, [(1, 0), (1, 1)]);
        journal.append((1, 9)).expect("appended");
        assert_eq!(Journal::read(folder.path()).expect("read"), [(1, 0), (1, 1), (1, 9)]);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[0] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert!(Journal::open(folder.path()).is_err());
    }
}
