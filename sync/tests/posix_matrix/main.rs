//! Every system call that takes names, on every kind of name, as root and as a stranger: the mount
//! must answer with the same code as a plain directory, and leave the same tree.
//!
//! Each case begins with the same small tree on both sides. What the mount means to do otherwise
//! is in [`INTENDED`], and nothing else is let pass.

#![allow(clippy::print_stdout, reason = "how much was asked, for whoever asks with --nocapture")]

#[path = "../rig/mod.rs"]
mod rig;

mod calls;
mod tree;

use std::path::{Path, PathBuf};

use calls::{Case, ONE, Outcome, TWO};
use rig::Rig;
use rustix::fs::{Gid, Uid};
use tree::{PAIRED, PATHS, lay, seen};

/// Neither root nor an owner of anything.
const STRANGER: u32 = 65_534;

/// What is not meant to be as on a plain directory: the call, and what the mount says.
const INTENDED: [(&str, i32); 2] = [
    // Device nodes are not part of a volume: no service needs them.
    ("mknod device", libc::EPERM),
    // There is no way to ask a FUSE daemon for one; programs fall back to a name.
    ("open O_TMPFILE", libc::EOPNOTSUPP),
];

/// What succeeds on both sides and may leave another mode: Linux takes setuid away also when neither
/// owner changes, of which a FUSE daemon is not told.
const UNTOLD: &str = "chown of nothing";

#[derive(Clone, Copy, Debug)]
enum Who {
    Root,
    Stranger,
}

/// Does `work` as `who`, on a thread whose identity is its own.
fn acting<T: Send + 'static>(who: Who, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        if let Who::Stranger = who {
            let (uid, gid) = (Uid::from_raw(STRANGER), Gid::from_raw(STRANGER));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
        work()
    });
    thread.join().unwrap()
}

/// Both sides, and how many cases they were asked.
struct Sides {
    rig: Rig,
    plain: PathBuf,
    asked: usize,
    succeeded: usize,
}

impl Sides {
    fn new(test: &str) -> Option<Sides> {
        rustix::process::umask(rustix::fs::Mode::from(0o022));
        let rig = Rig::new(test)?;
        let plain = rig.beside("plain");
        for root in [rig.place(), &plain] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(root, mode).unwrap();
            lay(root);
        }
        if seen(rig.place()) != seen(&plain) {
            rig::skipped(test, "TMPDIR's file system is no measure: it lacks what the mount has");
            return None;
        }
        Some(Sides { rig, plain, asked: 0, succeeded: 0 })
    }

    /// Asks both, and compares what they said and what is left.
    fn compare(
        &mut self,
        who: Who,
        what: &str,
        call: impl Fn(&Path) -> Outcome + Clone + Send + 'static,
    ) {
        let ask = |root: &Path| {
            let (root, call) = (root.to_owned(), call.clone());
            acting(who, move || call(&root))
        };
        let (got, expected) = (ask(self.rig.place()), ask(&self.plain));
        self.asked += 1;
        match INTENDED.iter().find(|(call, _)| what.starts_with(call)) {
            Some((_, code)) if expected.is_ok() => assert_eq!(got, Err(*code), "{who:?}: {what}"),
            _ => assert_eq!(got, expected, "{who:?}: {what}"),
        }
        let (left, right) = (seen(self.rig.place()), seen(&self.plain));
        if expected.is_err() && got.is_err() {
            assert_eq!(left, right, "{who:?}: {what} failed and left another tree");
            return;
        }
        self.succeeded += 1;
        if got.is_ok() && !what.starts_with(UNTOLD) {
            assert_eq!(left, right, "{who:?}: {what} left another tree");
        }
        lay(self.rig.place());
        lay(&self.plain);
    }

    fn done(self, least: usize) {
        assert!(self.succeeded >= least, "only {} of {}", self.succeeded, self.asked);
        println!("{} cases, {} of them did something", self.asked, self.succeeded);
    }
}

fn one(test: &str, who: Who) {
    let Some(mut sides) = Sides::new(test) else { return };
    for Case { name, call } in ONE {
        for path in PATHS {
            sides
                .compare(who, &format!("{name} of {path:.40}"), move |root| call(&root.join(path)));
        }
    }
    sides.done(150);
}

fn two(test: &str, who: Who) {
    let Some(mut sides) = Sides::new(test) else { return };
    for Case { name, call } in TWO {
        for (from, to) in PAIRED.iter().flat_map(|from| PAIRED.iter().map(move |to| (from, to))) {
            let what = format!("{name} from {from:.40} to {to:.40}");
            sides.compare(who, &what, move |root| call((&root.join(from), &root.join(to))));
        }
    }
    sides.done(150);
}

#[test]
fn calls_on_one_name_answer_as_on_a_plain_directory() {
    one("calls_on_one_name", Who::Root);
}

#[test]
fn a_strangers_calls_on_one_name_do_too() {
    one("a_strangers_calls_on_one_name", Who::Stranger);
}

#[test]
fn calls_on_two_names_answer_as_on_a_plain_directory() {
    two("calls_on_two_names", Who::Root);
}

#[test]
fn a_strangers_calls_on_two_names_do_too() {
    two("a_strangers_calls_on_two_names", Who::Stranger);
}
