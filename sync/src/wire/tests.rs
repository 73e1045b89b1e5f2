//! Golden bytes, hostile bytes.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::op::{Attributes, Change, Kind, Time};
use crate::position::{Epoch, FileId, Position, Seq, VolumeId};

const GOLDEN: &str = "tests/golden/wire.txt";

fn attributes(kind: Kind) -> Attributes {
    Attributes {
        kind,
        mode: 0o640,
        uid: 26,
        gid: 70_000,
        nlink: 1,
        size: 300,
        atime: Time { seconds: -1, nanos: 999_999_999 },
        mtime: Time { seconds: 1_700_000_000, nanos: 0 },
        ctime: Time { seconds: 1_700_000_001, nanos: 5 },
    }
}

fn record(changes: Vec<Change>, payload: &'static [u8]) -> Record {
    let at = Time { seconds: 1_700_000_002, nanos: 7 };
    Record {
        head: Head { epoch: Epoch(3), seq: Seq(1 << 33), at, changes },
        payload: Bytes::from_static(payload),
    }
}

fn node(kind: Kind) -> Change {
    Change::Node { id: FileId::new(Epoch(3), 9), attributes: attributes(kind) }
}

fn records() -> Vec<(&'static str, Record)> {
    let id = FileId::new(Epoch(3), 9);
    let name = b"base".to_vec();
    let one = |change| record(vec![change], b"");
    vec![
        ("file", one(node(Kind::File))),
        ("directory", one(node(Kind::Directory))),
        ("symlink", one(node(Kind::Symlink(b"../to".to_vec())))),
        ("fifo", one(node(Kind::Fifo))),
        ("socket", one(node(Kind::Socket))),
        ("gone", one(Change::Gone { id })),
        (
            "entry-set",
            one(Change::Entry { parent: FileId::ROOT, name: name.clone(), child: Some(id) }),
        ),
        ("entry-removed", one(Change::Entry { parent: FileId::ROOT, name, child: None })),
        (
            "write",
            record(
                vec![node(Kind::File), Change::Write { id, offset: 65_536, length: 5 }],
                b"hello",
            ),
        ),
        ("zero", one(Change::Zero { id, offset: 8192, length: u64::MAX })),
        ("reserve", one(Change::Reserve { id, offset: 0, length: 1 << 20 })),
        ("xattr-set", one(Change::Xattr { id, name: b"user.x".to_vec(), value: Some(vec![0]) })),
        ("xattr-removed", one(Change::Xattr { id, name: b"user.x".to_vec(), value: None })),
        ("epoch-start", one(Change::EpochStart { node: "east-1".into() })),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn records_have_their_golden_bytes_and_read_back() {
    let position = Position { epoch: Epoch(3), seq: Seq(300) };
    let mut lines: Vec<String> = Vec::new();
    for (name, record) in records() {
        let bytes = encode_record(&record);
        lines.push(format!("record {name}: {}\n", hex(&bytes)));
        assert_eq!(decode_record(bytes).unwrap(), record, "{name}");
    }
    lines.push(format!("message position: {}\n", hex(&encode_message(&position))));
    lines.push(format!("message volume: {}\n", hex(&encode_message(&VolumeId([0xab; 16])))));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    if std::env::var_os("MAINSTAY_REWRITE_GOLDEN").is_some() {
        std::fs::write(&path, lines.concat()).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        lines.concat(),
        golden,
        "the wire changed: it needs a new version, then MAINSTAY_REWRITE_GOLDEN=1"
    );
}

#[test]
fn the_payload_is_not_copied() {
    let (_, record) = records().swap_remove(8);
    let bytes = encode_record(&record);
    let decoded = decode_record(bytes.clone()).unwrap();
    assert_eq!(decoded.payload.as_ptr(), bytes[bytes.len() - 5..].as_ptr());
}

#[test]
fn every_cut_and_every_surplus_is_refused() {
    for (name, record) in records() {
        let bytes = encode_record(&record);
        for length in 0..bytes.len() {
            assert!(decode_record(bytes.slice(..length)).is_err(), "{name} cut to {length}");
        }
        let surplus = [&bytes[..], &[0]].concat();
        assert!(decode_record(Bytes::from(surplus)).is_err(), "{name} with a byte more");
    }
    assert_eq!(decode_message::<u64>(&[1, 0]), Err(WireError::LeftOver(1)));
}

#[test]
fn lengths_above_the_limits_are_refused_before_anything_is_allocated() {
    let mut bytes = vec![0; 100];
    bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = decode_record(Bytes::from(bytes));
    assert!(matches!(refused, Err(WireError::TooLarge { limit: HEAD_BYTES_MAX, .. })));
    // epoch 1, seq 1, second 0, nano 0, and 2^63 changes in ten bytes.
    let mut bytes = vec![0; 4];
    bytes.extend([1, 1, 0, 0, 253, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    bytes[0] = (bytes.len() - 4) as u8;
    assert!(matches!(decode_record(Bytes::from(bytes)), Err(WireError::Malformed(_))));
    let large = Bytes::from(vec![0; RECORD_BYTES_MAX + 1]);
    assert!(matches!(decode_record(large), Err(WireError::TooLarge { .. })));
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = StdRng::seed_from_u64(7);
    let valid: Vec<Bytes> = records().iter().map(|(_, record)| encode_record(record)).collect();
    for _ in 0..20_000 {
        let mut bytes = if rng.random_bool(0.5) {
            let mut bytes = valid[rng.random_range(0..valid.len())].to_vec();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            bytes
        } else {
            let mut bytes = vec![0; rng.random_range(0..80)];
            rng.fill(&mut bytes[..]);
            bytes
        };
        if bytes.len() >= 4 && rng.random_bool(0.5) {
            let head_length = rng.random_range(0..=bytes.len() as u32);
            bytes[..4].copy_from_slice(&head_length.to_le_bytes());
        }
        if let Ok(record) = decode_record(Bytes::from(bytes)) {
            assert_eq!(record.head.payload_length(), record.payload.len() as u64);
        }
    }
}
