//! Attributes and times, as fuser wants and gives them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use super::live::Status;
use crate::op::{Kind, Time};

pub(super) fn now() -> Time {
    time_of(SystemTime::now())
}

/// A clock's reading as op time.
fn time_of(clock: SystemTime) -> Time {
    match clock.duration_since(UNIX_EPOCH) {
        Ok(since) => Time { seconds: whole(since), nanos: since.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            match before.subsec_nanos() {
                0 => Time { seconds: -whole(before), nanos: 0 },
                nanos => Time { seconds: -whole(before) - 1, nanos: 1_000_000_000 - nanos },
            }
        }
    }
}

/// The time of a setattr request.
///
/// fuser 0.18 builds it as `1970 - (seconds + nanos)` where a time before 1970 is
/// `1970 - seconds + nanos`. Taking the same sum apart gives back what the kernel sent. (With
/// seconds of `i64::MIN` fuser itself overflows; no clock shows that.)
pub(super) fn asked_time(asked: TimeOrNow, now: Time) -> Time {
    let asked = match asked {
        TimeOrNow::Now => return now,
        TimeOrNow::SpecificTime(asked) => asked,
    };
    match asked.duration_since(UNIX_EPOCH) {
        Ok(since) => Time { seconds: whole(since), nanos: since.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Time { seconds: -whole(before), nanos: before.subsec_nanos() }
        }
    }
}

fn whole(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn system_time(time: Time) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

pub(super) fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

/// What `stat(2)` shows. `allocated` is in bytes.
pub(super) fn file_attr(status: &Status, allocated: u64) -> FileAttr {
    let row = &status.attributes;
    FileAttr {
        ino: INodeNo(status.id.0),
        size: row.size,
        blocks: allocated.div_ceil(512),
        atime: system_time(row.atime),
        mtime: system_time(row.mtime),
        ctime: system_time(row.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(&row.kind),
        perm: row.mode,
        nlink: row.nlink,
        uid: row.uid,
        gid: row.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// A reply without a file: the kernel keeps "there is no such name" for as long as it keeps
/// names that exist.
pub(super) fn no_file() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `system_time_from_time` of fuser 0.18.
    fn as_fuser_gives(seconds: i64, nanos: u32) -> TimeOrNow {
        TimeOrNow::SpecificTime(if seconds >= 0 {
            UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), nanos)
        } else {
            UNIX_EPOCH - Duration::new(seconds.unsigned_abs(), nanos)
        })
    }

    #[test]
    fn times_before_1970_survive_the_way_in_and_out() {
        for (seconds, nanos) in [(0, 0), (5, 7), (-1, 0), (-1, 999_999_999), (-86_400, 1)] {
            let time = Time { seconds, nanos };
            assert_eq!(asked_time(as_fuser_gives(seconds, nanos), Time::default()), time);
            assert_eq!(time_of(system_time(time)), time);
        }
    }
}
