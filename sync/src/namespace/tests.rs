use std::collections::BTreeMap;

use super::attributes::Wanted;
use super::data::{Allocate, Range};
use super::make::New;
use super::*;
use crate::image::Image;
use crate::op::Attributes;

const ROOT: Caller = Caller { uid: 0, gid: 0 };
const NOW: Time = Time { seconds: 1000, nanos: 5 };

fn at(parent: FileId, name: &str) -> Place<'_> {
    Place { parent, name: name.as_bytes() }
}

fn closed(_: FileId) -> bool {
    false
}

fn open(_: FileId) -> bool {
    true
}

struct World {
    tree: Tree,
    next: u64,
}

impl World {
    fn new() -> World {
        let mut tree = Tree::default();
        let time = Time::default();
        let attributes = Attributes {
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            nlink: 2,
            size: 0,
            atime: time,
            mtime: time,
            ctime: time,
        };
        tree.apply(&Change::Node { id: FileId::ROOT, attributes });
        World { tree, next: 100 }
    }

    fn run(&mut self, plan: Result<Plan, Errno>) {
        plan.unwrap().changes.iter().for_each(|change| self.tree.apply(change));
        self.check();
    }

    fn make(&mut self, parent: FileId, name: &str, kind: Kind) -> FileId {
        self.next += 1;
        let new = New { id: FileId(self.next), kind, mode: 0o644, owner: ROOT };
        let plan = make::make(&self.tree, &at(parent, name), new, NOW);
        self.run(plan);
        FileId(self.next)
    }

    fn nlink(&self, id: FileId) -> u32 {
        self.tree.attributes(id).map_or(0, |row| row.nlink)
    }

    /// What every tree keeps to: nlink counts names, and a directory's its subdirectories.
    fn check(&self) {
        let mut names: BTreeMap<FileId, u32> = BTreeMap::new();
        for id in self.tree.ids() {
            for listed in self.tree.list(id, 0) {
                *names.entry(listed.child).or_default() += 1;
                let child = self.tree.attributes(listed.child).expect("entries name files");
                if child.kind == Kind::Directory {
                    *names.entry(id).or_default() += 1;
                    assert_eq!(self.tree.parent(listed.child), Some(id));
                }
            }
        }
        for id in self.tree.ids() {
            let row = self.tree.attributes(id).unwrap();
            let own = u32::from(row.kind == Kind::Directory && row.nlink > 0);
            let root = u32::from(id == FileId::ROOT);
            let counted = names.get(&id).copied().unwrap_or(0) + own + root;
            assert_eq!(row.nlink, counted, "{id:?}");
        }
    }
}

#[test]
fn a_refused_plan_and_an_unapplied_one_change_nothing() {
    let mut world = World::new();
    let dir = world.make(FileId::ROOT, "dir", Kind::Directory);
    let before = world.tree.clone();
    let place = at(dir, "x");
    let new = New { id: FileId(9), kind: Kind::File, mode: 0, owner: ROOT };
    make::make(&world.tree, &place, new, NOW).unwrap();
    let missing = remove::unlink(&world.tree, &place, closed, NOW);
    assert_eq!(missing, Err(Errno::NOENT));
    assert_eq!(world.tree, before);
}

#[test]
fn links_are_counted_through_every_way_of_renaming() {
    let mut world = World::new();
    let root = FileId::ROOT;
    let (a, b) = (world.make(root, "a", Kind::Directory), world.make(root, "b", Kind::Directory));
    let inner = world.make(a, "inner", Kind::Directory);
    let file = world.make(b, "file", Kind::File);
    assert_eq!((world.nlink(root), world.nlink(a), world.nlink(b)), (4, 3, 2));
    let swap = |from: Place<'_>, to: Place<'_>, tree: &Tree| {
        rename::rename(tree, &from, &to, rename::Mode::Exchange, closed, NOW)
    };
    let plan = swap(at(a, "inner"), at(b, "file"), &world.tree);
    world.run(plan);
    assert_eq!((world.nlink(a), world.nlink(b)), (2, 3));
    assert_eq!(
        (world.tree.child(a, b"inner"), world.tree.child(b, b"file")),
        (Some(file), Some(inner))
    );
    // A directory over an empty one, within one parent and across two.
    let plan = rename::rename(
        &world.tree,
        &at(b, "file"),
        &at(root, "a2"),
        rename::Mode::Replace,
        closed,
        NOW,
    );
    world.run(plan);
    let plan = rename::rename(
        &world.tree,
        &at(root, "a2"),
        &at(root, "b"),
        rename::Mode::Replace,
        closed,
        NOW,
    );
    world.run(plan);
    assert_eq!(world.tree.attributes(b), None, "what was replaced is gone");
    assert_eq!(world.nlink(root), 4);
}

