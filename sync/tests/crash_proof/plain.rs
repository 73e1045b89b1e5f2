//! A volume as plain files, for a store to be started on.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use mainstay_sync::op::{Attributes, Kind};
use mainstay_sync::position::FileId;
use mainstay_sync::volume::Volume;

/// Writes it into `target`, an empty directory.
pub fn dump(volume: &Volume, target: &Path) {
    volume.wait_applied(volume.head().seq).unwrap();
    let image = volume.image().unwrap();
    let nodes: BTreeMap<FileId, _> = image.nodes.iter().cloned().collect();
    let mut paths: BTreeMap<FileId, PathBuf> = BTreeMap::from([(FileId::ROOT, target.to_owned())]);
    own(target, &nodes[&FileId::ROOT]);
    let mut left: Vec<_> = image.entries.iter().collect();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|(parent, name, child)| {
            let Some(parent) = paths.get(parent) else { return true };
            let path = parent.join(std::str::from_utf8(name).unwrap());
            let of = &nodes[child];
            match &of.kind {
                Kind::Directory => std::fs::create_dir(&path).unwrap(),
                Kind::Symlink(to) => symlink(std::str::from_utf8(to).unwrap(), &path).unwrap(),
                Kind::File if paths.contains_key(child) => {
                    std::fs::hard_link(&paths[child], &path).unwrap();
                }
                Kind::File => {
                    let mut bytes = vec![0; of.size as usize];
                    volume.objects().read_at(*child, 0, &mut bytes).unwrap();
                    std::fs::write(&path, bytes).unwrap();
                }
                // A former process's socket.
                Kind::Fifo | Kind::Socket => return false,
            }
            own(&path, of);
            paths.entry(*child).or_insert(path);
            false
        });
        assert!(left.len() < before, "names that lead nowhere: {left:?}");
    }
}

fn own(path: &Path, of: &Attributes) {
    lchown(path, Some(of.uid), Some(of.gid)).unwrap();
    if !matches!(of.kind, Kind::Symlink(_)) {
        let mode = std::fs::Permissions::from_mode(of.mode.into());
        std::fs::set_permissions(path, mode).unwrap();
    }
}
