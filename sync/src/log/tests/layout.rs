//! Golden bytes of what stands around records on the disk.

use super::at;
use crate::log::format::{FrameHeader, SegmentHeader, SegmentId};
use crate::position::Seq;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_segments_header_has_its_golden_bytes() {
    let id = SegmentId(0x1122);
    let header = SegmentHeader { id, base: at(3, 500), replaces: Seq(499), durable: Seq(700) };
    let bytes = header.encode();
    assert_eq!(
        hex(&bytes),
        concat!(
            "4d41494e4c4f4731010000007cdc0ad822110000000000000300000000000000",
            "f401000000000000f301000000000000bc02000000000000"
        )
    );
    assert_eq!(SegmentHeader::decode(&bytes, id), Ok(Some(header)));
    assert_eq!(SegmentHeader::decode(&bytes, SegmentId(0x1123)), Ok(None));
}

#[test]
fn another_format_is_told_from_damage() {
    let id = SegmentId(1);
    let header = SegmentHeader { id, base: at(0, 0), replaces: Seq(0), durable: Seq(0) };
    let mut bytes = header.encode();
    bytes[8] = 2;
    assert_eq!(SegmentHeader::decode(&bytes, id), Ok(None), "its checksum is of format 1");
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&bytes, id), Err(2));
}

#[test]
fn a_frames_header_has_its_golden_bytes() {
    let id = SegmentId(0x1122);
    let header =
        FrameHeader { length: 300, body_crc: 0xdead_beef, position: at(3, 501), durable: Seq(490) };
    let bytes = header.encode(id);
    assert_eq!(
        hex(&bytes),
        "b406f6672c010000efbeaddef5010000000000000300000000000000ea01000000000000"
    );
    assert_eq!(FrameHeader::decode(&bytes, id), Some(header));
    assert_eq!(FrameHeader::decode(&bytes, SegmentId(0x1121)), None, "a stale one");
}