#[test]
fn a_directory_never_comes_to_lie_within_itself() {
    let mut world = World::new();
    let a = world.make(FileId::ROOT, "a", Kind::Directory);
    let b = world.make(a, "b", Kind::Directory);
    let c = world.make(b, "c", Kind::Directory);
    let file = world.make(FileId::ROOT, "f", Kind::File);
    let tree = &world.tree;
    for mode in [rename::Mode::Replace, rename::Mode::Keep] {
        let plan = rename::rename(tree, &at(FileId::ROOT, "a"), &at(c, "x"), mode, closed, NOW);
        assert_eq!(plan, Err(Errno::INVAL));
    }
    let plan = rename::rename(
        tree,
        &at(b, "c"),
        &at(FileId::ROOT, "a"),
        rename::Mode::Exchange,
        closed,
        NOW,
    );
    assert_eq!(plan, Err(Errno::INVAL));
    assert!(tree.is_within(c, a) && !tree.is_within(a, c) && !tree.is_within(file, a));
}

#[test]
fn an_open_file_outlives_its_last_name() {
    let mut world = World::new();
    let file = world.make(FileId::ROOT, "f", Kind::File);
    let plan = make::link(&world.tree, file, &at(FileId::ROOT, "g"), NOW);
    world.run(plan);
    let plan = remove::unlink(&world.tree, &at(FileId::ROOT, "f"), open, NOW);
    world.run(plan);
    assert_eq!(remove::release(&world.tree, file), Plan::default(), "it has a name left");
    let plan = remove::unlink(&world.tree, &at(FileId::ROOT, "g"), open, NOW);
    world.run(plan);
    assert_eq!(world.tree.orphans().collect::<Vec<_>>(), [file]);
    let again = make::link(&world.tree, file, &at(FileId::ROOT, "h"), NOW);
    assert_eq!(again, Err(Errno::NOENT));
    let range = Range { offset: 0, length: 3 };
    let plan = data::write(&world.tree, file, range, false, NOW);
    world.run(plan);
    let plan = Ok(remove::release(&world.tree, file));
    world.run(plan);
    assert_eq!(world.tree.attributes(file), None);
    assert_eq!(data::write(&world.tree, file, range, false, NOW), Err(Errno::STALE));
}

#[test]
fn names_and_links_have_their_limits() {
    let mut world = World::new();
    let file = world.make(FileId::ROOT, "f", Kind::File);
    for (name, errno) in [("", Errno::INVAL), (".", Errno::INVAL), ("a/b", Errno::INVAL)] {
        assert_eq!(at(FileId::ROOT, name).check(), Err(errno), "{name:?}");
    }
    let long = "n".repeat(256);
    assert_eq!(at(FileId::ROOT, &long).check(), Err(Errno::NAMETOOLONG));
    let mut row = world.tree.attributes(file).unwrap().clone();
    row.nlink = LINKS_MAX;
    world.tree.apply(&Change::Node { id: file, attributes: row });
    let plan = make::link(&world.tree, file, &at(FileId::ROOT, "g"), NOW);
    assert_eq!(plan, Err(Errno::MLINK));
}

