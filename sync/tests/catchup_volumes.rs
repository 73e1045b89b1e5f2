//! Deltas between real volumes: forward and back, under writes, cut short, and killed at each step.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use mainstay_sync::commit::Rule;
use mainstay_sync::fsck::Finding;
use mainstay_sync::op::{Change, Kind};
use mainstay_sync::position::{ClusterId, Epoch, Position, Seq};
use mainstay_sync::volume::{Leading, Volume, VolumeError, VolumeOptions};
use support::{
    Contents, DELTA_STEPS, Writer, births, contents, copy_all, copy_tree, delta_all, delta_end,
    delta_up_to_end, options, record_of, stream,
};

const CLUSTER: ClusterId = ClusterId([7; 16]);

/// Set in the child process: where it works, and the case.
const CHILD_DIR: &str = "MAINSTAY_TEST_CATCHUP_DIR";
const CHILD_DIVERGED: &str = "MAINSTAY_TEST_CATCHUP_DIVERGED";
const KILL_AT: &str = "MAINSTAY_TEST_KILL_AT";

fn open(dir: &Path) -> Volume {
    Volume::open(dir, options()).unwrap()
}

fn led(dir: &Path, epoch: u64) -> (Volume, Leading) {
    let volume = open(dir);
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(epoch), "a").unwrap();
    (volume, leading)
}

/// A leader with some content, and a follower that has a copy of it.
struct Pair {
    dirs: [tempfile::TempDir; 2],
    leader: Volume,
    leading: Leading,
    writer: Writer,
    follower: Volume,
}

fn pair(seed: u64, ops: usize) -> Pair {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (leader, leading) = led(dirs[0].path(), 1);
    let mut writer = Writer::new(&leading, Epoch(1), seed);
    writer.random_ops(ops);
    let follower = open(dirs[1].path());
    copy_all(&leader, &follower, |_| {});
    Pair { dirs, leader, leading, writer, follower }
}

fn equal(leader: &Volume, follower: &Volume) {
    assert_eq!(follower.head(), leader.head());
    let (ours, theirs) = (contents(follower), contents(leader));
    assert_eq!(ours.entries, theirs.entries);
    for (id, node) in &theirs.nodes {
        assert_eq!(ours.nodes.get(id).map(|of| &of.attributes), Some(&node.attributes), "{id}");
    }
    assert!(ours == theirs, "bytes or attributes differ");
    assert_eq!(births(follower), births(leader), "births are the leader's on every replica");
    assert_eq!(follower.lineage(), leader.lineage());
}

#[test]
fn a_follower_behind_a_released_log_takes_what_changed_under_writes() {
    for (seed, whole) in [(1, false), (2, false), (3, true)] {
        let Pair { dirs, leader, leading: _leading, mut writer, follower } = pair(seed, 250);
        let id = follower.id();
        let base = follower.head();
        writer.random_ops(200);
        leader.wait_applied(leader.head().seq).unwrap();
        delta_all(&leader, &follower, base, whole, |_| {
            // Over what was read, and over what was not.
            writer.random_ops(10);
            leader.wait_applied(leader.head().seq).unwrap();
            leader.checkpoint().unwrap();
            assert_eq!(follower.head(), base, "nothing moves before the end");
        });
        equal(&leader, &follower);
        writer.model.check(&contents(&follower));
        assert_eq!(follower.id(), id, "what it acknowledged is still there");
        // And again from there, as found after a restart.
        drop(follower);
        let follower = open(dirs[1].path());
        equal(&leader, &follower);
        let base = follower.head();
        writer.random_ops(50);
        delta_all(&leader, &follower, base, whole, |_| {});
        equal(&leader, &follower);
        drop(follower);
        let report = mainstay_sync::fsck::fsck(dirs[1].path(), &options(), false).unwrap();
        assert!(report.problems.is_empty(), "{report:?}");
    }
}

