//! A volume through its life: led, followed, copied, reopened, set aside.

mod support;

use mainstay_sync::op::{Change, Kind};
use mainstay_sync::position::{ClusterId, Epoch, FileId, Position, Seq, VolumeId};
use mainstay_sync::store::rows::Row;
use mainstay_sync::volume::{Piece, Volume, VolumeError};
use support::{Writer, contents, copy_all, options, record_of};

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn led(dir: &std::path::Path, epoch: u64) -> (Volume, mainstay_sync::volume::Leading) {
    let volume = Volume::open(dir, options()).unwrap();
    volume.found(CLUSTER).unwrap();
    let leading = volume.lead(Epoch(epoch), "node-a").unwrap();
    (volume, leading)
}

#[test]
fn a_new_volume_is_led_written_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, leading) = led(dir.path(), 1);
    assert_eq!(leading.image.nodes.len(), 1, "a root and nothing else");
    assert_eq!(volume.head(), Position { epoch: Epoch(1), seq: Seq(1) });
    let mut writer = Writer::new(&leading, Epoch(1), 11);
    writer.random_ops(300);
    volume.wait_applied(volume.head().seq).unwrap();
    let before = contents(&volume);
    writer.model.check(&before);
    drop((writer, leading));
    volume.close().unwrap();

    let volume = Volume::open(dir.path(), options()).unwrap();
    assert_eq!(volume.cluster(), Some(CLUSTER));
    volume.wait_applied(volume.head().seq).unwrap();
    assert_eq!(contents(&volume), before);
    assert_eq!(volume.lineage().0, [(Epoch(1), Seq(1))]);
    let leading = volume.lead(Epoch(3), "node-a").unwrap();
    assert_eq!(volume.lineage().0.last(), Some(&(Epoch(3), volume.head().seq)));
    assert_eq!(leading.image.nodes.len(), before.nodes.len());
}

#[test]
fn a_follower_that_receives_every_record_is_equal() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (leader, leading) = led(here.path(), 1);
    Writer::new(&leading, Epoch(1), 5).random_ops(300);
    let follower = Volume::open(there.path(), options()).unwrap();
    follower.found(CLUSTER).unwrap();
    support::stream(&leader, &follower, leader.head().seq);
    follower.wait_applied(leader.head().seq).unwrap();
    leader.wait_applied(leader.head().seq).unwrap();
    assert_eq!(contents(&follower), contents(&leader));
    assert_eq!(follower.lineage(), leader.lineage());
}

#[test]
fn a_copy_made_under_writes_is_equal_to_the_leader() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (leader, leading) = led(here.path(), 1);
    let mut writer = Writer::new(&leading, Epoch(1), 21);
    writer.random_ops(400);
    leader.checkpoint().unwrap();
    let follower = Volume::open(there.path(), options()).unwrap();
    // The records are made between the pieces, and applied while they are read.
    copy_all(&leader, &follower, |_| {
        writer.random_ops(25);
        leader.wait_applied(leader.head().seq).unwrap();
    });
    assert!(!follower.building());
    // Whole as it is, without a record more than the snapshot asked for.
    assert_eq!(follower.head(), leader.head());
    assert_eq!(contents(&follower), contents(&leader));
    writer.model.check(&contents(&follower));
    let (theirs, ours) = (support::births(&follower), support::births(&leader));
    assert_eq!(theirs, ours, "rows and their births are the leader's");
}

#[test]
fn a_copy_that_is_not_finished_is_marked_and_begun_again() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (leader, leading) = led(here.path(), 1);
    Writer::new(&leading, Epoch(1), 3).random_ops(100);
    let follower = Volume::open(there.path(), options()).unwrap();
    let first_id = follower.id();
    {
        let mut snapshot = leader.snapshot().unwrap();
        let mut builder = follower.build(snapshot.header()).unwrap();
        builder.take(&snapshot.next_piece().unwrap().unwrap()).unwrap();
    }
    drop(follower);
    let follower = Volume::open(there.path(), options()).unwrap();
    assert!(follower.building());
    assert_ne!(follower.id(), first_id);
    assert!(matches!(follower.promise(Epoch(9)), Err(VolumeError::Building)));
    assert!(matches!(follower.lead(Epoch(9), "b"), Err(VolumeError::Building)));
    assert!(matches!(follower.snapshot(), Err(VolumeError::Building)));
    copy_all(&leader, &follower, |_| {});
    assert!(!follower.building());
    drop(follower);
    let follower = Volume::open(there.path(), options()).unwrap();
    assert!(!follower.building(), "the mark went with the last checkpoint");
    follower.wait_applied(follower.head().seq).unwrap();
    assert_eq!(contents(&follower), contents(&leader));
}