#[test]
fn content_and_owner_changes_void_set_id_bits_and_capabilities() {
    let mut world = World::new();
    let file = world.make(FileId::ROOT, "f", Kind::File);
    let (stranger, range) = (Caller { uid: 5, gid: 5 }, Range { offset: 0, length: 1 });
    let size = Wanted { size: Some(9), ..Wanted::default() };
    let owner = Wanted { uid: Some(3), ..Wanted::default() };
    type Case<'a> = (&'a str, Box<dyn Fn(&Tree) -> Result<Plan, Errno> + 'a>, u16);
    let cases: Vec<Case<'_>> = vec![
        ("write", Box::new(|tree| data::write(tree, file, range, true, NOW)), 0o755),
        ("kept", Box::new(|tree| data::write(tree, file, range, false, NOW)), 0o6755),
        ("cut", Box::new(|tree| attributes::set(tree, file, &size, stranger, NOW)), 0o755),
        ("cut by root", Box::new(|tree| attributes::set(tree, file, &size, ROOT, NOW)), 0o6755),
        ("owner", Box::new(|tree| attributes::set(tree, file, &owner, ROOT, NOW)), 0o755),
    ];
    for (what, plan, mode) in cases {
        let wanted = Wanted { mode: Some(0o6755), ..Wanted::default() };
        let set = attributes::set(&world.tree, file, &wanted, ROOT, NOW);
        world.run(set);
        let capability = (&b"security.capability"[..], &b"x"[..]);
        let set = xattr::set(&world.tree, file, capability, xattr::Mode::Set, NOW);
        world.run(set);
        let plan = plan(&world.tree);
        world.run(plan);
        assert_eq!(world.tree.attributes(file).unwrap().mode, mode, "{what}");
        assert_eq!(world.tree.xattr(file, capability.0), None, "{what}");
    }
}

#[test]
fn allocations_stay_within_what_an_object_can_be() {
    let mut world = World::new();
    let file = world.make(FileId::ROOT, "f", Kind::File);
    let far = Range { offset: FILE_BYTES_MAX, length: 1 };
    let grow = Allocate::Reserve { keep_size: false };
    let plan = |range, how| data::allocate(&world.tree, file, range, how, false, NOW);
    assert_eq!(plan(far, grow), Err(Errno::FBIG));
    assert_eq!(plan(Range { offset: u64::MAX, length: 2 }, grow), Err(Errno::FBIG));
    assert_eq!(plan(Range { offset: 0, length: 0 }, grow), Err(Errno::INVAL));
    let punched = plan(far, Allocate::Punch).unwrap();
    assert!(!punched.changes.iter().any(|change| matches!(change, Change::Zero { .. })));
    assert_eq!(data::write(&world.tree, FileId::ROOT, far, false, NOW), Err(Errno::ISDIR));
    let dir = data::allocate(&world.tree, FileId::ROOT, far, grow, false, NOW);
    assert_eq!(dir, Err(Errno::NODEV));
}

#[test]
fn a_listing_goes_on_where_it_was() {
    let mut world = World::new();
    for name in ["a", "b", "c", "d"] {
        world.make(FileId::ROOT, name, Kind::File);
    }
    let first: Vec<_> = world.tree.list(FileId::ROOT, 0).take(2).collect();
    for name in ["a", "c"] {
        let plan = remove::unlink(&world.tree, &at(FileId::ROOT, name), closed, NOW);
        world.run(plan);
    }
    world.make(FileId::ROOT, "a", Kind::File);
    let rest: Vec<_> =
        world.tree.list(FileId::ROOT, first[1].cookie).map(|listed| listed.name.to_vec()).collect();
    assert_eq!(rest, [b"d".to_vec(), b"a".to_vec()]);
}

#[test]
fn an_image_that_contradicts_itself_is_refused() {
    assert_eq!(Tree::load(Image::default()), Err(TreeError::NoRoot));
    let mut world = World::new();
    let file = world.make(FileId::ROOT, "f", Kind::File);
    let rows = |tree: &Tree| {
        tree.ids().map(|id| (id, tree.attributes(id).unwrap().clone())).collect::<Vec<_>>()
    };
    let nodes = rows(&world.tree);
    let good =
        Image { nodes, entries: vec![(FileId::ROOT, b"f".to_vec(), file)], ..Image::default() };
    let mut loaded = Tree::load(good.clone()).unwrap();
    assert_eq!(loaded, world.tree);
    loaded.apply(&Change::Gone { id: file });
    for (parent, child) in [(file, FileId::ROOT), (FileId::ROOT, FileId(77)), (FileId(77), file)] {
        let entries = vec![(parent, b"x".to_vec(), child)];
        let bad = Image { entries, ..good.clone() };
        assert!(matches!(Tree::load(bad), Err(TreeError::Stray { .. })));
    }
}
