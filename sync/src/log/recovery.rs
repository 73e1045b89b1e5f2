//! From the files of a log directory to the log that was there.
//!
//! Hazard: the difference between a torn tail and damage. After a power loss any page of the last
//! batch may be missing, so a bad frame with good ones behind it is ordinary there and is cut
//! off. But a bad frame at or below a seq that something later calls durable was acknowledged
//! once: cutting it off would take back a promise, so it is [`LogError::Damaged`].

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::LogOptions;
use super::disk::{self, Disk};
use super::error::LogError;
use super::format::{FORMAT, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentId};
use super::prepare;
use super::segment::{self, Blank, Place, Segment, Walk};
use crate::position::{Position, Seq};

/// The files of a log directory, sorted out.
pub(super) struct Listing {
    /// By id. None replaced by a later one.
    pub segments: Vec<Segment>,
    /// Those that a later one replaced and a kill left behind.
    pub replaced: Vec<SegmentId>,
    /// By id.
    pub blanks: Vec<Blank>,
    /// Half-prepared files.
    pub strays: Vec<String>,
}

/// A log ready to go on.
pub(super) struct Recovered {
    pub segments: VecDeque<Arc<Segment>>,
    /// Where the next frame goes in the last segment.
    pub end: u64,
    pub head: Position,
    pub ready: VecDeque<Blank>,
    pub next_id: u64,
}

/// Sorts out the files of `disk` without changing any.
pub(super) fn list(disk: &dyn Disk) -> Result<Listing, LogError> {
    let here = |source| LogError::io("list", disk.path(""), source);
    let mut files: Vec<(SegmentId, u64)> = Vec::new();
    let mut listing =
        Listing { segments: Vec::new(), replaced: Vec::new(), blanks: Vec::new(), strays: vec![] };
    for (name, bytes) in disk.list().map_err(here)? {
        match SegmentId::of_file_name(&name) {
            Some(id) => files.push((id, bytes)),
            None if name == prepare::UNFINISHED => listing.strays.push(name),
            None => {}
        }
    }
    files.sort_unstable();
    for (id, bytes) in files {
        let path = || disk.path(&id.file_name());
        let read = |source: io::Error| LogError::io("read", path(), source);
        let file = disk.open(&id.file_name()).map_err(read)?;
        let mut start = vec![0; SEGMENT_HEADER_BYTES as usize];
        let filled = disk::read_full_at(&*file, &mut start, 0).map_err(read)?;
        let header = SegmentHeader::decode(&start[..filled], id)
            .map_err(|found| LogError::Format { file: path(), found, known: FORMAT })?;
        match header {
            None => listing.blanks.push(Blank { id, file, bytes }),
            Some(header) => {
                let segments = &mut listing.segments;
                let replaced = |older: &Segment| older.base().seq >= header.replaces;
                while segments.last().is_some_and(replaced) {
                    listing.replaced.extend(segments.pop().map(|older| older.id()));
                }
                segments.push(Segment { header, file, bytes });
            }
        }
    }
    Ok(listing)
}

/// Where the chain of good frames ends.
pub(super) struct Ends {
    pub head: Position,
    /// Where that is in the last segment.
    pub offset: u64,
}

/// Follows the chain of frames from the segment that holds the record after `floor`.
///
/// # Errors
/// [`LogError::Damaged`] if the chain stops at or below a seq known to have been durable.
pub(super) fn follow(
    disk: &dyn Disk,
    listing: &Listing,
    floor: Position,
) -> Result<Ends, LogError> {
    let segments = &listing.segments;
    let from = segments.partition_point(|segment| segment.base().seq <= floor.seq).max(1) - 1;
    let mut ends = Ends { head: floor, offset: SEGMENT_HEADER_BYTES };
    let mut durable = floor.seq;
    if let Some(oldest) = segments.get(from) {
        if oldest.base().seq > floor.seq {
            let what = "the records between the checkpoint and this segment are missing";
            return Err(damaged(
                disk,
                oldest,
                SEGMENT_HEADER_BYTES,
                floor,
                oldest.base().seq,
                what,
            ));
        }
        ends.head = oldest.base();
    }
    for (index, segment) in segments.iter().enumerate().skip(from) {
        let next = segments.get(index + 1).map(|next| next.base());
        let mut walk = Walk::new(segment.id(), segment.file.clone());
        ends.head = follow_one(disk, segment, &mut walk, next, floor)?;
        ends.offset = walk.offset;
        let known = match next {
            Some(next) => Some(next.seq),
            None => {
                let read = |source| LogError::io("read", segment.path(disk), source);
                walk.durable_claimed(segment.bytes).map_err(read)?
            }
        };
        durable = durable.max(segment.header.durable).max(known.unwrap_or_default());
        if ends.head.seq < durable || next.is_some_and(|next| next != ends.head) {
            let what = "a record is unreadable before the log's tail";
            return Err(damaged(disk, segment, ends.offset, ends.head, durable, what));
        }
    }
    check_unbegun(disk, listing, &ends)?;
    Ok(ends)
}

