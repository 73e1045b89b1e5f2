//! Clocks that jump: a small library (`clock.c`) that every process of a host loads first, and a
//! file that says by how much the host's time of day is wrong.
//!
//! Covered is what a program is told of the time of day: CLOCK_REALTIME, `gettimeofday`, `time`. Not
//! covered are the times that the kernel writes to files, and its own timers on CLOCK_REALTIME. The
//! clocks that count (CLOCK_MONOTONIC, CLOCK_BOOTTIME) stay, as on a real machine whose clock is set;
//! the kernel's time namespaces could move those and only those, and not while a process runs.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::shell::run;

const SOURCE: &str = include_str!("clock.c");

/// The library, built once for a world by the compiler that links Rust programs too.
#[derive(Clone, Debug)]
pub struct ClockLibrary {
    path: PathBuf,
}

impl ClockLibrary {
    /// Builds it in `folder`.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn build(folder: &Path) -> Result<ClockLibrary> {
        let (source, path) = (folder.join("clock.c"), folder.join("clock.so"));
        fs::write(&source, SOURCE)?;
        let names = [path.to_string_lossy(), source.to_string_lossy()];
        run("cc", &["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", &names[0], &names[1]])?;
        Ok(ClockLibrary { path })
    }
}

/// One host's.
#[derive(Debug)]
pub struct Clock {
    library: ClockLibrary,
    path: PathBuf,
    file: File,
}

impl Clock {
    /// A right one; its file is made in `folder`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(library: &ClockLibrary, folder: &Path) -> Result<Clock> {
        let path = folder.join("clock");
        let file = File::create(&path)?;
        // The service's user reads it, too.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        let clock = Clock { library: library.clone(), path, file };
        clock.set(0)?;
        Ok(clock)
    }

    /// From now on it is so many seconds ahead of the machine's (behind it, if they are negative), also
    /// for what runs already.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, ahead: i64) -> Result<()> {
        Ok(self.file.write_all_at(&ahead.to_ne_bytes(), 0)?)
    }

    /// Puts a program under it.
    pub fn govern(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library.path).env("CHAOS_CLOCK", &self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(clock: &Clock) -> i64 {
        let mut command = Command::new("date");
        command.arg("+%s");
        clock.govern(&mut command);
        let said = command.output().expect("date runs").stdout;
        String::from_utf8_lossy(&said).trim().parse().expect("a number")
    }

    #[test]
    fn a_program_sees_the_time_that_its_host_is_said_to_have() {
        let folder = tempfile::tempdir().expect("a folder");
        let library = ClockLibrary::build(folder.path()).expect("a library");
        let clock = Clock::create(&library, folder.path()).expect("a clock");
        let right = seconds(&clock);
        for ahead in [86_400, -86_400] {
            clock.set(ahead).expect("it is set");
            // Hours lie between right and wrong; how long this takes does not matter.
            let off = seconds(&clock) - right - ahead;
            assert!((0..3_600).contains(&off), "{off}");
        }
    }
}
