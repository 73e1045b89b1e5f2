//! The place of the mount: made ready, mounted, found again among the machine's mounts, cleared.
//!
//! Nothing here looks *into* a live mount: a request to our own mount, with our own threads
//! stuck, would never come back.

use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::MountError;

const DEVICE: &str = "/dev/fuse";
const MOUNTS: &str = "/proc/self/mountinfo";
const CONNECTIONS: &str = "/sys/fs/fuse/connections";
const KIND: &str = "fuse.mainstay";

/// More mounts than this of daemons that died do not lie on one another.
const DEAD_MAX: usize = 64;

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// The minor number of the file system's device: for FUSE the connection's name.
    device: u32,
    point: PathBuf,
    kind: String,
}

/// Makes `point` ready to be mounted on and says its full path: a directory that exists and is
/// empty, without the dead mount of a daemon that was killed.
pub(super) fn prepare(point: &Path) -> Result<PathBuf, MountError> {
    let failed = |source| MountError::Mountpoint { mountpoint: point.to_owned(), source };
    for _ in 0..DEAD_MAX {
        match fs::metadata(point) {
            Ok(found) if found.is_dir() => {
                let full = point.canonicalize().map_err(failed)?;
                return check_free(full);
            }
            Ok(_) => return Err(failed(io::ErrorKind::NotADirectory.into())),
            Err(error) if is_dead(&error) => {
                tracing::info!(mountpoint = %point.display(), "clearing a dead mount");
                unmount(point, UnmountFlags::DETACH).map_err(|errno| failed(errno.into()))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(point).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(Errno::NOTCONN.into()))
}

/// What a mount says whose daemon is gone, or whose connection was aborted.
fn is_dead(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::NOTCONN, Errno::CONNABORTED].iter().any(|dead| code == Some(dead.raw_os_error()))
}

fn check_free(point: PathBuf) -> Result<PathBuf, MountError> {
    let failed = |source| MountError::Mountpoint { mountpoint: point.clone(), source };
    if topmost(&point).map_err(failed)?.is_some_and(|line| line.kind == KIND) {
        return Err(MountError::Mounted { mountpoint: point });
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&point).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        // What mkfs leaves on a disk of its own.
        if name != "lost+found" {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    if names.is_empty() {
        return Ok(point);
    }
    names.sort();
    let more = names.len().saturating_sub(3);
    names.truncate(3);
    let mut found = names.join(", ");
    if more > 0 {
        found.push_str(&format!(" and {more} more"));
    }
    Err(MountError::NotEmpty { mountpoint: point, found })
}

/// A mount without anybody to serve it yet.
pub(super) struct Fresh {
    /// The connection's end of `/dev/fuse`.
    pub(super) device: OwnedFd,
    /// The connection's name.
    pub(super) connection: u32,
}

/// Mounts at `point`, which [`prepare`] said.
pub(super) fn attach(point: &Path, name: &str) -> Result<Fresh, MountError> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(|source| MountError::Device { source })?;
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,allow_other",
        device.as_raw_fd(),
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let data = CString::new(data).expect("digits and words hold no zero byte");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    mount(name, point, KIND, flags, data.as_c_str()).map_err(|errno| match errno {
        Errno::PERM | Errno::ACCESS => MountError::Permission { mountpoint: point.to_owned() },
        errno => MountError::Mountpoint { mountpoint: point.to_owned(), source: errno.into() },
    })?;
    match topmost(point) {
        Ok(Some(line)) if line.kind == KIND => {
            Ok(Fresh { device: device.into(), connection: line.device })
        }
        found => {
            // Without the connection's name there would be no certain way to abort it.
            let source = match found {
                Err(error) => error,
                Ok(_) => io::Error::other(format!("the new mount is not in {MOUNTS}")),
            };
            if let Err(error) = unmount(point, UnmountFlags::DETACH) {
                tracing::warn!(%error, "a mount that cannot be used stays behind");
            }
            Err(MountError::Mountpoint { mountpoint: point.to_owned(), source })
        }
    }
}

/// Ends the connection: every request, answered or not, fails in the kernel, and tasks that wait
/// for one go on. Then takes the mount away, whoever still uses it.
///
/// Writing to the connection's `abort` file does the first; where `/sys` is read-only (in a
/// container) a forced unmount does it as well. Neither sends a request.
pub(super) fn abort(point: &Path, connection: u32) -> io::Result<()> {
    let switch = Path::new(CONNECTIONS).join(connection.to_string()).join("abort");
    let switched = OpenOptions::new()
        .write(true)
        .open(switch)
        .and_then(|mut switch: File| io::Write::write_all(&mut switch, b"1"));
    // Only ours: somebody may have mounted another one here since.
    let ours = topmost(point)?.is_some_and(|line| line.device == connection);
    if !ours {
        // Not in our mount table, and not among the connections: it has ended already.
        return match switched {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
    }
    let detached = unmount(point, UnmountFlags::FORCE | UnmountFlags::DETACH);
    if detached.is_err() && switched.is_err() {
        return Ok(detached?);
    }
    Ok(())
}

/// Takes an unused mount away. `EBUSY` while somebody uses it.
pub(super) fn detach(point: &Path) -> Result<(), Errno> {
    unmount(point, UnmountFlags::NOFOLLOW)
}

/// The mount that is visible at `point`, if it is a mount point.
fn topmost(point: &Path) -> io::Result<Option<Line>> {
    let table = fs::read(MOUNTS)?;
    let mut lines = table.split(|byte| *byte == b'\n').filter_map(parse);
    // Later lines lie on top of earlier ones.
    Ok(lines.rfind(|line| line.point == point))
}

/// `36 35 98:0 /root /point options [tags] - kind source options`
fn parse(line: &[u8]) -> Option<Line> {
    let mut words = line.split(|byte| *byte == b' ');
    let device = words.nth(2)?;
    let point = words.nth(1)?;
    let kind = words.skip_while(|word| *word != b"-").nth(1)?;
    let (_, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    Some(Line {
        device: minor.parse().ok()?,
        point: unescaped(point),
        kind: OsStr::from_bytes(kind).to_string_lossy().into_owned(),
    })
}

/// Spaces and the like stand as a backslash and three octal digits.
fn unescaped(word: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((byte, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| *byte == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(code.unwrap_or(*byte));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_read() {
        let line = b"51 23 0:47 / /tmp/a\\040b rw,nosuid shared:1 master:2 - fuse.mainstay data rw";
        let expected =
            Line { device: 47, point: "/tmp/a b".into(), kind: "fuse.mainstay".to_owned() };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"1 2 3 4 5"), None);
    }

    #[test]
    fn a_place_that_is_in_use_is_refused_with_what_is_in_it() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("lost+found")).unwrap();
        prepare(place.path()).expect("an empty disk is free");
        for name in ["a", "b", "c", "d"] {
            fs::write(place.path().join(name), "x").unwrap();
        }
        let said = prepare(place.path()).unwrap_err().to_string();
        assert!(said.contains("a, b, c and 1 more"), "{said}");
        assert!(said.contains("mainstay import"), "{said}");
        let said = prepare(&place.path().join("a")).unwrap_err().to_string();
        assert!(said.to_lowercase().contains("not a directory"), "{said}");
    }

    #[test]
    fn a_missing_place_is_made() {
        let place = tempfile::tempdir().unwrap();
        let deep = place.path().join("one/two");
        assert!(prepare(&deep).unwrap().is_dir());
    }
}
