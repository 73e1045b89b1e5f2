//! `init`: once in the life of the cluster, on an empty volume.
//!
//! A mark on the volume's root says that it began, and then that it is done; it is replicated like
//! everything else, so whoever leads next knows. An `init` that was cut short left half of
//! something: the next leader empties the volume before it tries again. Nothing else is ever
//! emptied: a volume that holds files without the mark was imported. "Done" is recorded only when
//! everything that `init` wrote is committed: `sync(1)` in the init's own script would not reach a
//! FUSE mount.

use bytes::Bytes;
use mainstay_sync::image::Image;
use mainstay_sync::journal::{Journal, Refused};
use mainstay_sync::op::{Change, Kind, Time};
use mainstay_sync::position::FileId;

/// The mark, an extended attribute of the root that only root sees.
const MARK: &[u8] = b"trusted.mainstay.init";
/// Changes of one record while emptying.
const CHANGES_MAX: usize = 500;

/// How far `init` came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Never begun, and the volume is empty: run it.
    Needed,
    /// Begun and never finished: empty the volume, and run it.
    CutShort,
    /// Done, or not needed since the volume was imported.
    Done,
}

impl Progress {
    /// As the volume's rows tell it.
    #[must_use]
    pub fn of(image: &Image) -> Progress {
        let marks = image.xattrs.iter();
        let mark = marks.filter(|(id, name, _)| *id == FileId::ROOT && name == MARK).next_back();
        match mark.map(|(.., value)| value.as_slice()) {
            Some(b"done") => Progress::Done,
            Some(_) => Progress::CutShort,
            None if image.entries.is_empty() => Progress::Needed,
            None => Progress::Done,
        }
    }
}

/// Records that it begins.
///
/// # Errors
/// The journal takes nothing any more.
pub fn begin(journal: &dyn Journal, now: Time) -> Result<(), Refused> {
    mark(journal, now, b"begun")
}

/// Records that it is done.
///
/// # Errors
/// The journal takes nothing any more.
pub fn finish(journal: &dyn Journal, now: Time) -> Result<(), Refused> {
    mark(journal, now, b"done")
}

fn mark(journal: &dyn Journal, now: Time, value: &[u8]) -> Result<(), Refused> {
    let (name, value) = (MARK.to_vec(), Some(value.to_vec()));
    let change = Change::Xattr { id: FileId::ROOT, name, value };
    journal.append(now, vec![change], Bytes::new()).map(drop)
}

/// Removes everything below the root, from the volume and from `image`, before it is mounted.
/// Returns how many files that were.
///
/// # Errors
/// The journal takes nothing any more.
pub fn empty(journal: &dyn Journal, image: &mut Image, now: Time) -> Result<usize, Refused> {
    let entries = image.entries.drain(..).map(|(parent, name, _)| Change::Entry {
        parent,
        name,
        child: None,
    });
    let ids = image.nodes.iter().map(|(id, _)| *id).filter(|id| *id != FileId::ROOT);
    let changes: Vec<_> = entries.chain(ids.map(|id| Change::Gone { id })).collect();
    image.nodes.retain(|(id, _)| *id == FileId::ROOT);
    image.xattrs.retain(|(id, ..)| *id == FileId::ROOT);
    let gone = changes.iter().filter(|change| matches!(change, Change::Gone { .. })).count();
    for some in changes.chunks(CHANGES_MAX) {
        journal.append(now, some.to_vec(), Bytes::new())?;
    }
    if gone > 0 {
        restore_root(journal, image, now)?;
    }
    Ok(gone)
}

/// A root without subdirectories has two links.
fn restore_root(journal: &dyn Journal, image: &mut Image, now: Time) -> Result<(), Refused> {
    for (id, attributes) in &mut image.nodes {
        debug_assert_eq!(attributes.kind, Kind::Directory, "only the root is left");
        attributes.nlink = 2;
        let change = Change::Node { id: *id, attributes: attributes.clone() };
        journal.append(now, vec![change], Bytes::new())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use mainstay_sync::journal::Waiter;
    use mainstay_sync::op::Attributes;
    use mainstay_sync::position::Seq;

    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Vec<Change>>>);

    impl Journal for Recorder {
        fn append(&self, _: Time, changes: Vec<Change>, _: Bytes) -> Result<Seq, Refused> {
            let mut all = self.0.lock().expect("no test panics holding it");
            all.push(changes);
            Ok(Seq(all.len() as u64))
        }
        fn ready(&self, _: u64, waiter: Waiter) -> Option<Waiter> {
            Some(waiter)
        }
        fn when_committed(&self, _: Seq, waiter: Waiter) {
            waiter(Ok(()));
        }
        fn applied(&self) -> Seq {
            Seq(0)
        }
        fn on_applied(&self, _: Box<dyn Fn(Seq) + Send + Sync>) {}
    }

    fn node(kind: Kind, nlink: u32) -> Attributes {
        let at = Time::default();
        let size = 0;
        Attributes {
            kind,
            mode: 0o700,
            uid: 0,
            gid: 0,
            nlink,
            size,
            atime: at,
            mtime: at,
            ctime: at,
        }
    }

    #[test]
    fn a_half_initialised_volume_is_emptied_and_a_marked_one_is_left_alone() {
        let (folder, file) = (FileId(7), FileId(8));
        let mut image = Image {
            nodes: vec![
                (FileId::ROOT, node(Kind::Directory, 3)),
                (folder, node(Kind::Directory, 2)),
                (file, node(Kind::File, 1)),
            ],
            entries: vec![(FileId::ROOT, b"d".to_vec(), folder), (folder, b"f".to_vec(), file)],
            ..Image::default()
        };
        assert_eq!(Progress::of(&image), Progress::Done, "imported: not ours to empty");
        image.xattrs.push((FileId::ROOT, MARK.to_vec(), b"begun".to_vec()));
        assert_eq!(Progress::of(&image), Progress::CutShort);
        let recorder = Recorder::default();
        assert_eq!(empty(&recorder, &mut image, Time::default()), Ok(2));
        assert_eq!(image.nodes, [(FileId::ROOT, node(Kind::Directory, 2))]);
        assert!(image.entries.is_empty());
        let changes = recorder.0.lock().expect("no panic").concat();
        assert!(changes.contains(&Change::Gone { id: file }));
        assert!(changes.contains(&Change::Gone { id: folder }));
        let gone = Change::Entry { parent: folder, name: b"f".to_vec(), child: None };
        assert!(changes.contains(&gone));

        image.xattrs.clear();
        assert_eq!(Progress::of(&image), Progress::Needed);
        finish(&recorder, Time::default()).expect("it takes everything");
        let Some(Change::Xattr { id, name, value: Some(value) }) =
            recorder.0.lock().expect("no panic").concat().pop()
        else {
            panic!("no mark was recorded");
        };
        image.xattrs.push((id, name, value));
        assert_eq!(Progress::of(&image), Progress::Done);
    }
}
