//! The thread that keeps segment files ready: zero-filled ahead, or released ones taken again.
//!
//! A write into a file whose blocks are allocated and written changes no metadata, so that the
//! sync after it costs no journal commit. It also means that what the log has taken can always be
//! written: where there is no room for a further file, appending stops before taking anything.
//! (On a file system that writes every block to a new place, btrfs or ZFS, neither holds.)

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use super::disk::{self, Disk};
use super::error::LogError;
use super::format::SegmentId;
use super::segment::Blank;
use super::state::{Shared, State};

/// A file that is being prepared; of no use after a kill.
pub(super) const UNFINISHED: &str = "unfinished";

/// Files kept ready beside the one in use.
const AHEAD: usize = 2;
const ZEROS_BYTES: usize = 1 << 20;
/// Zeros written between two syncs: more would make the log's own sync wait for them.
const SYNC_EVERY_BYTES: u64 = 4 << 20;
/// Between two attempts on a disk that was full.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What there is to do.
enum Task {
    /// A released segment: make it ready again, or remove it.
    Recycle { old: SegmentId, bytes: u64, file: std::sync::Arc<dyn disk::DiskFile>, again: bool },
    /// One more file is needed.
    Create,
}

/// The thread's whole life.
pub(super) fn run(shared: &Shared) {
    while let Some((task, id)) = next_task(shared) {
        let outcome = match task {
            Task::Create => create(&*shared.disk, id, shared.options.segment_bytes).map(Some),
            Task::Recycle { old, bytes, file, again: true } => {
                recycle(&*shared.disk, old, id).map(|()| Some(Blank { id, file, bytes }))
            }
            Task::Recycle { old, again: false, .. } => remove(&*shared.disk, old).map(|()| None),
        };
        let mut state = shared.lock();
        match outcome {
            Ok(blank) => {
                state.ready.extend(blank);
                state.unprepared = None;
            }
            Err(error) => {
                if state.unprepared.is_none() {
                    tracing::warn!(%error, "no further log segment can be prepared");
                }
                state.unprepared = Some(error);
                state.retry_at = Some(Instant::now() + RETRY_AFTER);
            }
        }
        state.wanted = false;
        shared.wake_all(&state);
    }
}

fn next_task(shared: &Shared) -> Option<(Task, SegmentId)> {
    let mut state = shared.lock();
    loop {
        if state.closed || state.failed.is_some() {
            return None;
        }
        if let Some(task) = task_now(&mut state, shared.options.spare_segments) {
            let id = SegmentId(state.next_id);
            state.next_id += 1;
            return Some((task, id));
        }
        state = match (state.unprepared.is_some() && state.wanted, state.retry_at) {
            (true, Some(at)) => {
                let pause = at.saturating_duration_since(Instant::now());
                shared.wait_timeout(&shared.prepare, state, pause)
            }
            _ => shared.wait(&shared.prepare, state),
        };
    }
}

fn task_now(state: &mut State, spare_segments: usize) -> Option<Task> {
    let again = state.ready.len() < AHEAD.max(spare_segments);
    if let Some((old, again_fits)) = state.recyclable.pop_front() {
        let Blank { id, bytes, file } = old;
        return Some(Task::Recycle { old: id, bytes, file, again: again && again_fits });
    }
    let blocked = state.unprepared.is_some()
        && !(state.wanted && state.retry_at.is_none_or(|at| at <= Instant::now()));
    (state.ready.len() < AHEAD && !blocked).then_some(Task::Create)
}

/// A new zero-filled file under the name of `id`, all of it durable.
pub(super) fn create(disk: &dyn Disk, id: SegmentId, bytes: u64) -> Result<Blank, LogError> {
    let unfinished = |action| move |source| LogError::io(action, disk.path(UNFINISHED), source);
    let file = disk.create(UNFINISHED).map_err(unfinished("create"))?;
    if let Err(source) = fill(&*file, bytes) {
        // On a full disk the half of it would stand in the way of whoever makes room.
        let _ = disk.remove(UNFINISHED);
        return Err(unfinished("fill")(source));
    }
    let name = id.file_name();
    disk.rename(UNFINISHED, &name)
        .and_then(|()| disk.sync())
        .map_err(|source| LogError::io("rename", disk.path(&name), source))?;
    Ok(Blank { id, file, bytes })
}

fn fill(file: &dyn disk::DiskFile, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let length = (bytes - offset).min(ZEROS_BYTES as u64);
        disk::write_all_at(file, &mut [IoSlice::new(&zeros[..length as usize])], offset)?;
        offset += length;
        if offset.is_multiple_of(SYNC_EVERY_BYTES) {
            file.sync_data()?;
        }
    }
    file.sync_data()
}

/// Gives a released segment a new name. The names are durable before it is used and before the
/// next older-to-newer step, so that no kill leaves a gap in the log or a segment under an old id.
fn recycle(disk: &dyn Disk, old: SegmentId, new: SegmentId) -> Result<(), LogError> {
    disk.rename(&old.file_name(), &new.file_name())
        .and_then(|()| disk.sync())
        .map_err(|source| LogError::io("rename", disk.path(&old.file_name()), source))
}

fn remove(disk: &dyn Disk, old: SegmentId) -> Result<(), LogError> {
    disk.remove(&old.file_name())
        .and_then(|()| disk.sync())
        .map_err(|source| LogError::io("remove", disk.path(&old.file_name()), source))
}