/// Two leaders of one history: the old one went on alone, the new one won.
fn diverge(seed: u64, ops: usize) -> (Pair, Position, Contents) {
    let mut pair = pair(seed, ops);
    let base = pair.follower.head();
    assert_eq!(base, pair.leader.head());
    // The former leader, with ops that nobody has, of every sort.
    pair.writer.random_ops(ops / 2);
    let kept = pair.writer.create(Kind::File);
    pair.writer.write(kept, 0, b"only here");
    let before = contents(&pair.leader);
    pair.leading.end();
    let leading = pair.follower.lead(Epoch(2), "b").unwrap();
    let mut writer = Writer::new(&leading, Epoch(2), seed + 100);
    for (id, node) in contents(&pair.follower).nodes {
        writer.model.now.nodes.insert(id, node);
    }
    writer.random_ops(ops / 2);
    pair.follower.wait_applied(pair.follower.head().seq).unwrap();
    let Pair { dirs, leader, follower, .. } = pair;
    let [old, new] = dirs;
    (Pair { dirs: [new, old], leader: follower, leading, writer, follower: leader }, base, before)
}

#[test]
fn after_a_rollback_that_was_cut_short_the_applier_waits_for_commits_again() {
    let (pair, base, _) = diverge(16, 40);
    let Pair { dirs, leader, leading: _leading, follower, .. } = pair;
    drop(follower);
    // Opened anew, so that its limit begins at the checkpoint.
    let options = VolumeOptions { committed_only: true, ..options() };
    let follower = Volume::open(dirs[1].path(), options).unwrap();
    drop(delta_up_to_end(&leader, &follower, base, false, |_| {}));
    let (head, next) = (follower.head().seq, follower.head().seq.next());
    let start = vec![Change::EpochStart { node: "c".to_owned() }];
    follower.receive(Epoch(3), &record_of(Epoch(3), next, start)).unwrap();
    follower.log().wait_durable(next).unwrap();
    assert_eq!(follower.log().applicable(), head, "durable, but nobody said committed");
    follower.committed_by_leader(next);
    follower.wait_applied(next).unwrap();
}

#[test]
fn an_applied_tail_is_rolled_back_and_what_lost_is_kept() {
    for (seed, whole) in [(1, false), (2, false), (3, false), (4, true), (5, true)] {
        let (pair, base, before) = diverge(seed, 250);
        let Pair { dirs, leader, leading: _leading, mut writer, follower } = pair;
        let from = follower.head();
        delta_all(&leader, &follower, base, whole, |_| {
            writer.random_ops(10);
            leader.wait_applied(leader.head().seq).unwrap();
            assert_eq!(follower.head(), from, "nothing moves before the end");
        });
        equal(&leader, &follower);
        writer.model.check(&contents(&follower));
        let kept = mainstay_sync::quarantine::list(dirs[1].path()).unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].manifest.position, kept[0].manifest.base), (from, Some(base)));
        let tree = dirs[1].path().join("quarantine").join(&kept[0].name).join("tree");
        let lost = plain_files(&tree);
        assert!(lost.iter().any(|(_, bytes)| bytes == b"only here"), "what only it had");
        for (path, bytes) in &lost {
            let name = path.file_name().unwrap().as_encoded_bytes();
            let held = before.entries.iter().filter(|((_, of), _)| of == name);
            let same = |child| before.nodes[child].bytes == *bytes;
            assert!(held.map(|(_, child)| child).any(same), "{path:?} is as it had it");
        }
        drop(follower);
        let report = mainstay_sync::fsck::fsck(dirs[1].path(), &options(), false).unwrap();
        assert!(report.problems.is_empty(), "seed {seed}: {report:?}");
    }
}

