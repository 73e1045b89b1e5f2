use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::op::{Attributes, Kind, Time};

const FILE: FileId = FileId(7);

fn sized(size: u64) -> Change {
    let time = Time::default();
    let attributes = Attributes {
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        size,
        atime: time,
        mtime: time,
        ctime: time,
    };
    Change::Node { id: FILE, attributes }
}

/// A file as bytes, and an object as an applier brings it along.
#[derive(Default)]
struct Model {
    file: Vec<u8>,
    object: Vec<u8>,
    log: VecDeque<(Seq, Vec<Change>, Bytes)>,
}

fn run(bytes: &mut Vec<u8>, changes: &[Change], payload: &Bytes, grows: bool) {
    for change in changes {
        match change {
            Change::Write { offset, length, .. } => {
                let end = *offset as usize + *length as usize;
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset as usize..end].copy_from_slice(payload);
            }
            Change::Zero { offset, length, .. } => {
                let end = bytes.len().min((offset + length) as usize);
                let start = end.min(*offset as usize);
                bytes[start..end].fill(0);
            }
            Change::Node { attributes, .. } => {
                let size = attributes.size as usize;
                // An object ends where its last bytes are; what a file has beyond reads as zeros.
                bytes.resize(if grows { size } else { size.min(bytes.len()) }, 0);
            }
            _ => {}
        }
    }
}

impl Model {
    fn random_op(&self, random: &mut StdRng) -> (Vec<Change>, Bytes) {
        let offset = random.random_range(0..200);
        let length = random.random_range(1..60_u64);
        let size = self.file.len() as u64;
        match random.random_range(0..5) {
            0..3 => {
                let bytes: Vec<u8> = (0..length).map(|_| random.random_range(1..=255)).collect();
                let write = Change::Write { id: FILE, offset, length: length as u32 };
                (vec![write, sized(size.max(offset + length))], bytes.into())
            }
            3 => (vec![Change::Zero { id: FILE, offset, length }, sized(size)], Bytes::new()),
            _ => (vec![sized(random.random_range(0..260))], Bytes::new()),
        }
    }

    fn read(&self, overlay: &Overlay, object: &[u8], start: usize, end: usize) -> Vec<u8> {
        let end = end.min(self.file.len()).max(start);
        let view = overlay.view(FILE, start as u64, end as u64);
        let mut bytes = vec![0; end - start];
        if !view.covers(bytes.len()) {
            let there = end.min(object.len()).saturating_sub(start);
            let from = start.min(object.len());
            bytes[..there].copy_from_slice(&object[from..from + there]);
        }
        view.lay_over(&mut bytes);
        bytes
    }
}

#[test]
fn the_object_under_the_overlay_is_always_the_file() {
    let mut random = StdRng::seed_from_u64(1);
    let mut overlay = Overlay::default();
    let mut model = Model::default();
    for seq in (1..=4000).map(Seq) {
        let (changes, payload) = model.random_op(&mut random);
        let size = model.file.len() as u64;
        overlay.note(seq, &changes, &payload, |_| Some(size));
        run(&mut model.file, &changes, &payload, true);
        model.log.push_back((seq, changes, payload));
        if random.random() {
            for _ in 0..random.random_range(0..model.log.len() + 1) {
                let Some((seq, changes, payload)) = model.log.pop_front() else { break };
                run(&mut model.object, &changes, &payload, false);
                // The applier is ahead of what it told, sometimes by an op.
                if random.random() {
                    overlay.forget(seq);
                }
            }
        }
        let (start, length) = (random.random_range(0..260), random.random_range(0..200));
        let expected = {
            let end = model.file.len().min(start + length);
            model.file.get(start..end).unwrap_or_default().to_vec()
        };
        let got = model.read(&overlay, &model.object, start, start + length);
        assert_eq!(got, expected, "after {seq}, {start}+{length}");
        let waiting: u64 = model.log.iter().map(|(_, _, payload)| payload.len() as u64).sum();
        assert!(overlay.bytes() >= waiting, "{} under way, {waiting} in the log", overlay.bytes());
    }
    overlay.forget(Seq(4000));
    assert_eq!((overlay.bytes(), overlay.last(FILE)), (0, None));
    assert!(overlay.marks.is_empty() && overlay.files.is_empty(), "nothing is kept for ever");
}

#[test]
fn a_view_outlives_what_happens_to_the_overlay() {
    let mut overlay = Overlay::default();
    let write = |offset| vec![Change::Write { id: FILE, offset, length: 3 }, sized(10)];
    overlay.note(Seq(1), &write(0), &Bytes::from_static(b"abc"), |_| Some(10));
    let view = overlay.view(FILE, 0, 10);
    overlay.note(Seq(2), &write(1), &Bytes::from_static(b"xyz"), |_| Some(10));
    overlay.forget(Seq(2));
    let mut bytes = *b"0123456789";
    view.lay_over(&mut bytes);
    assert_eq!(&bytes, b"abc3456789");
}

#[test]
fn an_fsync_waits_for_every_file_that_an_op_concerned() {
    let mut overlay = Overlay::default();
    let (parent, child, other) = (FileId(1), FileId(2), FileId(3));
    let named = Change::Entry { parent, name: b"n".to_vec(), child: Some(child) };
    overlay.note(Seq(5), &[named], &Bytes::new(), |_| None);
    let touched = Change::Entry { parent, name: b"m".to_vec(), child: None };
    overlay.note(Seq(6), &[touched], &Bytes::new(), |_| None);
    let last = |overlay: &Overlay| [parent, child, other].map(|id| overlay.last(id));
    assert_eq!(last(&overlay), [Some(Seq(6)), Some(Seq(5)), None]);
    overlay.forget(Seq(5));
    assert_eq!(last(&overlay), [Some(Seq(6)), None, None]);
    overlay.forget(Seq(6));
    assert_eq!(last(&overlay), [None; 3]);
}
