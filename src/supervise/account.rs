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
pub(super) struct Account {
    pub name: String,
    pub home: PathBuf,
    pub shell: PathBuf,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Account {
    /// Finds `user`: a name, `UID` or `UID:GID`. A number that nobody has is an account all the
    /// same: containers run services as such.
    pub fn of(user: &str) -> Result<Account, SuperviseError> {
        if let Some((uid, gid)) = numbers(user) {
            let known = User::from_uid(uid.into()).map_err(failed("look up the user"))?;
            let gid = gid.or_else(|| known.as_ref().map(|known| known.gid.as_raw()));
            let gid = Gid::from_raw(gid.unwrap_or(uid));
            let home = known.as_ref().map_or_else(|| "/".into(), |known| known.dir.clone());
            let shell =
                known.as_ref().map_or_else(|| "/bin/sh".into(), |known| known.shell.clone());
            let name = known.map_or_else(|| uid.to_string(), |known| known.name);
            return Ok(Account {
                name,
                home,
                shell,
                uid: Uid::from_raw(uid),
                gid,
                groups: vec![gid],
            });
        }
        let unknown = || SuperviseError::NoUser(user.to_owned());
        let found = User::from_name(user).map_err(failed("look up the user"))?;
        let found = found.ok_or_else(unknown)?;
        let name = CString::new(user).map_err(|_| unknown())?;
        let groups = getgrouplist(&name, found.gid).map_err(failed("look up the user's groups"))?;
        Ok(Account {
            name: found.name,
            home: found.dir,
            shell: found.shell,
            uid: Uid::from_raw(found.uid.as_raw()),
            gid: Gid::from_raw(found.gid.as_raw()),
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

fn numbers(user: &str) -> Option<(u32, Option<u32>)> {
    match user.split_once(':') {
        Some((uid, gid)) => Some((uid.parse().ok()?, Some(gid.parse().ok()?))),
        None => Some((user.parse().ok()?, None)),
    }
}

fn failed(what: &'static str) -> impl FnOnce(nix::Error) -> SuperviseError {
    move |error| SuperviseError::Io { what, error: error.into() }
}

/// The user's and its main group's numbers, for who owns a new volume's root.
///
/// # Errors
/// There is no such user.
pub fn owner(name: &str) -> Result<(u32, u32), SuperviseError> {
    let account = Account::of(name)?;
    Ok((account.uid.as_raw(), account.gid.as_raw()))
}
