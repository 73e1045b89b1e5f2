//! What a replica has promised, in a small file of its own.
//!
//! A promise must survive a power loss before the ballot that rests on it leaves, so the vow is
//! fsynced by itself and never waits for the database. The volume loads it when it opens and
//! stores it at every promise and every new config.
//!
//! Hazard: a vow that was lost and read as "nothing promised" lets two leaders win. A file that
//! is there and does not check out is therefore an error, never a fresh start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::position::{ClusterId, Epoch, VolumeId};
use crate::wire::{self, WireError};

/// The vow's file in a state directory.
const FILE: &str = "vow";
/// Where the next vow is written before it takes the last one's name.
const NEXT_FILE: &str = "vow.next";
const MAGIC: [u8; 8] = *b"MAINVOW1";
const PREFIX_BYTES: usize = MAGIC.len() + 4;
const FILE_BYTES_MAX: u64 = 4 << 20;

/// One replica's identity and what it may not take back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vow {
    /// Version of this struct: [`Vow::FORMAT`].
    pub format: u32,
    /// The cluster that this volume belongs to; `None` while it is blank.
    pub cluster: Option<ClusterId>,
    /// This copy on this disk.
    pub volume: VolumeId,
    /// Nothing of this epoch or an older one is taken or acknowledged by this replica again.
    pub promised: Epoch,
    /// The newest epoch that this replica takes part in, and which volume leads it. An epoch is one
    /// leader's for good: a coordinator that forgot whose it was may give it again, but no write
    /// quorum will be found for it a second time (as votedFor in Raft).
    pub leader: Option<(Epoch, VolumeId)>,
    /// The newest cluster config seen, as the coordinator stored it.
    pub config: Option<Vec<u8>>,
}

/// Why a vow could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum VowError {
    /// The disk said no.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file is there and is not a vow.
    #[error(
        "{} does not check out ({why}): what this replica promised is unknown; \
         move its state directory aside and let it join as a new one",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Written by another version.
    #[error("{} has format {found}, this version reads {}: run the version that wrote it",
        path.display(), Vow::FORMAT)]
    Format {
        /// Which file.
        path: PathBuf,
        /// The format that it says.
        found: u32,
    },
}

impl Vow {
    /// The format that this version reads and writes.
    pub const FORMAT: u32 = 2;

    /// A new volume's first vow: it has promised nothing and belongs nowhere.
    #[must_use]
    pub fn blank(volume: VolumeId) -> Vow {
        let (format, promised) = (Vow::FORMAT, Epoch(0));
        Vow { format, cluster: None, volume, promised, leader: None, config: None }
    }

    /// The vow of the state directory `dir`; `None` if it never had one.
    ///
    /// # Errors
    /// The file is there and cannot be read in full, or does not check out.
    pub fn load(dir: &Path) -> Result<Option<Vow>, VowError> {
        let path = dir.join(FILE);
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => {
                file.take(FILE_BYTES_MAX)
                    .read_to_end(&mut bytes)
                    .map_err(|source| io_error("read", &path, source))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("open", &path, source)),
        }
        parse(&path, &bytes).map(Some)
    }

    /// Makes this the vow of `dir`. Once it returns, a power loss cannot bring back the last one;
    /// if it fails, either may be there.
    ///
    /// # Errors
    /// The disk refused a step.
    pub fn store(&self, dir: &Path) -> Result<(), VowError> {
        let next = dir.join(NEXT_FILE);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&next)
            .map_err(|source| io_error("create", &next, source))?;
        file.write_all(&self.to_bytes()).map_err(|source| io_error("write", &next, source))?;
        file.sync_all().map_err(|source| io_error("sync", &next, source))?;
        let path = dir.join(FILE);
        fs::rename(&next, &path).map_err(|source| io_error("replace", &path, source))?;
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| io_error("sync directory", dir, source))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let body = wire::encode_message(self);
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vow, VowError> {
    let damaged = |why: String| VowError::Damaged { path: path.to_owned(), why };
    let (prefix, body) = bytes
        .split_first_chunk::<PREFIX_BYTES>()
        .ok_or_else(|| damaged(format!("it has only {} bytes", bytes.len())))?;
    if prefix[..MAGIC.len()] != MAGIC {
        return Err(damaged("it does not begin like a vow".to_owned()));
    }
    if prefix[MAGIC.len()..] != crc32c::crc32c(body).to_le_bytes() {
        return Err(damaged("its checksum is wrong".to_owned()));
    }
    // Another version's vow may have other fields, and is no damage.
    if let Ok(found) = wire::decode_first::<u32>(body)
        && found != Vow::FORMAT
    {
        return Err(VowError::Format { path: path.to_owned(), found });
    }
    wire::decode_message(body).map_err(|error: WireError| damaged(error.to_string()))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> VowError {
    VowError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vow() -> Vow {
        Vow {
            cluster: Some(ClusterId([7; 16])),
            promised: Epoch(9),
            leader: Some((Epoch(10), VolumeId([2; 16]))),
            config: Some(b"{}".to_vec()),
            ..Vow::blank(VolumeId([1; 16]))
        }
    }

    #[test]
    fn a_vow_reads_back_and_replaces_the_last() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Vow::load(dir.path()).unwrap(), None);
        Vow::blank(VolumeId([1; 16])).store(dir.path()).unwrap();
        vow().store(dir.path()).unwrap();
        assert_eq!(Vow::load(dir.path()).unwrap(), Some(vow()));
        assert!(!dir.path().join(NEXT_FILE).exists());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let whole = vow().to_bytes();
        let path = dir.path().join(FILE);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(Vow::load(dir.path()), Err(VowError::Damaged { .. })), "bit {bit}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(Vow::load(dir.path()), Err(VowError::Damaged { .. })), "{length}");
        }
    }

    #[test]
    fn a_half_written_successor_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        vow().store(dir.path()).unwrap();
        fs::write(dir.path().join(NEXT_FILE), b"half").unwrap();
        assert_eq!(Vow::load(dir.path()).unwrap(), Some(vow()));
        vow().store(dir.path()).unwrap();
    }

    #[test]
    fn another_format_is_named() {
        let dir = tempfile::tempdir().unwrap();
        Vow { format: 1, ..vow() }.store(dir.path()).unwrap();
        let error = Vow::load(dir.path()).unwrap_err();
        assert!(matches!(error, VowError::Format { found: 1, .. }), "{error}");
        // With a field more, as a later version's may have.
        let mut body = wire::encode_message(&Vow { format: 3, ..vow() });
        body.extend_from_slice(b"more");
        let sum = crc32c::crc32c(&body).to_le_bytes();
        fs::write(dir.path().join(FILE), [&MAGIC[..], &sum, &body].concat()).unwrap();
        let error = Vow::load(dir.path()).unwrap_err();
        assert!(matches!(error, VowError::Format { found: 3, .. }), "{error}");
    }
}
