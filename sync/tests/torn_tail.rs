//! A volume whose log's tail was torn: cut at any of its last bytes, or with a bit of one flipped, it is
//! found at a prefix of its ops, or refused; never with another tree.
//!
//! The tail was written and is in no object yet, as log comes before data: so it may be torn.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mainstay_sync::log::{LogError, LogOptions, Stop, UpTo};
use mainstay_sync::op::Kind;
use mainstay_sync::position::{ClusterId, Epoch, Seq};
use mainstay_sync::volume::{Volume, VolumeError, VolumeOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::{Contents, Writer, contents, copy_tree, object_path, options};

const CLUSTER: ClusterId = ClusterId([5; 16]);
/// More than the ops after the checkpoint take in the log.
const TAIL_BYTES: u64 = 900;
/// Where a segment's frames begin.
const HEADER_BYTES: u64 = 4096;

fn small() -> VolumeOptions {
    let log = LogOptions { segment_bytes: 64 << 10, spare_segments: 0, ..options().log };
    VolumeOptions { log, committed_only: true, ..options() }
}

/// A state directory with a log that nothing was applied of since its checkpoint.
struct Torn {
    dir: tempfile::TempDir,
    /// Where each case is made, out of what is in `dir`.
    work: tempfile::TempDir,
    objects: Vec<PathBuf>,
    segment: PathBuf,
    /// What the volume holds after each op from the checkpoint's on.
    expected: BTreeMap<Seq, Contents>,
    /// The end of the last frame in the segment.
    end: u64,
}

impl Torn {
    fn new() -> Torn {
        let (made, dir) = (fast(), fast());
        let leader = Volume::open(made.path(), options()).unwrap();
        leader.found(CLUSTER).unwrap();
        let leading = leader.lead(Epoch(1), "a").unwrap();
        let mut writer = Writer::new(&leading, Epoch(1), 6);
        let volume = Volume::open(dir.path(), small()).unwrap();
        volume.found(CLUSTER).unwrap();

        let files = [(); 3].map(|()| writer.create(Kind::File));
        files.iter().for_each(|id| writer.write(*id, 0, &[7; 3000]));
        take(&leader, &volume);
        volume.committed_by_leader(volume.head().seq);
        volume.wait_applied(volume.head().seq).unwrap();
        volume.checkpoint().unwrap();
        let mut expected = BTreeMap::from([(volume.head().seq, writer.model.now.clone())]);
        for turn in 0..2_u8 {
            writer.write(files[0], 2990, &[turn + 1; 20]);
            expected.insert(writer.last, writer.model.now.clone());
            writer.truncate(files[1], 100 * u64::from(turn));
            expected.insert(writer.last, writer.model.now.clone());
            writer.create(Kind::Directory);
            expected.insert(writer.last, writer.model.now.clone());
            // A sync in between: what comes after says that this is durable.
            take(&leader, &volume);
        }
        drop(volume);
        let (segment, end) = last_segment(&dir.path().join("log"));
        let work = fast();
        copy_tree(dir.path(), work.path());
        let object = |id| object_path(Path::new(""), id);
        let objects = files.iter().map(|id| object(*id)).collect();
        Torn { dir, work, objects, segment, expected, end }
    }

    /// Everything as it was, but for the many directories that objects lie in.
    fn restore(&self) {
        let (from, to) = (self.dir.path(), self.work.path());
        std::fs::remove_dir_all(to.join("log")).unwrap();
        copy_tree(&from.join("log"), &to.join("log"));
        for entry in std::fs::read_dir(to).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        for object in &self.objects {
            std::fs::copy(from.join(object), to.join(object)).unwrap();
        }
    }

    /// The volume with `change` made to its last segment: at a prefix of the ops, or refused.
    fn check(&self, what: &str, change: impl FnOnce(&File)) -> Option<Seq> {
        let work = &self.work;
        self.restore();
        let segment = work.path().join("log").join(&self.segment);
        let file = File::options().read(true).write(true).open(segment).unwrap();
        change(&file);
        drop(file);
        let volume = match Volume::open(work.path(), small()) {
            Ok(volume) => volume,
            Err(VolumeError::Log(LogError::Damaged { .. } | LogError::Format { .. })) => {
                return None;
            }
            Err(other) => panic!("{what}: neither a prefix nor a clear refusal: {other}"),
        };
        let head = volume.head().seq;
        volume.committed_by_leader(head);
        let Some(expected) = self.expected.get(&head) else {
            panic!("{what}: it is at op {head}, where it never was");
        };
        assert!(contents(&volume) == *expected, "{what}: op {head} has another tree");
        Some(head)
    }
}

/// In memory if there is such a place: thousands of volumes are opened, each with its syncs.
fn fast() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// What the leader has, into the other's log, durably.
fn take(leader: &Volume, volume: &Volume) {
    let log = leader.log();
    let mut reader = log.reader(volume.head().seq).unwrap();
    let stop = Stop::new(&log);
    log.wait_durable(leader.head().seq).unwrap();
    while reader.next_seq() <= leader.head().seq {
        for frame in reader.next_blocking(UpTo::Durable, 1 << 20, &stop).unwrap() {
            volume.receive(Epoch(1), &frame.record()).unwrap();
        }
    }
    volume.log().wait_durable(volume.head().seq).unwrap();
}

/// The begun segment with the highest name, and where its frames end.
fn last_segment(log: &Path) -> (PathBuf, u64) {
    let mut begun: Vec<PathBuf> = std::fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| std::fs::read(path).unwrap().starts_with(b"MAINLOG"))
        .collect();
    begun.sort();
    let path = begun.pop().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    assert!(end > HEADER_BYTES + TAIL_BYTES, "the tail is in one segment");
    (path.file_name().unwrap().into(), end)
}