/// Follows one segment to the base of the next one, or as far as it goes.
fn follow_one(
    disk: &dyn Disk,
    segment: &Segment,
    walk: &mut Walk,
    next: Option<Position>,
    floor: Position,
) -> Result<Position, LogError> {
    let mut head = segment.base();
    loop {
        if head.seq == floor.seq && head.epoch != floor.epoch {
            let what = "the checkpoint's last record is of another epoch here";
            return Err(damaged(disk, segment, walk.offset, head, floor.seq, what));
        }
        if next.is_some_and(|next| head.seq >= next.seq) {
            return Ok(head);
        }
        let read = |source| LogError::io("read", segment.path(disk), source);
        match walk.place().map_err(read)? {
            Place::Frame(header, _) if header.follows(head) => {
                head = header.position;
                walk.step_over(&header);
            }
            _ => return Ok(head),
        }
    }
}

/// A file whose header is no header has not been begun, or it has and its first page is lost:
/// then its frames tell. Blanks are begun in the order of their ids, so one look is enough.
fn check_unbegun(disk: &dyn Disk, listing: &Listing, ends: &Ends) -> Result<(), LogError> {
    let last = listing.segments.last().map(|segment| segment.id());
    let Some(blank) = listing.blanks.iter().find(|blank| Some(blank.id) > last) else {
        return Ok(());
    };
    let path = disk.path(&blank.id.file_name());
    let claimed = Walk::new(blank.id, blank.file.clone())
        .durable_claimed(blank.bytes)
        .map_err(|source| LogError::io("read", path.clone(), source))?;
    match claimed {
        Some(durable) if durable > ends.head.seq => Err(LogError::Damaged {
            file: path,
            offset: 0,
            seq: ends.head.seq.next(),
            durable,
            what: "the segment's header is unreadable",
        }),
        _ => Ok(()),
    }
}

fn damaged(
    disk: &dyn Disk,
    segment: &Segment,
    offset: u64,
    head: Position,
    durable: Seq,
    what: &'static str,
) -> LogError {
    LogError::Damaged { file: segment.path(disk), offset, seq: head.seq.next(), durable, what }
}

/// Finds the log in `disk` and makes it one that can be appended to.
///
/// # Errors
/// As [`follow`]; nothing was changed then. Else the disk refused something.
pub(super) fn recover(
    disk: &dyn Disk,
    options: &LogOptions,
    floor: Position,
) -> Result<Recovered, LogError> {
    let listing = list(disk)?;
    let ends = follow(disk, &listing, floor)?;
    let Listing { mut segments, replaced, blanks, strays } = listing;
    let ids = segments.iter().map(|segment| segment.id()).chain(replaced.iter().copied());
    let highest = ids.chain(blanks.iter().map(|blank| blank.id)).max();
    let mut next_id = highest.map_or(1, |id| id.0 + 1);
    let io = |action, name: &str| {
        let path = disk.path(name);
        move |source| LogError::io(action, path, source)
    };
    for name in strays {
        disk.remove(&name).map_err(io("remove", &name))?;
    }
    let mut ready = VecDeque::new();
    for blank in blanks {
        let name = blank.id.file_name();
        if blank.bytes != options.segment_bytes {
            disk.remove(&name).map_err(io("remove", &name))?;
            continue;
        }
        // Frames of a batch that was lost may be in it, under its own id.
        let id = SegmentId(next_id);
        next_id += 1;
        disk.rename(&name, &id.file_name()).map_err(io("rename", &name))?;
        ready.push_back(Blank { id, ..blank });
    }
    disk.sync().map_err(io("sync directory", ""))?;
    let mut end = SEGMENT_HEADER_BYTES;
    let mut obsolete = replaced;
    if let Some(last) = segments.pop() {
        match renew(disk, options, &last, &ends, &mut ready, &mut next_id) {
            Ok((segment, written_to)) => {
                segments.push(segment);
                end = written_to;
                obsolete.push(last.id());
            }
            Err(LogError::NoSpace) => {
                // Go on without: what is there can be read and applied, and to append needs a
                // further segment anyway, so that whatever lies past the end is never joined.
                tracing::warn!("no space to renew the log's last segment");
                last.sync().map_err(io("sync", &last.id().file_name()))?;
                end = last.bytes;
                segments.push(last);
            }
            Err(error) => return Err(error),
        }
    }
    // Only now: the header that replaces them may have been in the cache alone until `renew`.
    for name in obsolete.into_iter().map(SegmentId::file_name) {
        disk.remove(&name).map_err(io("remove", &name))?;
    }
    disk.sync().map_err(io("sync directory", ""))?;
    let segments = segments.into_iter().map(Arc::new).collect();
    Ok(Recovered { segments, end, head: ends.head, ready, next_id })
}

/// Brings what was read from the last segment into a new one, durably. See
/// [`segment::rewrite`].
fn renew(
    disk: &dyn Disk,
    options: &LogOptions,
    last: &Segment,
    ends: &Ends,
    ready: &mut VecDeque<Blank>,
    next_id: &mut u64,
) -> Result<(Segment, u64), LogError> {
    let blank = if options.segment_bytes >= ends.offset { ready.pop_front() } else { None };
    let blank = match blank {
        Some(blank) => blank,
        None => {
            // Blanks are begun in the order of their ids: none may stay below the new one's.
            for blank in ready.drain(..) {
                let name = blank.id.file_name();
                disk.remove(&name)
                    .map_err(|source| LogError::io("remove", disk.path(&name), source))?;
            }
            let id = SegmentId(*next_id);
            *next_id += 1;
            prepare::create(disk, id, options.segment_bytes.max(ends.offset))?
        }
    };
    let (segment, written_to, _) = segment::rewrite(disk, last, ends.head.seq, &blank)?;
    Ok((segment, written_to))
}
