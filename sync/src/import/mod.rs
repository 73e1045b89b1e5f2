//! Plain files into a new volume.
//!
//! What is made is the content that a first leader would have written in one op of epoch 1, and a
//! log that begins after it: followers copy it in full. Two imports have nothing in common though
//! their positions are equal, so each begins a cluster of its own.

pub(crate) mod scan;

use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::export::tree::{self, Told, TreeError};
use crate::op::Kind;
use crate::position::{ClusterId, FileId, Lineage, Position, Seq};
use crate::store::CHUNK_BYTES;
use crate::store::rows::Row;
use crate::volume::{Builder, Piece, SnapshotHeader, Volume, VolumeError, VolumeOptions};
use scan::{IMPORT_EPOCH, Scanned};

/// Where an imported volume begins.
const START: Position = Position { epoch: IMPORT_EPOCH, seq: Seq(1) };

/// Rows given to the index at a time, and bytes to an object.
const ROWS: usize = 1024;
const BYTES: usize = 256 * 1024;

/// Why an import did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The volume could not be made.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A plain file could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// There is a volume already.
    #[error("{} holds a volume at {position} already; choose an empty state directory", path.display())]
    NotBlank {
        /// The state directory.
        path: PathBuf,
        /// How far that one reaches.
        position: Position,
    },
    /// One of them contains the other.
    #[error("{} and {} contain one another; import from elsewhere", source_dir.display(), state_dir.display())]
    Nested {
        /// The plain files.
        source_dir: PathBuf,
        /// The state directory.
        state_dir: PathBuf,
    },
    /// The service is still running, most likely.
    #[error("{} changed while it was read; stop what writes to it and import again", .0.display())]
    Changed(PathBuf),
}

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Where it begins.
    pub position: Position,
    /// How many files and directories.
    pub files: usize,
}

/// Makes a volume in `state_dir` out of the plain files in `source`, which nobody may be
/// using. `options` are what the replica will run with.
///
/// # Errors
/// See [`ImportError`]. An import that failed half way left an incomplete volume, which another
/// import replaces.
pub fn import(
    source: &Path,
    state_dir: &Path,
    options: &VolumeOptions,
) -> Result<Imported, ImportError> {
    import_telling(source, state_dir, options, &mut |_, _| ())
}

/// As [`import`], and tells how far it is.
///
/// # Errors
/// See [`ImportError`].
pub fn import_telling(
    source: &Path,
    state_dir: &Path,
    options: &VolumeOptions,
    told: Told<'_>,
) -> Result<Imported, ImportError> {
    let scanned = scan::scan(source)?;
    refuse_nested(source, state_dir)?;
    let volume = Volume::open(state_dir, options.clone())?;
    let position = volume.head();
    if !volume.building() && (volume.cluster().is_some() || position != Position::default()) {
        return Err(ImportError::NotBlank { path: state_dir.to_owned(), position });
    }
    let header = SnapshotHeader {
        // Of an earlier import that did not end the cluster never was.
        cluster: volume.cluster().unwrap_or_else(|| ClusterId(rand::random())),
        position: START,
        lineage: Lineage(vec![(START.epoch, START.seq)]),
        floor: Seq(0),
        files: scanned.image.nodes.len() as u64,
        bytes: 0,
    };
    let mut taker = Taker { builder: volume.build(&header)?, rows: Vec::with_capacity(ROWS) };
    taker.take_rows(&scanned)?;
    let (mut done, total) = (0, tree::bytes_of(&scanned.image));
    for (id, of) in &scanned.image.nodes {
        if of.kind == Kind::File && of.size > 0 {
            taker.take_content(*id, of.size, &scanned.paths[id])?;
            done += of.size;
            told(done, total);
        }
    }
    taker.flush()?;
    if let Some(path) = scanned.changed()? {
        return Err(ImportError::Changed(path));
    }
    // It belongs to none until it founds one: a volume of a cluster that no coordinator knows has
    // lost its coordinator, and must not begin anew. First, so that a kill leaves an incomplete one.
    volume.forget_cluster()?;
    taker.builder.finish(START)?;
    volume.close()?;
    Ok(Imported { position: START, files: scanned.image.nodes.len() })
}

fn refuse_nested(source: &Path, state_dir: &Path) -> Result<(), ImportError> {
    fs::create_dir_all(state_dir).map_err(TreeError::on("create", state_dir))?;
    let real = |path: &Path| fs::canonicalize(path).map_err(TreeError::on("find", path));
    let (source_dir, state_dir) = (real(source)?, real(state_dir)?);
    if source_dir.starts_with(&state_dir) || state_dir.starts_with(&source_dir) {
        return Err(ImportError::Nested { source_dir, state_dir });
    }
    Ok(())
}

/// Gives pieces to the volume, rows many at a time.
struct Taker {
    builder: Builder,
    rows: Vec<Row>,
}

impl Taker {
    fn take_row(&mut self, row: Row) -> Result<(), ImportError> {
        self.rows.push(row);
        if self.rows.len() == ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ImportError> {
        Ok(self.builder.take(&Piece::Rows(std::mem::take(&mut self.rows)))?)
    }

    /// All but the chunks'.
    fn take_rows(&mut self, scanned: &Scanned) -> Result<(), ImportError> {
        let birth = START.seq;
        let image = &scanned.image;
        for (id, of) in &image.nodes {
            self.take_row(Row::Node { id: *id, attributes: of.clone(), birth })?;
        }
        for (parent, name, child) in &image.entries {
            let (parent, name, child) = (*parent, name.clone(), Some(*child));
            self.take_row(Row::Entry { parent, name, child, birth })?;
        }
        for (id, name, value) in &image.xattrs {
            let (id, name, value) = (*id, name.clone(), Some(value.clone()));
            self.take_row(Row::Xattr { id, name, value, birth })?;
        }
        self.flush()
    }

    /// Data and its chunks' births; holes stay holes, and have none.
    fn take_content(&mut self, id: FileId, size: u64, path: &Path) -> Result<(), ImportError> {
        let failed = |cause: io::Error| TreeError::on("read", path)(cause);
        let file = File::open(path).map_err(failed)?;
        let (mut at, mut born) = (0, 0);
        while at < size {
            let from = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                Ok(from) if from < size => from,
                Ok(_) | Err(Errno::NXIO) => break,
                Err(errno) => return Err(failed(errno.into()).into()),
            };
            // A small hole within the piece is read as zeros, and not kept as one.
            let mut bytes = vec![0; (size - from).min(BYTES as u64) as usize];
            let read = file.read_at(&mut bytes, from).map_err(failed)?;
            if read == 0 {
                // It is shorter than it was, which the second look will find.
                break;
            }
            bytes.truncate(read);
            at = from + read as u64;
            for index in (from / CHUNK_BYTES).max(born)..at.div_ceil(CHUNK_BYTES) {
                self.take_row(Row::Chunk { id, index, birth: START.seq })?;
            }
            born = at.div_ceil(CHUNK_BYTES);
            self.builder.take(&Piece::Data { id, offset: from, bytes: bytes.into() })?;
        }
        Ok(())
    }
}
