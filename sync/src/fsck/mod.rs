//! Checks a replica that is not running: log, objects and index against each other.
//!
//! Changes nothing unless told to, and then only what is safe without another replica: it applies
//! what the log still has, cuts what lies past the end of files, and moves foreign files to
//! quarantine. Whatever is lost here is for a copy from another replica to bring back.
//!
//! Objects run ahead of the index until the log's tail is applied, so with such a tail only some
//! of the checks can be made; [`Report::unapplied`] says how long it is.

mod namespace;
mod objects;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::log::{self, LogError};
use crate::position::{FileId, Position};
use crate::store::index::{self, Checkpoint};
use crate::store::{StoreError, rows};
use crate::volume::{Directory, Volume, VolumeError, VolumeOptions};
use namespace::Namespace;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does no harm, and a repair removes it.
    Untidy,
    /// What the service wrote may be wrong or gone in this replica.
    Damage,
    /// The volume cannot be opened.
    Fatal,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub what: Finding,
    /// Whether it was repaired.
    pub repaired: bool,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The log does not check out.
    Log(String),
    /// `meta.db` does not check out.
    Index(String),
    /// The content is a copy that was never finished.
    Incomplete,
    /// A kill came while the volume was moved to the end of a delta. All that is needed is there.
    Unswitched,
    /// A file has bytes and no object.
    NoObject(FileId),
    /// An object is shorter than its file: bytes are missing.
    Short {
        /// Whose.
        id: FileId,
        /// Its file's size in bytes.
        size: u64,
        /// The object's length in bytes.
        length: u64,
    },
    /// An object is longer than its file.
    Long {
        /// Whose.
        id: FileId,
        /// Its file's size in bytes.
        size: u64,
        /// The object's length in bytes.
        length: u64,
    },
    /// Something in `objects/` is no object of this volume.
    Foreign(PathBuf),
    /// There is no root directory.
    NoRoot,
    /// A name is in something that is no directory, or names nothing.
    Dangling {
        /// The directory.
        parent: FileId,
        /// The name in it.
        name: String,
        /// What it names.
        child: FileId,
    },
    /// A file has links and no name.
    Unnamed(FileId),
    /// A file has more or fewer names than it says.
    Links {
        /// Which.
        id: FileId,
        /// What it says.
        says: u32,
        /// What was counted.
        counted: u32,
    },
}

impl Finding {
    fn severity(&self) -> Severity {
        match self {
            Finding::Log(_) | Finding::Index(_) => Severity::Fatal,
            Finding::Long { .. } | Finding::Foreign(_) | Finding::Unswitched => Severity::Untidy,
            _ => Severity::Damage,
        }
    }

    /// What is safe to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Finding::Long { .. } => "fsck with repair cuts it",
            Finding::Foreign(_) => "fsck with repair moves it to quarantine",
            Finding::Unswitched => "fsck with repair, or the next start, ends it",
            Finding::Incomplete => "start the replica: it copies the volume again from the leader",
            _ => {
                "move this state directory aside and start the replica blank: it copies the \
                 volume from the leader; if no other replica is left, export what can be read"
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Log(why) => write!(f, "the log: {why}"),
            Finding::Index(why) => write!(f, "meta.db: {why}"),
            Finding::Incomplete => write!(f, "the content is a copy that was never finished"),
            Finding::Unswitched => write!(f, "the move to the end of a delta is half done"),
            Finding::NoObject(id) => write!(f, "file {id} has bytes and no object"),
            Finding::Short { id, size, length } => {
                write!(f, "the object of file {id} has {length} of its {size} bytes")
            }
            Finding::Long { id, size, length } => {
                write!(f, "the object of file {id} has {length} bytes and the file {size}")
            }
            Finding::Foreign(path) => write!(f, "{} is no object", path.display()),
            Finding::NoRoot => write!(f, "there is no root directory"),
            Finding::Dangling { parent, name, child } => {
                write!(f, "{name:?} in directory {parent} names {child}, which does not fit")
            }
            Finding::Unnamed(id) => write!(f, "file {id} has links and no name"),
            Finding::Links { id, says, counted } => {
                write!(f, "file {id} says that it has {says} links and has {counted}")
            }
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Up to where the index is so.
    pub checkpoint: Position,
    /// The last record in the log, if it can be told.
    pub head: Option<Position>,
    /// Ops in the log that may not be in the objects; some checks wait for them.
    pub unapplied: u64,
    /// What is not as it must be, the worst first.
    pub problems: Vec<Problem>,
}

impl Report {
    /// The worst that is left.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.problems.iter().filter(|of| !of.repaired).map(|of| of.severity).max()
    }

