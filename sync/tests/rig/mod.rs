//! A real mount over a journal and objects that a test has in its hands.
//!
//! The tests work in the mount from within its own process. A task that hangs in its own
//! process's mount could not even be killed, so every rig has a watchdog that aborts the mount,
//! whereupon the test fails instead of hanging, and requests that are meant to hang are made by
//! child processes: a test that is killed while one of its own threads waits in its own mount
//! would stay for ever.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod journal;
pub mod mapping;
pub mod objects;
pub mod rows;
pub mod service;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use mainstay_sync::capture::{Gate, Mount, MountError, MountOptions};
use mainstay_sync::position::Epoch;
use rustix::mount::{UnmountFlags, unmount};

use journal::TestJournal;
use objects::TestObjects;

/// How long anything may take before a test gives it up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// After which a test that still runs has its mount taken away.
const WATCHDOG: Duration = Duration::from_secs(150);

/// A gate that a test opens and shuts.
pub struct Switch(AtomicBool);

impl Switch {
    pub fn set(&self, open: bool) {
        self.0.store(open, Ordering::SeqCst);
    }
}

impl Gate for Switch {
    fn open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

pub struct Rig {
    pub mount: Option<Arc<Mount>>,
    pub journal: Arc<TestJournal>,
    pub objects: Arc<TestObjects>,
    pub gate: Arc<Switch>,
    epoch: u64,
    place: PathBuf,
    done: Arc<(Mutex<bool>, Condvar)>,
    dir: tempfile::TempDir,
}

impl Rig {
    /// `None`: this machine cannot mount, which was said aloud.
    pub fn new(test: &str) -> Option<Rig> {
        if let Some(reason) = unable() {
            skipped(test, reason);
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        open_to_all(dir.path());
        let place = dir.path().join("mount");
        let objects = Arc::new(TestObjects::new(&dir.path().join("objects")));
        let journal = TestJournal::start(objects.clone());
        let mut rig = Rig {
            mount: None,
            journal,
            objects,
            gate: Arc::new(Switch(AtomicBool::new(true))),
            epoch: 1,
            place,
            done: Arc::default(),
            dir,
        };
        rig.mount();
        Some(rig)
    }

    /// Mounts what the records so far make.
    pub fn mount(&mut self) {
        self.mount = Some(Arc::new(self.try_mount().expect("the mount")));
        self.watch();
    }

    pub fn try_mount(&mut self) -> Result<Mount, MountError> {
        let image = self.journal.image();
        let options = MountOptions::new(&self.place, "rig", Epoch(self.epoch));
        self.epoch += 1;
        let (journal, objects) = (self.journal.clone(), self.objects.clone());
        Mount::new(options, image, journal, objects, self.gate.clone())
    }

    /// Unmounts in order and mounts again what a follower would have.
    pub fn remount(&mut self) {
        let mount = self.mount.take().expect("mounted");
        // Closing is told to the mount after close(2) returned.
        eventually("the mount is not in use", || match mount.unmount() {
            Ok(()) => true,
            Err(MountError::Busy { .. }) => false,
            Err(error) => panic!("{error}"),
        });
        drop(mount);
        self.journal.settle();
        self.mount();
    }

    /// A path in the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// The mountpoint.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// A directory beside the mount, on the file system that the objects are on.
    pub fn beside(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        open_to_all(&path);
        path
    }

    fn watch(&self) {
        let mount = self.mount.as_ref().map(Arc::downgrade);
        let done = self.done.clone();
        let watch = move || {
            let (finished, wake) = &*done;
            let guard = finished.lock().unwrap();
            let (guard, waited) =
                wake.wait_timeout_while(guard, WATCHDOG, |finished| !*finished).unwrap();
            drop(guard);
            if waited.timed_out() {
                let _ = writeln!(std::io::stderr(), "a test hangs: its mount is taken away");
                let _ = mount.and_then(|mount| mount.upgrade()).map(|mount| mount.abort());
            }
        };
        std::thread::spawn(watch);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mount) = self.mount.take() {
            let _ = mount.abort();
        }
        *self.done.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        self.done.1.notify_all();
        self.journal.stop();
        // The mount under test may be the one that fails to go.
        while is_mounted(&self.place) && unmount(&self.place, UnmountFlags::DETACH).is_ok() {}
    }
}

/// What a process that [`in_child`] started is asked to do.
const ORDER: &str = "MAINSTAY_TEST_ORDER";

/// Starts this test binary again, to run only the test `name`, which does as [`order`] says.
pub fn in_child(name: &str, order: &str, path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(ORDER, order).env(ORDER_PATH, path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

const ORDER_PATH: &str = "MAINSTAY_TEST_PATH";

/// What this process was started for by [`in_child`]; `None` in a test run.
pub fn order() -> Option<(String, PathBuf)> {
    Some((std::env::var(ORDER).ok()?, std::env::var_os(ORDER_PATH)?.into()))
}

/// Whether the mount table names `place`.
pub fn is_mounted(place: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == place))
}

/// Says past libtest's capture that `test` did not run: that must not look green.
pub fn skipped(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// Polls until `is_so`.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn unable() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting needs root");
    }
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    device.is_err().then_some("/dev/fuse cannot be opened")
}
