//! What every whole-system test needs to know of the machine.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The built daemon.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_mainstay"))
}

/// Whether this machine can mount and make namespaces; says loudly that it cannot.
pub fn can_run(name: &str) -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if !std::fs::metadata("/dev/fuse").is_ok_and(|dev| dev.file_type().is_char_device()) {
        "no /dev/fuse"
    } else {
        return true;
    };
    skip(name, reason);
    false
}

/// Whether `program` is installed; says loudly that it is not.
pub fn has(name: &str, program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
        || Path::new(program).exists();
    if !found {
        skip(name, &format!("no {program}"));
    }
    found
}

fn skip(name: &str, reason: &str) {
    use std::io::Write;
    // Past the test harness's capture, so that a skipped test is always seen.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {reason}");
}