/// It applies nothing before its start is committed, and that may need this very follower.
#[test]
fn a_leader_that_has_applied_less_than_both_share_rolls_its_follower_back_to_there() {
    for seed in [31, 32, 33] {
        let Pair { dirs, leader: follower, leading, mut writer, follower: leader } =
            pair(seed, 100);
        leader.close().unwrap();
        let committed_only = VolumeOptions { committed_only: true, ..options() };
        let leader = Volume::open(dirs[1].path(), committed_only).unwrap();
        let applied = leader.head();
        // These both have, and only the former leader has applied them; the others only it has.
        writer.random_ops(60);
        let shared = follower.head();
        stream(&follower, &leader, shared.seq);
        writer.random_ops(60);
        follower.log().wait_durable(follower.head().seq).unwrap();
        leading.end();
        let from = follower.head();
        leader.commit().set_rule(Rule::Quorum { peers: vec![follower.id()], needed: 2 });
        let promotion = leader.promote(Epoch(2), "b").unwrap();
        let (catchup, changes) = delta_up_to_end(&leader, &follower, shared, false, |_| {});
        let header = changes.header();
        assert_eq!(
            (header.since, header.snapshot.position, header.whole),
            (applied.seq, applied, true)
        );
        assert_eq!(changes.through(), shared);
        // Of what it acknowledged it gives up nothing for a while.
        let refused = catchup.finish(Epoch(2), applied).unwrap_err();
        assert!(matches!(refused, VolumeError::Unsound(_)), "{refused}");
        assert_eq!(follower.head(), from);
        delta_all(&leader, &follower, shared, false, |_| {});
        assert_eq!(follower.head(), shared);
        stream(&leader, &follower, leader.head().seq);
        follower.log().wait_durable(leader.head().seq).unwrap();
        leader.commit().peer_durable(follower.id(), Epoch(2), leader.head().seq);
        let _leading = promotion.complete().unwrap();
        equal(&leader, &follower);
        let kept = mainstay_sync::quarantine::list(dirs[0].path()).unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].manifest.position, kept[0].manifest.base), (from, Some(shared)));
        drop((follower, leading, writer));
        let report = mainstay_sync::fsck::fsck(dirs[0].path(), &options(), false).unwrap();
        assert!(report.problems.is_empty(), "seed {seed}: {report:?}");
    }
}

