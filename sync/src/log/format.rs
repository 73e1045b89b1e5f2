//! What a segment's bytes mean. Pure.
//!
//! ```text
//! segment = header (4096 bytes) | frame | frame | ... | anything
//! header  = magic [8] | format u32 | crc u32 | segment id u64 | base epoch u64 | base seq u64
//!           | replaces u64 | durable u64
//! frame   = crc u32 | length u32 | body crc u32 | seq u64 | epoch u64 | durable u64 | body
//! ```
//!
//! Integers are little endian; frames begin at multiples of 8. Every crc is a CRC-32C and begins
//! with the segment's id, so that the bytes which a recycled file still holds of an earlier life
//! are never taken for its own. The frame's crc covers its header, the body crc the body: where
//! a body is broken its length is still known.
//!
//! `durable` is the last seq known to be durable when the frame was written. It is what tells
//! a torn tail from damage: a batch may lose any of its pages in a power loss, but nothing at or
//! below a seq that a later frame, or a later segment's header, calls durable.

use crate::position::{Epoch, Position, Seq};
use crate::wire::RECORD_BYTES_MAX;

/// A segment's first frame begins here.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 4096;
/// Before each body.
pub(super) const FRAME_HEADER_BYTES: usize = 36;
/// Frames begin at multiples of this.
pub(super) const FRAME_ALIGNMENT: u64 = 8;
/// The version that this code writes.
pub(super) const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"MAINLOG1";
const HEADER_FIELDS_BYTES: usize = 56;

/// A segment's name for its whole life; never used twice in one log directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentId(pub u64);

impl SegmentId {
    pub fn file_name(self) -> String {
        format!("{:016x}.log", self.0)
    }

    pub fn of_file_name(name: &str) -> Option<SegmentId> {
        let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok().map(SegmentId)
    }

    fn crc(self) -> u32 {
        crc32c::crc32c(&self.0.to_le_bytes())
    }
}

/// The first thing in a segment that has been begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub id: SegmentId,
    /// Where the log stood when the segment was begun: all of that was durable.
    pub base: Position,
    /// Segments with a lower id whose base is at or past this one are gone. This is how a log is
    /// cut: the moment that such a header is durable, and no other, takes the tail away.
    pub replaces: Seq,
    /// Known durable when this was written: the base, or all of a segment that was written first
    /// and begun after.
    pub durable: Seq,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; HEADER_FIELDS_BYTES] {
        let mut bytes = [0; HEADER_FIELDS_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.base.epoch.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.base.seq.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.replaces.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.durable.0.to_le_bytes());
        let crc = header_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header of segment `id`, or `None` if these bytes are anything else: zeros, an earlier
    /// life's header, damage. `Err` is the format of another version.
    pub fn decode(bytes: &[u8], id: SegmentId) -> Result<Option<SegmentHeader>, u32> {
        let Some(bytes) = bytes.first_chunk::<HEADER_FIELDS_BYTES>() else { return Ok(None) };
        if bytes[..8] != MAGIC || u32_at(bytes, 12) != header_crc(bytes) {
            return Ok(None);
        }
        let found = u32_at(bytes, 8);
        if found != FORMAT {
            return Err(found);
        }
        if u64_at(bytes, 16) != id.0 {
            return Ok(None);
        }
        let base = Position { epoch: Epoch(u64_at(bytes, 24)), seq: Seq(u64_at(bytes, 32)) };
        let (replaces, durable) = (Seq(u64_at(bytes, 40)), Seq(u64_at(bytes, 48)));
        Ok(Some(SegmentHeader { id, base, replaces, durable }))
    }
}

fn header_crc(bytes: &[u8; HEADER_FIELDS_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// What stands before a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// The body's bytes.
    pub length: u32,
    /// See [`body_crc`].
    pub body_crc: u32,
    pub position: Position,
    /// Known durable when this was written; always below `position.seq`.
    pub durable: Seq,
}

impl FrameHeader {
    pub fn encode(&self, id: SegmentId) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.position.seq.0.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.position.epoch.0.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.durable.0.to_le_bytes());
        let crc = crc32c::crc32c_append(id.crc(), &bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if segment `id` has one there.
    pub fn decode(bytes: &[u8], id: SegmentId) -> Option<FrameHeader> {
        let bytes = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let header = FrameHeader {
            length: u32_at(bytes, 4),
            body_crc: u32_at(bytes, 8),
            position: Position { epoch: Epoch(u64_at(bytes, 20)), seq: Seq(u64_at(bytes, 12)) },
            durable: Seq(u64_at(bytes, 28)),
        };
        // The cheap questions first: a search asks them at every eighth byte.
        let plausible = header.length != 0
            && header.length as usize <= RECORD_BYTES_MAX
            && header.durable < header.position.seq;
        let whole = plausible && u32_at(bytes, 0) == crc32c::crc32c_append(id.crc(), &bytes[4..]);
        whole.then_some(header)
    }

    /// Whether this frame may come after a log that stands at `last`.
    pub fn follows(&self, last: Position) -> bool {
        self.position.seq == last.seq.next() && self.position.epoch >= last.epoch
    }

    /// How far the next frame is from this one.
    pub fn stride(&self) -> u64 {
        frame_stride(self.length as usize)
    }
}

/// The body's checksum. It does not depend on the segment, which the frame header's does; so it
/// can be computed before the record has a place.
pub(super) fn body_crc(body: &[u8]) -> u32 {
    crc32c::crc32c(body)
}

/// Bytes that a record of `length` encoded bytes takes in a segment.
pub(super) fn frame_stride(length: usize) -> u64 {
    ((FRAME_HEADER_BYTES + length) as u64).next_multiple_of(FRAME_ALIGNMENT)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