    fn add(&mut self, what: Finding) {
        self.problems.push(Problem { severity: what.severity(), what, repaired: false });
    }
}

/// Checks the volume in `state_dir`, which nobody may have open; with `repair` also mends what is
/// safe to. `options` are what the replica runs with.
///
/// # Errors
/// The check itself could not be made. What it finds is in the report.
pub fn fsck(
    state_dir: &Path,
    options: &VolumeOptions,
    repair: bool,
) -> Result<Report, VolumeError> {
    let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "there is no volume");
    if !state_dir.join("vow").exists() {
        return Err(VolumeError::on("check", state_dir)(missing()));
    }
    if repair {
        // Brings the objects to the end of the log, if it can be opened at all; if not, the check
        // below says why.
        match Volume::open(state_dir, options.clone()).and_then(Volume::close) {
            Err(error @ VolumeError::InUse { .. }) => return Err(error),
            Err(error) => tracing::warn!("the log could not be applied: {error}"),
            Ok(()) => {}
        }
    }
    let directory = Directory::lock(state_dir)?;
    let mut report = check(directory.path())?;
    if repair {
        objects::repair(directory.path(), options.quarantine_bytes_max, &mut report)?;
    }
    report.problems.sort_by_key(|of| std::cmp::Reverse(of.severity));
    Ok(report)
}

fn check(state: &Path) -> Result<Report, VolumeError> {
    let mut report = Report::default();
    if state.join("switching").exists() {
        // The rest is between two positions, and right at neither.
        report.add(Finding::Unswitched);
        return Ok(report);
    }
    let Some(at) = check_index(state, &mut report) else { return Ok(report) };
    report.checkpoint = at.position;
    check_log(&state.join("log"), at.position, &mut report)?;
    if at.building {
        report.add(Finding::Incomplete);
        return Ok(report);
    }
    let db = index::reader(&state.join("meta.db"))?;
    let space = Namespace::read(&db)?;
    // A volume that was never led has no root, and nothing else either.
    if at.position != Position::default() {
        space.check(&mut report);
    }
    objects::check(&state.join("objects"), &space, &mut report)?;
    Ok(report)
}

/// The checkpoint, if `meta.db` can be read.
fn check_index(state: &Path, report: &mut Report) -> Option<Checkpoint> {
    let read = || -> Result<Checkpoint, StoreError> {
        let db = index::reader(&state.join("meta.db"))?;
        let format: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if format != index::FORMAT {
            let known = index::FORMAT;
            return Err(StoreError::Unsound(format!(
                "format {format}, and this build reads {known}"
            )));
        }
        let said: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if said != "ok" {
            return Err(StoreError::Damaged(said));
        }
        // Every row must be readable, which SQLite's own check does not tell.
        let mut cursor = rows::Cursor::default();
        while !cursor.next(&db, 4096)?.is_empty() {}
        index::checkpoint(&db)
    };
    match read() {
        Ok(at) => Some(at),
        Err(error) => {
            report.add(Finding::Index(error.to_string()));
            None
        }
    }
}

fn check_log(dir: &Path, floor: Position, report: &mut Report) -> Result<(), VolumeError> {
    if !dir.exists() {
        report.head = Some(floor);
        return Ok(());
    }
    let head = match log::inspect(dir, floor) {
        Ok(inspection) => inspection.head,
        Err(error @ LogError::Io { .. }) => return Err(error.into()),
        Err(error) => Err(error),
    };
    match head {
        Ok(head) => {
            report.unapplied = head.seq.0.saturating_sub(floor.seq.0);
            report.head = Some(head);
        }
        Err(error) => report.add(Finding::Log(error.to_string())),
    }
    Ok(())
}