fn plain_files(below: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let of = std::fs::symlink_metadata(&path).unwrap();
        if of.is_dir() {
            files.extend(plain_files(&path));
        } else if of.is_file() {
            files.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    files
}

#[test]
fn a_delta_cut_short_changes_nothing_and_goes_on_from_what_is_there() {
    let Pair { dirs, leader, leading: _leading, mut writer, follower } = pair(11, 200);
    let base = follower.head();
    let (before, id) = (contents(&follower), follower.id());
    let file = writer.create(Kind::File);
    for block in 0..300_u64 {
        let bytes: Vec<u8> = (0..8192).map(|at| (at as u64 * 31 + block * 7) as u8 | 1).collect();
        writer.write(file, block * 8192, &bytes);
    }
    let (catchup, _changes) = delta_up_to_end(&leader, &follower, base, false, |_| {});
    let sent = catchup.received();
    assert!(sent >= 300 * 8192, "{sent}");
    drop(catchup);
    drop(follower);
    let follower = open(dirs[1].path());
    assert_eq!((contents(&follower), follower.id()), (before, id), "it is as it was");
    writer.write(file, 100, b"a little more");
    let (catchup, changes) = delta_up_to_end(&leader, &follower, base, false, |_| {});
    assert!(catchup.received() <= 2 * 8192, "{} bytes again", catchup.received());
    delta_end(&leader, catchup, &changes);
    equal(&leader, &follower);
    assert!(!dirs[1].path().join("staging").exists());
    assert!(!dirs[1].path().join("switching").exists());
}

/// A guess may be longer than what its file has by now.
#[test]
fn a_file_that_shrank_between_two_attempts_has_nothing_past_its_end() {
    let Pair { leader, leading: _leading, mut writer, follower, dirs: _dirs } = pair(15, 20);
    let base = follower.head();
    let file = writer.create(Kind::File);
    writer.write(file, 0, &[5; 70_000]);
    drop(delta_up_to_end(&leader, &follower, base, false, |_| {}));
    writer.truncate(file, 66_000);
    let (catchup, changes) = delta_up_to_end(&leader, &follower, base, false, |_| {});
    writer.truncate(file, 80_000);
    leader.wait_applied(leader.head().seq).unwrap();
    delta_end(&leader, catchup, &changes);
    equal(&leader, &follower);
}

#[test]
fn only_the_blocks_that_differ_are_sent() {
    let Pair { leader, leading: _leading, mut writer, follower, dirs: _dirs } = pair(12, 20);
    let file = writer.create(Kind::File);
    for chunk in 0..40_u64 {
        writer.write(file, chunk * 65536, &[chunk as u8 + 1; 65536]);
    }
    let base = follower.head();
    delta_all(&leader, &follower, base, false, |_| {});
    let base = follower.head();
    for chunk in [3_u64, 9, 27] {
        writer.write(file, chunk * 65536 + 8192, &[0xee; 8192]);
    }
    // A hole and a cut are births too, and no bytes.
    writer.truncate(file, 39 * 65536);
    writer.truncate(file, 40 * 65536);
    let (catchup, changes) = delta_up_to_end(&leader, &follower, base, false, |_| {});
    assert_eq!(catchup.received(), 3 * 8192);
    delta_end(&leader, catchup, &changes);
    equal(&leader, &follower);
}

#[test]
fn a_volume_promoted_in_the_middle_of_a_delta_stays_what_it_was() {
    let Pair { leader, leading: _leading, mut writer, follower, dirs } = pair(13, 150);
    let base = follower.head();
    let before = contents(&follower);
    writer.random_ops(100);
    let (mut catchup, changes) = delta_up_to_end(&leader, &follower, base, false, |_| {});
    // A promise of this epoch or a later one keeps the delta out.
    let position = follower.promise(Epoch(5)).unwrap();
    assert_eq!(position, base);
    let through = changes.through();
    let log = leader.log();
    let mut reader = log.reader(changes.header().snapshot.position.seq).unwrap();
    let stop = mainstay_sync::log::Stop::new(&log);
    while reader.next_seq() <= through.seq {
        for frame in
            reader.next_blocking(mainstay_sync::log::UpTo::Durable, 1 << 20, &stop).unwrap()
        {
            catchup.record(Epoch(1), &frame.record()).unwrap();
        }
    }
    let refused = catchup.finish(Epoch(1), through).unwrap_err();
    assert!(matches!(refused, VolumeError::Over { .. }), "{refused}");
    assert_eq!(follower.head(), base);
    let promoted = follower.lead(Epoch(6), "b").unwrap();
    assert_eq!(promoted.image.nodes.len(), before.nodes.len());
    assert!(!dirs[1].path().join("staging").exists(), "it is of no use any more");
    assert_eq!(contents(&follower).entries, before.entries);
}

#[test]
fn bytes_that_were_not_asked_for_are_refused() {
    let Pair { leader, leading: _leading, mut writer, follower, dirs: _dirs } = pair(14, 50);
    let base = follower.head();
    let file = writer.create(Kind::File);
    writer.write(file, 0, &[1; 100_000]);
    leader.wait_applied(leader.head().seq).unwrap();
    let (mut catchup, changes) = delta_up_to_end(&leader, &follower, base, false, |_| {});
    let (asks, _) = catchup.asks(None, 100).unwrap();
    let ask = asks.iter().find(|ask| ask.id == file && ask.chunk == 1).unwrap();
    let bytes = |length: usize| Some(bytes::Bytes::from(vec![9; length]));
    for (offset, length, given) in [
        (0, 8192, bytes(8192)),
        (65536 - 8192, 8192, bytes(8192)),
        (65536 + 1, 10, bytes(10)),
        (65536, 8192, bytes(10)),
        (65536, u64::MAX, None),
        (65536 + 8 * 8192, 8192, bytes(8192)),
        (u64::MAX - 8191, 8192, bytes(8192)),
        (65536, 0, bytes(0)),
    ] {
        let of = mainstay_sync::volume::Differing { offset, length, bytes: given };
        let refused = catchup.take_differing(ask, &of);
        assert!(matches!(refused, Err(VolumeError::Unsound(_))), "{offset} {length}");
    }
    delta_end(&leader, catchup, &changes);
    equal(&leader, &follower);
    // And a delta for another place than where the volume stands is not begun.
    let changes = leader.changes(Seq(3), false).unwrap();
    let refused = follower.catch_up(changes.header(), Position { epoch: Epoch(1), seq: Seq(3) });
    assert!(matches!(refused.map(drop), Err(VolumeError::Unsound(_))));
}

/// Not a test of its own: what the child process of the next one runs. It is killed on its way,
/// or ends.
#[test]
fn child_that_catches_up() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let leader = open(&Path::new(&dir).join("leader"));
    let follower = open(&Path::new(&dir).join("follower"));
    let base = follower.lineage().common_ancestor(
        follower.head().seq,
        &leader.lineage(),
        leader.head().seq,
    );
    delta_all(&leader, &follower, base, std::env::var(CHILD_DIVERGED).is_ok(), |_| {});
}

