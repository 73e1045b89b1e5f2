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

use crate::export::tree::TreeError;
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
    /// The new cluster that the volume begins.
    pub cluster: ClusterId,
    /// Where it begins.
    pub position: Position,
    /// How many files and directories.
    pub files: usize,
}

/// Makes a volume in `state_dir` out of the plain files in `source`, which nobody may be using.
///
/// # Errors
/// See [`ImportError`]. An import that failed half way left an incomplete volume, which another
/// import replaces.
pub fn import(source: &Path, state_dir: &Path) -> Result<Imported, ImportError> {
    let scanned = scan::scan(source)?;
    refuse_nested(source, state_dir)?;
    let volume = Volume::open(state_dir, VolumeOptions::default())?;
    let position = volume.head();
    if !volume.building() && (volume.cluster().is_some() || position != Position::default()) {
        return Err(ImportError::NotBlank { path: state_dir.to_owned(), position });
    }
    // Of an earlier import that did not end the cluster never was.
    let cluster = volume.cluster().unwrap_or_else(|| ClusterId(rand::random()));
    let header = SnapshotHeader {
        cluster,
        position: START,
        lineage: Lineage(vec![(START.epoch, START.seq)]),
        floor: Seq(0),
        files: scanned.image.nodes.len() as u64,
        bytes: 0,
    };
    let mut builder = volume.build(&header)?;
    give_rows(&scanned, &mut builder)?;
    for (id, of) in &scanned.image.nodes {
        if of.kind == Kind::File && of.size > 0 {
            give_content(*id, of.size, &scanned.paths[id], &mut builder)?;
        }
    }
    if let Some(path) = scanned.changed(source)? {
        return Err(ImportError::Changed(path));
    }
    builder.finish(START)?;
    volume.close()?;
    Ok(Imported { cluster, position: START, files: scanned.image.nodes.len() })
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

fn give_rows(scanned: &Scanned, builder: &mut Builder) -> Result<(), ImportError> {
    let birth = START.seq;
    let image = &scanned.image;
    let nodes =
        image.nodes.iter().map(|(id, of)| Row::Node { id: *id, attributes: of.clone(), birth });
    let entries = image.entries.iter().map(|(parent, name, child)| Row::Entry {
        parent: *parent,
        name: name.clone(),
        child: Some(*child),
        birth,
    });
    let xattrs = image.xattrs.iter().map(|(id, name, value)| Row::Xattr {
        id: *id,
        name: name.clone(),
        value: Some(value.clone()),
        birth,
    });
    let mut rows: Vec<Row> = Vec::with_capacity(ROWS);
    for row in nodes.chain(entries).chain(xattrs) {
        rows.push(row);
        if rows.len() == ROWS {
            builder.take(&Piece::Rows(std::mem::take(&mut rows)))?;
        }
    }
    Ok(builder.take(&Piece::Rows(rows))?)
}

/// Data and its chunks' births; holes stay holes, and have none.
fn give_content(
    id: FileId,
    size: u64,
    path: &Path,
    builder: &mut Builder,
) -> Result<(), ImportError> {
    let failed = |cause: io::Error| TreeError::on("read", path)(cause);
    let file = File::open(path).map_err(failed)?;
    let mut at = 0;
    while at < size {
        let from = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(from) => from,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(failed(errno.into()).into()),
        };
        let mut bytes = vec![0; (size.saturating_sub(from)).min(BYTES as u64) as usize];
        let read = file.read_at(&mut bytes, from).map_err(failed)?;
        if read == 0 {
            // It is shorter than it was, which the second look will find.
            break;
        }
        bytes.truncate(read);
        // A hole read as zeros within the piece is not kept as one; pieces are small.
        give_births(id, from, read as u64, builder)?;
        builder.take(&Piece::Data { id, offset: from, bytes: bytes.into() })?;
        at = from + read as u64;
    }
    Ok(())
}

fn give_births(
    id: FileId,
    from: u64,
    length: u64,
    builder: &mut Builder,
) -> Result<(), ImportError> {
    let birth = START.seq;
    let chunks = from / CHUNK_BYTES..(from + length).div_ceil(CHUNK_BYTES);
    let rows = chunks.map(|index| Row::Chunk { id, index, birth }).collect();
    Ok(builder.take(&Piece::Rows(rows))?)
}
