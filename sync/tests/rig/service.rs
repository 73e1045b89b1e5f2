//! Processes that work in the mount from outside of the test.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::eventually;

/// A process that can be left to hang in the mount, and is killed with the test.
pub struct Service(Child);

impl Service {
    /// Runs `script` with `path` as its `$1`.
    pub fn start(script: &str, path: &Path) -> Service {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "sh"]).arg(path).current_dir("/");
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Service(quiet.spawn().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub fn end(&mut self) -> ExitStatus {
        eventually("the service ends", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap()
    }
}

impl Service {
    /// Sends the signal; a process that hangs in the mount dies of it once the mount is gone.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Not waited for: in a test that failed it may hang until the mount is gone.
        let _ = self.0.kill();
    }
}
