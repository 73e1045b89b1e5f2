//! A user of this machine, as `getpwnam(3)` and `getgrouplist(3)` know it.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::unistd::{User, getgrouplist};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use super::SuperviseError;

/// Everything that becoming the user takes, looked up before the fork: after it, memory may not
/// be allocated.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub(super) struct Account {
    pub name: String,
    pub home: PathBuf,
    pub shell: PathBuf,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Account {
    pub fn of(name: &str) -> Result<Account, SuperviseError> {
        let user = User::from_name(name)
            .map_err(|error| SuperviseError::Io { what: "look up the user", error: error.into() })?
            .ok_or_else(|| SuperviseError::NoUser(name.to_owned()))?;
        let name_c = CString::new(name).map_err(|_| SuperviseError::NoUser(name.to_owned()))?;
        let groups = getgrouplist(&name_c, user.gid).map_err(|error| SuperviseError::Io {
            what: "look up the user's groups",
            error: error.into(),
        })?;
        Ok(Account {
            name: user.name,
            home: user.dir,
            shell: user.shell,
            uid: Uid::from_raw(user.uid.as_raw()),
            gid: Gid::from_raw(user.gid.as_raw()),
            groups: groups.into_iter().map(|group| Gid::from_raw(group.as_raw())).collect(),
        })
    }

    /// Turns the calling thread into the user; for the child between fork and exec, which has
    /// only this thread. The user last: after it the rest would not be allowed.
    pub fn assume(&self) -> io::Result<()> {
        set_thread_groups(&self.groups)?;
        set_thread_gid(self.gid)?;
        set_thread_uid(self.uid)?;
        Ok(())
    }
}

/// The user's and its main group's numbers, for who owns a new volume's root.
///
/// # Errors
/// There is no such user.
pub fn owner(name: &str) -> Result<(u32, u32), SuperviseError> {
    let account = Account::of(name)?;
    Ok((account.uid.as_raw(), account.gid.as_raw()))
}