#[test]
fn a_copy_takes_no_bytes_that_its_rows_do_not_know() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (leader, leading) = led(here.path(), 1);
    let mut writer = Writer::new(&leading, Epoch(1), 3);
    let id = writer.create(Kind::File);
    writer.write(id, 0, &[1; 100]);
    leader.wait_applied(leader.head().seq).unwrap();
    let follower = Volume::open(there.path(), options()).unwrap();
    let mut snapshot = leader.snapshot().unwrap();
    let mut builder = follower.build(snapshot.header()).unwrap();
    builder.take(&snapshot.next_piece().unwrap().unwrap()).unwrap();
    let bytes = bytes::Bytes::from_static(b"evil");
    for (id, offset) in [(FileId(999), 0), (FileId::ROOT, 0), (id, 97), (id, u64::MAX)] {
        let piece = Piece::Data { id, offset, bytes: bytes.clone() };
        let refused = builder.take(&piece);
        assert!(matches!(refused, Err(VolumeError::Unsound(_))), "{id} {offset}: {refused:?}");
    }
    let (parent, child, birth) = (FileId::ROOT, Some(id), Seq(1));
    let row = Row::Entry { parent, name: b"../../etc".to_vec(), child, birth };
    assert!(matches!(builder.take(&Piece::Rows(vec![row])), Err(VolumeError::Unsound(_))));
}

#[test]
fn content_that_the_copy_does_not_hold_is_not_overwritten() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (leader, leading) = led(here.path(), 2);
    Writer::new(&leading, Epoch(2), 1).random_ops(10);
    let (other, old) = led(there.path(), 1);
    Writer::new(&old, Epoch(1), 2).random_ops(10);
    drop(old);
    let snapshot = leader.snapshot().unwrap();
    let refused = other.build(snapshot.header()).map(drop).unwrap_err();
    assert!(matches!(refused, VolumeError::HasContent { .. }), "{refused}");
    drop(snapshot);
    let before = contents(&other);
    let id = other.id();
    let aside = other.set_aside("lost to epoch 2").unwrap();
    assert_ne!(other.id(), id);
    assert_eq!((other.cluster(), other.head()), (None, Position::default()));
    let kept = mainstay_sync::quarantine::list(there.path()).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].manifest.volume, id);
    assert_eq!(kept[0].manifest.why, "lost to epoch 2");
    support::same_as_plain(&before, &aside.path.unwrap().join("tree"));
    copy_all(&leader, &other, |_| {});
    assert_eq!(contents(&other), contents(&leader));
}

#[test]
fn an_ended_leadership_takes_nothing_and_tells_whoever_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, leading) = led(dir.path(), 1);
    let journal = leading.journal.clone();
    let head = volume.head();
    let (told, answer) = std::sync::mpsc::channel();
    let far = Seq(head.seq.0 + 1000);
    journal.when_committed(far, Box::new(move |outcome| told.send(outcome).unwrap()));
    leading.end();
    assert_eq!(answer.recv().unwrap(), Err(mainstay_sync::journal::Refused::Deposed));
    let gone = vec![Change::Gone { id: FileId(99) }];
    let late = journal.append(Default::default(), gone, bytes::Bytes::new());
    assert_eq!(late, Err(mainstay_sync::journal::Refused::Deposed));
    assert_eq!(volume.head(), head);
    // And it may follow again, or lead a newer epoch.
    assert!(matches!(volume.lead(Epoch(1), "a"), Err(VolumeError::Over { .. })));
    drop(leading);
    volume.lead(Epoch(2), "a").unwrap();
}

#[test]
fn a_promise_outlives_the_process_and_keeps_older_epochs_out() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, leading) = led(dir.path(), 1);
    drop(leading);
    let position = volume.promise(Epoch(5)).unwrap();
    assert_eq!(position, volume.head());
    drop(volume);
    let volume = Volume::open(dir.path(), options()).unwrap();
    assert_eq!(volume.promised(), Epoch(5));
    assert!(matches!(volume.lead(Epoch(5), "a"), Err(VolumeError::Over { .. })));
    let next = volume.head().seq.next();
    let start = Change::EpochStart { node: "b".into() };
    let late = record_of(Epoch(4), next, vec![start.clone()]);
    assert!(matches!(volume.receive(late.head.epoch, &late), Err(VolumeError::Log(_))));
    // A newer leader may have records of the old epochs that this one lacks.
    volume.receive(Epoch(6), &late).unwrap();
    volume.receive(Epoch(6), &record_of(Epoch(6), next.next(), vec![start])).unwrap();
    volume.wait_applied(next.next()).unwrap();
}

