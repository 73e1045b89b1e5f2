//! One segment file: its frames, one after the other, and writing them.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{self, Disk, DiskFile};
use super::error::LogError;
use super::format::{
    FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader,
    SegmentId, body_crc,
};
use crate::position::{Position, Seq};

const WINDOW_BYTES: usize = 1 << 20;

/// A prepared file that waits to be begun.
pub(super) struct Blank {
    pub id: SegmentId,
    pub file: Arc<dyn DiskFile>,
    /// The file's size.
    pub bytes: u64,
}

/// A segment that has been begun.
pub(super) struct Segment {
    pub header: SegmentHeader,
    pub file: Arc<dyn DiskFile>,
    /// The file's size.
    pub bytes: u64,
}

impl Segment {
    /// The segment that `blank` becomes after a log that stands at `base`. Nothing is written yet.
    pub fn begun(blank: &Blank, base: Position) -> Segment {
        let header = SegmentHeader { id: blank.id, base, replaces: base.seq, durable: base.seq };
        Segment { header, file: blank.file.clone(), bytes: blank.bytes }
    }

    pub fn id(&self) -> SegmentId {
        self.header.id
    }

    /// Where the log stood before the first frame.
    pub fn base(&self) -> Position {
        self.header.base
    }

    pub fn path(&self, disk: &dyn Disk) -> PathBuf {
        disk.path(&self.id().file_name())
    }

    pub fn write_header(&self) -> io::Result<()> {
        disk::write_all_at(&*self.file, &mut [IoSlice::new(&self.header.encode())], 0)
    }

    /// Writes `frames` end to end from `offset`.
    pub fn write_frames(&self, offset: u64, frames: &[(FrameHeader, Bytes)]) -> io::Result<()> {
        const PADDING: [u8; FRAME_ALIGNMENT as usize] = [0; FRAME_ALIGNMENT as usize];
        let headers: Vec<_> = frames.iter().map(|(header, _)| header.encode(self.id())).collect();
        let mut slices = Vec::with_capacity(frames.len() * 3);
        for ((header, body), encoded) in frames.iter().zip(&headers) {
            let padding = header.stride() as usize - FRAME_HEADER_BYTES - body.len();
            slices.push(IoSlice::new(encoded));
            slices.push(IoSlice::new(body));
            slices.push(IoSlice::new(&PADDING[..padding]));
        }
        disk::write_all_at(&*self.file, &mut slices, offset)
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What is at a place in a segment.
pub(super) enum Place {
    /// A whole frame.
    Frame(FrameHeader, Bytes),
    /// A frame's header, and a body that is not the one that was written.
    Broken(FrameHeader),
    /// No frame of this segment.
    Nothing,
}

/// Reads frames from one segment, through a window so that small frames cost no call each.
pub(super) struct Walk {
    id: SegmentId,
    file: Arc<dyn DiskFile>,
    /// Where the next frame would begin.
    pub offset: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Walk {
    pub fn new(id: SegmentId, file: Arc<dyn DiskFile>) -> Walk {
        Walk { id, file, offset: SEGMENT_HEADER_BYTES, window: Vec::new(), window_at: 0 }
    }

    /// Forgets what was read ahead: the log's writer may have written there since.
    pub fn forget(&mut self) {
        self.window.clear();
    }

    /// The frame header here, if there is one. Does not move.
    pub fn header(&mut self) -> io::Result<Option<FrameHeader>> {
        let id = self.id;
        Ok(FrameHeader::decode(self.bytes(FRAME_HEADER_BYTES)?, id))
    }

    /// What is here. Does not move.
    pub fn place(&mut self) -> io::Result<Place> {
        let Some(header) = self.header()? else { return Ok(Place::Nothing) };
        let length = FRAME_HEADER_BYTES + header.length as usize;
        let bytes = self.bytes(length)?;
        if bytes.len() < length || body_crc(&bytes[FRAME_HEADER_BYTES..]) != header.body_crc {
            return Ok(Place::Broken(header));
        }
        Ok(Place::Frame(header, Bytes::copy_from_slice(&bytes[FRAME_HEADER_BYTES..])))
    }

    /// Steps over the frame whose header was found here.
    pub fn step_over(&mut self, header: &FrameHeader) {
        self.offset += header.stride();
    }

    /// The highest seq that any frame from here on calls durable. Looks at every place where a
    /// frame may begin, since what is between may be lost.
    pub fn durable_claimed(&mut self, file_bytes: u64) -> io::Result<Option<Seq>> {
        let mut claimed = None;
        while self.offset + FRAME_HEADER_BYTES as u64 <= file_bytes {
            let id = self.id;
            let window = self.bytes(WINDOW_BYTES)?;
            let mut at = 0;
            while at + FRAME_HEADER_BYTES <= window.len() {
                if let Some(header) = FrameHeader::decode(&window[at..], id) {
                    claimed = claimed.max(Some(header.durable));
                }
                at += FRAME_ALIGNMENT as usize;
            }
            if at == 0 {
                break;
            }
            self.offset += at as u64;
        }
        Ok(claimed)
    }

    /// Up to `length` bytes from here; fewer only where the file ends.
    fn bytes(&mut self, length: usize) -> io::Result<&[u8]> {
        let start = self.offset.checked_sub(self.window_at).map_or(usize::MAX, |at| at as usize);
        if start.saturating_add(length) > self.window.len() {
            self.window.resize(length.max(WINDOW_BYTES), 0);
            let filled = disk::read_full_at(&*self.file, &mut self.window, self.offset)?;
            self.window.truncate(filled);
            self.window_at = self.offset;
            return Ok(&self.window[..length.min(filled)]);
        }
        Ok(&self.window[start..start + length])
    }
}

/// Copies the frames of `from` up to the record `through` into `blank`, durably, and makes of it
/// a segment that replaces `from` and everything after: the one step that cuts a log.
///
/// Until the new segment's header is durable the old ones stand untouched; from then on they
/// count no more. Also brings what a recovery has read back to the disk for sure: pages that
/// failed to be written once may be clean in the cache and absent on the disk.
pub(super) fn rewrite(
    disk: &dyn Disk,
    from: &Segment,
    through: Seq,
    blank: &Blank,
) -> Result<(Segment, u64, Position), LogError> {
    let mut segment = Segment::begun(blank, from.base());
    segment.header.replaces = from.header.replaces;
    let mut walk = Walk::new(from.id(), from.file.clone());
    let mut last = from.base();
    let read = |source| LogError::io("read", from.path(disk), source);
    let path = segment.path(disk);
    let write = |source| LogError::io("write", path.clone(), source);
    let mut frames = Vec::new();
    let (mut gathered, mut written_to) = (0, SEGMENT_HEADER_BYTES);
    while last.seq < through {
        let Place::Frame(header, body) = walk.place().map_err(read)? else {
            return Err(LogError::Damaged {
                file: from.path(disk),
                offset: walk.offset,
                seq: last.seq.next(),
                durable: through,
                what: "a record that was there is gone",
            });
        };
        walk.step_over(&header);
        last = header.position;
        gathered += header.stride();
        frames.push((header, body));
        if gathered >= WINDOW_BYTES as u64 || last.seq == through {
            segment.write_frames(written_to, &frames).map_err(write)?;
            written_to += gathered;
            gathered = 0;
            frames.clear();
        }
    }
    segment.sync().map_err(write)?;
    segment.header.durable = last.seq;
    segment.write_header().and_then(|()| segment.sync()).map_err(write)?;
    Ok((segment, written_to, last))
}
