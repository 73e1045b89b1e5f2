//! A look at a log's files without changing any: for fsck and for people.

use std::path::{Path, PathBuf};

use super::disk::{Disk, RealDisk};
use super::error::LogError;
use super::recovery;
use super::segment::{Place, Segment, Walk};
use crate::position::{Position, Seq};

/// What a log directory holds.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Where the log would stand if it were opened now; what would stop that.
    pub head: Result<Position, LogError>,
    /// The segments in use, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Files ready to become segments.
    pub blanks: usize,
    /// Segments that a later one replaced, to be removed at the next start.
    pub replaced: usize,
}

/// What one segment holds.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// Which file.
    pub file: PathBuf,
    /// Where the log stood before it.
    pub base: Position,
    /// Its last good record; `base` if it has none.
    pub last: Position,
    /// Good records, one after the other from the start.
    pub records: u64,
    /// Bytes that they take, with what stands around them.
    pub bytes: u64,
    /// A record after them whose header is good and whose bytes are not: a torn tail in the last
    /// segment, damage elsewhere.
    pub broken: Option<Seq>,
}

/// Walks the log in `dir`, which no process may be writing to. `floor` as for
/// [`Log::open`](super::Log::open).
///
/// # Errors
/// The directory or a file in it cannot be read at all, or is of another version.
pub fn inspect(dir: &Path, floor: Position) -> Result<Inspection, LogError> {
    let disk = RealDisk::read_only(dir);
    let listing = recovery::list(&disk)?;
    let segments = listing.segments.iter().map(|segment| report(&disk, segment));
    let segments = segments.collect::<Result<Vec<_>, _>>()?;
    Ok(Inspection {
        head: recovery::follow(&disk, &listing, floor).map(|ends| ends.head),
        segments,
        blanks: listing.blanks.len(),
        replaced: listing.replaced.len(),
    })
}

fn report(disk: &dyn Disk, segment: &Segment) -> Result<SegmentReport, LogError> {
    let file = segment.path(disk);
    let mut walk = Walk::new(segment.id(), segment.file.clone());
    let mut last = segment.base();
    let mut records = 0;
    let broken = loop {
        match walk.place().map_err(|source| LogError::io("read", file.clone(), source))? {
            Place::Frame(header, _) if header.follows(last) => {
                last = header.position;
                records += 1;
                walk.step_over(&header);
            }
            Place::Broken(header) => break Some(header.position.seq),
            _ => break None,
        }
    };
    Ok(SegmentReport { file, base: segment.base(), last, records, bytes: walk.offset, broken })
}