#[test]
fn what_no_leader_writes_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, leading) = led(dir.path(), 1);
    drop(leading);
    let next = volume.head().seq.next();
    let entry = |name: &[u8]| Change::Entry {
        parent: FileId::ROOT,
        name: name.to_vec(),
        child: Some(FileId(9)),
    };
    let mut bad: Vec<Vec<Change>> =
        [&b".."[..], b"a/b", b"", b".", b"a\0b"].iter().map(|name| vec![entry(name)]).collect();
    bad.push(vec![Change::Write { id: FileId(9), offset: u64::MAX - 1, length: 0 }]);
    bad.push(vec![Change::Write { id: FileId(9), offset: 0, length: 5 }]);
    bad.push(vec![entry(b"fine"), Change::EpochStart { node: "b".into() }]);
    for changes in bad {
        let refused = volume.receive(Epoch(1), &record_of(Epoch(1), next, changes.clone()));
        assert!(matches!(refused, Err(VolumeError::Unsound(_))), "{changes:?}: {refused:?}");
    }
    let jump = record_of(Epoch(2), next, vec![entry(b"fine")]);
    assert!(matches!(volume.receive(jump.head.epoch, &jump), Err(VolumeError::Unsound(_))));
    assert_eq!(volume.head().seq.next(), next);
}

#[test]
fn a_tree_with_a_name_that_leads_nowhere_is_not_led() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, leading) = led(dir.path(), 1);
    let entry =
        Change::Entry { parent: FileId::ROOT, name: b"lost".to_vec(), child: Some(FileId(77)) };
    leading.journal.append(Default::default(), vec![entry], bytes::Bytes::new()).unwrap();
    drop(leading);
    let refused = volume.lead(Epoch(2), "a").map(drop).unwrap_err();
    assert!(refused.to_string().contains("\"lost\""), "{refused}");
}

#[test]
fn only_one_process_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::open(dir.path(), options()).unwrap();
    let refused = Volume::open(dir.path(), options()).map(drop).unwrap_err();
    let pid = std::process::id().to_string();
    assert!(refused.to_string().contains(&pid), "{refused}");
    drop(volume);
    Volume::open(dir.path(), options()).unwrap();
}

#[test]
fn what_is_not_a_volume_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("PG_VERSION"), "15").unwrap();
    let refused = Volume::open(dir.path(), options()).map(drop).unwrap_err();
    assert!(refused.to_string().contains("PG_VERSION"), "{refused}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_newer_format_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    Volume::open(dir.path(), options()).unwrap().close().unwrap();
    let db = rusqlite::Connection::open(dir.path().join("meta.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let refused = Volume::open(dir.path(), options()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("99") && refused.contains('1'), "{refused}");
}

#[test]
fn the_object_of_a_gone_file_stays_while_it_is_read_out() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, leading) = led(dir.path(), 1);
    let mut writer = Writer::new(&leading, Epoch(1), 1);
    let id = writer.create(Kind::File);
    writer.write(id, 0, &[7; 1000]);
    volume.wait_applied(volume.head().seq).unwrap();
    let object = support::object_path(dir.path(), id);
    let snapshot = volume.snapshot().unwrap();
    writer.remove(id);
    volume.wait_applied(volume.head().seq).unwrap();
    assert!(object.exists(), "no checkpoint covers the end of the file yet");
    volume.checkpoint().unwrap();
    assert!(object.exists(), "somebody reads it out");
    drop(snapshot);
    writer.create(Kind::File);
    volume.wait_applied(volume.head().seq).unwrap();
    volume.checkpoint().unwrap();
    assert!(!object.exists());
}

/// A coordinator that forgot whose an epoch is may give it to another.
#[test]
fn an_epoch_has_one_leader_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other] = [1, 2].map(|byte| VolumeId([byte; 16]));
    let over = |volume: &Volume, epoch, leader| {
        let refused = volume.accept_leader(Epoch(epoch), leader);
        matches!(refused, Err(VolumeError::Over { .. }))
    };
    let volume = Volume::open(dir.path(), options()).unwrap();
    volume.accept_leader(Epoch(3), one).unwrap();
    volume.accept_leader(Epoch(3), one).unwrap();
    assert_eq!(volume.promised(), Epoch(2), "and it takes part in none before it");
    drop(volume);
    let volume = Volume::open(dir.path(), options()).unwrap();
    assert_eq!(volume.leader(), Some((Epoch(3), one)));
    assert!(over(&volume, 3, other) && over(&volume, 2, one));
    volume.accept_leader(Epoch(3), one).unwrap();
    volume.accept_leader(Epoch(4), other).unwrap();
    assert!(over(&volume, 4, one) && over(&volume, 3, one));
    volume.promise(Epoch(4)).unwrap();
    assert!(over(&volume, 4, other), "a promise ends it for its own leader too");
}