#[test]
fn a_kill_at_any_step_leaves_the_old_volume_or_the_new_one_and_both_can_lead() {
    for diverged in [false, true] {
        let (pair, before) = if diverged {
            let (pair, _, before) = diverge(21, 60);
            (pair, before)
        } else {
            let mut pair = pair(22, 60);
            pair.writer.random_ops(60);
            let before = contents(&pair.follower);
            (pair, before)
        };
        let Pair { dirs, leader, leading, writer, follower } = pair;
        let after = contents(&leader);
        let old = follower.head();
        drop((leading, writer));
        leader.close().unwrap();
        follower.close().unwrap();
        for (step, switched) in DELTA_STEPS {
            // The two cases differ in what is done at these steps only.
            let differs = ["a block", "half of the objects", "index"].contains(&step);
            if !diverged && !differs {
                continue;
            }
            let work = tempfile::tempdir().unwrap();
            copy_tree(dirs[0].path(), &work.path().join("leader"));
            copy_tree(dirs[1].path(), &work.path().join("follower"));
            run_child(work.path(), diverged, Some(step));
            let twin = tempfile::tempdir().unwrap();
            copy_tree(work.path(), twin.path());
            let state = work.path().join("follower");
            let report = mainstay_sync::fsck::fsck(&state, &options(), false).unwrap();
            let half = report.problems.iter().any(|of| of.what == Finding::Unswitched);
            assert_eq!(half, switched && step != "done", "{step:?}: {report:?}");
            let follower = open(&state);
            let now = contents(&follower);
            let expected = if switched { &after } else { &before };
            assert!(now == *expected, "killed at {step:?}, diverged: {diverged}");
            assert_eq!(follower.head() == old, !switched, "{step:?}");
            follower.close().unwrap();
            let promoted = open(&work.path().join("follower"));
            let lead = promoted.lead(Epoch(9), "b").unwrap();
            assert_eq!(lead.image.nodes.len(), expected.nodes.len(), "{step:?}");
            drop((lead, promoted));
            // Whatever the kill left, the next attempt ends as it should.
            run_child(twin.path(), diverged, None);
            let leader = open(&twin.path().join("leader"));
            let follower = open(&twin.path().join("follower"));
            equal(&leader, &follower);
            drop(follower);
            let state = twin.path().join("follower");
            let report = mainstay_sync::fsck::fsck(&state, &options(), false).unwrap();
            assert!(report.problems.is_empty(), "{step:?}: {report:?}");
            if diverged {
                let kept = mainstay_sync::quarantine::list(&state).unwrap();
                assert_eq!(kept.len(), 1, "{step:?}: what lost is kept, and once");
            }
        }
    }
}

fn run_child(dir: &Path, diverged: bool, kill_at: Option<&str>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["child_that_catches_up", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if diverged {
        // Reverted with every row, and the other case with the changed ones.
        command.env(CHILD_DIVERGED, "1");
    }
    if let Some(step) = kill_at {
        command.env(KILL_AT, step);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), kill_at.is_none(), "{kill_at:?}: {said}");
}