/// Every place in the tail, and some before it, where everything is in the checkpoint.
fn places(end: u64) -> impl Iterator<Item = u64> + Clone {
    let tail = end - TAIL_BYTES;
    (HEADER_BYTES..tail).step_by(1501).chain(tail..end)
}

/// Whether what was done to the tail at each place was found to be so: refused where the checkpoint
/// has the record, and past that a longer prefix the later it was.
fn is_in_order(found: &[Option<Seq>], torn: &Torn) {
    let refused = found.iter().take_while(|seq| seq.is_none()).count();
    assert!(refused > 0, "what the checkpoint has cannot be missing");
    let heads: Vec<Seq> = found[refused..].iter().map(|seq| seq.expect("a torn tail")).collect();
    assert!(heads.is_sorted(), "{heads:?}");
    let different: BTreeSet<_> = heads.into_iter().collect();
    assert_eq!(different.len(), torn.expected.len(), "each prefix was found: {different:?}");
}

#[test]
fn a_log_cut_at_any_byte_is_a_prefix_or_refused() {
    let torn = Torn::new();
    let shorter = |at| torn.check(&format!("cut at {at}"), |file| file.set_len(at).unwrap());
    let ends = |step| places(torn.end).step_by(step).chain([torn.end]);
    is_in_order(&ends(1).map(shorter).collect::<Vec<_>>(), &torn);
    // The same where zeros are what was never written.
    let zeroed = |at| {
        torn.check(&format!("zeros from {at}"), |file| {
            file.write_all_at(&vec![0; (torn.end - at) as usize], at).unwrap();
        })
    };
    is_in_order(&ends(3).map(zeroed).collect::<Vec<_>>(), &torn);
}

#[test]
fn a_log_with_any_bit_flipped_is_a_prefix_or_refused() {
    let torn = Torn::new();
    let mut random = SmallRng::seed_from_u64(8);
    let header = (0..56).chain([100, 4000]);
    let flipped = header.chain(places(torn.end)).map(|at| {
        let bit = random.random_range(0..8);
        torn.check(&format!("bit {bit} of byte {at}"), |file| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
        })
    });
    let found: Vec<_> = flipped.collect();
    // What a later frame calls durable cannot be missing; what none does may be.
    let refused = found.iter().filter(|seq| seq.is_none()).count();
    let heads: BTreeSet<_> = found.iter().flatten().collect();
    assert!(refused > 100, "{refused} refused, {heads:?}");
    assert!(heads.len() >= 2, "{heads:?}");
}
