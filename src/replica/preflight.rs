//! What must be so before anything is started, so that it is said at once and not at the first
//! failover.

use std::path::Path;

use rustix::fs::{Access, access};

use super::ReplicaError;
use crate::config::RunConfig;
use crate::supervise::Spec;

/// Checks the machine and the configuration's outside references; changes nothing.
///
/// # Errors
/// The first thing that is not as it must be.
pub(super) fn check(config: &RunConfig) -> Result<(), ReplicaError> {
    let refuse = |what: String, fix: &str| ReplicaError::Preflight { what, fix: fix.to_owned() };
    if !rustix::process::geteuid().is_root() {
        return Err(refuse(
            "a replica needs root, to mount and to make PID namespaces".to_owned(),
            "run it as root, or in a container with --cap-add SYS_ADMIN",
        ));
    }
    let device = Path::new("/dev/fuse");
    if let Err(error) = access(device, Access::READ_OK | Access::WRITE_OK) {
        return Err(refuse(
            format!("/dev/fuse cannot be opened: {error}"),
            "load the kernel's fuse module (modprobe fuse); in a container pass --device \
             /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined",
        ));
    }
    if let Some(watchdog) = &config.watchdog
        && let Err(error) = access(watchdog, Access::WRITE_OK)
    {
        return Err(refuse(
            format!("the watchdog {} cannot be opened: {error}", watchdog.display()),
            "load its driver (modprobe softdog, if the machine has none); in a container pass \
             --device; or leave `watchdog` out",
        ));
    }
    let commands = std::iter::once(&config.process.command).chain(&config.process.init);
    for command in commands {
        let process = &config.process;
        let (command, user) = (command.clone(), process.user.clone());
        let spec = Spec { command, user, workdir: process.workdir.clone() };
        spec.check().map_err(|error| refuse(error.to_string(), "correct [process]"))?;
    }
    check_mount(config)
}

/// The mount point is only needed when this replica leads, but then it is too late to find out.
fn check_mount(config: &RunConfig) -> Result<(), ReplicaError> {
    let (mount, state) = (&config.mount, &config.state_dir);
    if mount.starts_with(state) || state.starts_with(mount) {
        return Err(ReplicaError::Preflight {
            what: format!(
                "mount {} and state_dir {} lie in one another",
                mount.display(),
                state.display()
            ),
            fix: "put them side by side".to_owned(),
        });
    }
    Ok(())
}
