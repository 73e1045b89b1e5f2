//! Content that lost: out of the way, and nothing of it dropped silently.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use super::running::Running;
use super::{Volume, VolumeError};
use crate::export::tree::Content;
use crate::log::{Stop, UpTo};
use crate::position::{Lineage, Position};
use crate::quarantine::{Manifest, Quarantine, QuarantineError};
use crate::store::image;
use crate::store::index::Checkpoint;

/// What was set aside, and what had to go for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Where it is; `None` if there was nothing.
    pub path: Option<PathBuf>,
    /// How far it reached.
    pub position: Position,
    /// Older ones that were removed to keep the bound, by name.
    pub dropped: Vec<String>,
}

pub(super) fn set_aside(volume: &Volume, why: &str) -> Result<Aside, VolumeError> {
    let running = volume.running();
    if running.leads() {
        return Err(VolumeError::Leads);
    }
    let blank = Checkpoint::default();
    let position = running.log.head();
    if running.building() || position == Position::default() {
        // An incomplete copy is of no moment that ever was: there is nothing in it to keep.
        volume.begin_again(&blank, None)?;
        return Ok(Aside { path: None, position, dropped: Vec::new() });
    }
    // The whole log goes with it, committed or not.
    running.log.allow_applier(position.seq);
    running.checkpoint_all()?;
    let reader = running.reader()?;
    let (at, deltas) = running.live().view(&reader)?;
    let image = image::read(&reader, &deltas, at.position)?;
    let quarantine =
        Quarantine::open(volume.state_dir(), volume.inner.options.quarantine_bytes_max)?;
    let manifest = Manifest::new(why, volume.id(), position, running.lineage());
    // Linked and not moved: until the copy in quarantine is whole, the content is whole here.
    let content = Content::Linked(&running.objects);
    let path = quarantine.keep_tree(&manifest, &image, &content)?;
    volume.begin_again(&blank, None)?;
    let dropped = quarantine.keep_bound()?;
    Ok(Aside { path: Some(path), position, dropped })
}

pub(super) fn truncate_after(volume: &Volume, ancestor: Position) -> Result<(), VolumeError> {
    let running = volume.running();
    if running.leads() {
        return Err(VolumeError::Leads);
    }
    let head = running.log.head();
    if head.seq <= ancestor.seq {
        return Ok(());
    }
    refuse_applied(&running, ancestor)?;
    // With its threads ended nothing more is applied, so what is found now stays so.
    running.stop();
    let cut = cut(volume, &running, head, ancestor);
    volume.reopen(&running)?;
    cut
}

fn cut(
    volume: &Volume,
    running: &Running,
    head: Position,
    ancestor: Position,
) -> Result<(), VolumeError> {
    refuse_applied(running, ancestor)?;
    let quarantine =
        Quarantine::open(volume.state_dir(), volume.inner.options.quarantine_bytes_max)?;
    let why = format!("records after {ancestor}, which a newer epoch does not have");
    let manifest = Manifest::new(&why, volume.id(), head, running.lineage());
    quarantine.keep_records(&manifest, |into| write_records(running, ancestor, into))?;
    running.log.truncate_after(ancestor.seq)?;
    let lineage = running.lineage();
    running.set_lineage(Lineage(
        lineage.0.into_iter().filter(|(_, first)| *first <= ancestor.seq).collect(),
    ));
    quarantine.keep_bound()?;
    Ok(())
}

fn refuse_applied(running: &Running, ancestor: Position) -> Result<(), VolumeError> {
    match running.touched() {
        applied if applied > ancestor.seq => Err(VolumeError::Applied { applied, ancestor }),
        _ => Ok(()),
    }
}

/// The records as they are in the log, each after its length as 4 little-endian bytes.
fn write_records(
    running: &Running,
    ancestor: Position,
    into: &mut File,
) -> Result<(), QuarantineError> {
    let failed = |cause| QuarantineError::on("write", "records")(cause);
    let mut reader = running.log.reader(ancestor.seq).map_err(QuarantineError::Log)?;
    let stop = Stop::new(&running.log);
    let mut last = ancestor.seq;
    while last < running.log.head().seq {
        let frames =
            reader.next_blocking(UpTo::Appended, 1 << 20, &stop).map_err(QuarantineError::Log)?;
        for frame in frames {
            last = frame.head.seq;
            let length = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
            into.write_all(&length.to_le_bytes()).map_err(failed)?;
            into.write_all(&frame.bytes).map_err(failed)?;
        }
    }
    Ok(())
}
