//! The mount against a plain directory: the same operations must have the same outcomes, and
//! leave the same tree; so must what a follower makes of the records.

mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{lgetxattr, llistxattr};

use ops::{Op, Side};
use rig::Rig;

#[path = "rig/ops.rs"]
mod ops;

const OPERATIONS: usize = 10_000;

/// Fixed, so that a failure can be run again; `SEED=…` runs another one.
const SEED: u64 = 20_141_124;

#[test]
fn ten_thousand_operations_come_out_as_on_a_plain_directory() {
    let Some(mut rig) = Rig::new("differential") else { return };
    // Operations take modes as they are; a umask would apply to both sides alike, but the
    // parent's is not ours to rely on.
    rustix::process::umask(rustix::fs::Mode::empty());
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let mut random = StdRng::seed_from_u64(seed);
    let plain_root = rig.beside("plain");
    fs::set_permissions(rig.place(), fs::metadata(&plain_root).unwrap().permissions()).unwrap();
    let mut mounted = Side::new(rig.place());
    let mut plain = Side::new(&plain_root);
    let mut succeeded = 0;
    for number in 0..OPERATIONS {
        let op = Op::random(&mut random);
        let (got, expected) = (mounted.run(&op), plain.run(&op));
        assert_eq!(got, expected, "operation {number} of SEED={seed}: {op:?}");
        succeeded += usize::from(expected.is_ok());
        // Times of the applier's lag: sometimes everything is still under way.
        if random.random_ratio(1, 500) {
            rig.journal.hold_applies(random.random());
        }
        if random.random_ratio(1, 1000) {
            assert_same(rig.place(), &plain_root, seed);
        }
    }
    // An operation list that mostly fails would compare little.
    assert!(succeeded > OPERATIONS / 3, "only {succeeded} of {OPERATIONS} did anything");
    assert_same(rig.place(), &plain_root, seed);
    drop((mounted, plain));
    rig.journal.hold_applies(false);
    rig.remount();
    assert_same(rig.place(), &plain_root, seed);
    assert_eq!(rig.journal.orphans(), 0, "what was unlinked and is closed is gone");
}

/// Everything of one file that must be equal.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    nlink: u64,
    /// Of a directory it is the file system's business.
    size: Option<u64>,
    /// As it was set; those that the clock set differ.
    mtime: Option<(i64, i64)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Vec<u8>,
}

fn assert_same(mounted: &Path, plain: &Path, seed: u64) {
    let (got, expected) = (tree(mounted), tree(plain));
    let names = |tree: &BTreeMap<String, Seen>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&got), names(&expected), "SEED={seed}");
    for (name, expected) in &expected {
        let got = &got[name];
        assert!(got == expected, "SEED={seed}: {name}\n{}\n{}", brief(got), brief(expected));
    }
}

fn brief(seen: &Seen) -> String {
    let text = format!("{:?}", Seen { content: Vec::new(), ..clone(seen) });
    format!("{text} {} bytes, {}", seen.content.len(), blake3::hash(&seen.content))
}

fn clone(seen: &Seen) -> Seen {
    Seen { xattrs: seen.xattrs.clone(), content: seen.content.clone(), ..*seen }
}

fn tree(root: &Path) -> BTreeMap<String, Seen> {
    let mut seen = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let at = fs::symlink_metadata(&path).unwrap();
        if at.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        seen.insert(name, look(&path, &at));
    }
    seen
}

fn look(path: &Path, at: &fs::Metadata) -> Seen {
    let kind = at.file_type();
    let (kind, content) = match () {
        () if kind.is_dir() => ("directory", Vec::new()),
        () if kind.is_file() => ("file", uncached(path)),
        () if kind.is_symlink() => {
            let target = fs::read_link(path).unwrap();
            ("symlink", target.into_os_string().into_encoded_bytes())
        }
        () if kind.is_fifo() => ("fifo", Vec::new()),
        () if kind.is_socket() => ("socket", Vec::new()),
        () => ("other", Vec::new()),
    };
    let set = at.mtime() < ops::TIMES_END;
    Seen {
        kind,
        mode: at.mode(),
        owner: (at.uid(), at.gid()),
        nlink: at.nlink(),
        size: (!at.is_dir()).then_some(at.len()),
        mtime: set.then(|| (at.mtime(), at.mtime_nsec())),
        xattrs: xattrs(path),
        content,
    }
}

/// Reads what the mount says, not what the kernel remembers.
fn uncached(path: &Path) -> Vec<u8> {
    let file = fs::File::open(path).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let length = llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 1 << 12];
        let length = lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}
