//! From the old position to the new one, in a step that a kill cannot split.
//!
//! A delta that is complete and durable is renamed from `staging/` to `switching/`: that is the
//! moment. Before it the volume is as it was and may be promoted; after it whoever opens the
//! volume does the rest first, as often as it takes:
//!
//! ```text
//! blocks and sizes into the objects, durable      may be written again
//! rows and position into meta.db                  one transaction, with an outcome of its own
//! objects of files that are no more               the delta's records may make some of them again
//! the delta's log takes the old one's place       if it is still in switching/
//! switching/ goes                                 and with it the reason to do any of this
//! ```

use std::fs;

use super::{Directory, VolumeError, VolumeOptions};
use crate::store::index::Index;
use crate::store::objects::{ObjectFiles, sync_directory};
use crate::store::stage::Stage;

pub(super) const STAGING: &str = "staging";
pub(super) const SWITCHING: &str = "switching";

/// The point of no return.
pub(super) fn decide(directory: &Directory) -> Result<(), VolumeError> {
    let (staging, switching) = (directory.join(STAGING), directory.join(SWITCHING));
    fs::rename(&staging, &switching).map_err(VolumeError::on("rename", &staging))?;
    sync_directory(directory.path())?;
    step("decided");
    Ok(())
}

/// Does what is left of a switch that was decided, if there is one. Nobody has the index, the
/// objects or the log open.
pub(super) fn finish(directory: &Directory, options: &VolumeOptions) -> Result<(), VolumeError> {
    let switching = directory.join(SWITCHING);
    if !switching.exists() {
        return Ok(());
    }
    tracing::info!("moving the volume to the end of a delta");
    let stage = Stage::open(&switching)?;
    let objects = ObjectFiles::open(&directory.join("objects"), options.descriptors_max)?;
    stage.put_into_objects(&objects)?;
    step("objects");
    let mut index = Index::open(&directory.join("meta.db"))?;
    stage.put_into_index(&mut index, false)?;
    step("index");
    drop(stage);
    // Now, and not at some checkpoint: a file that this replica knew and that the leader's objects
    // do not have yet may come again with the next record, and must not find what was in it here.
    index.doomed()?.into_iter().try_for_each(|id| objects.remove(id))?;
    objects.sync_names()?;
    index.forget_doomed()?;
    drop(index);
    step("doomed");
    let log = switching.join("log");
    if log.exists() {
        directory.discard("log")?;
        step("old log");
        fs::rename(&log, directory.join("log")).map_err(VolumeError::on("rename", &log))?;
        sync_directory(&switching)?;
        sync_directory(directory.path())?;
        step("new log");
    }
    directory.discard(SWITCHING)?;
    step("done");
    Ok(())
}

/// Where a test may kill the process: `MAINSTAY_TEST_KILL_AT` names the step.
pub(crate) fn step(name: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os("MAINSTAY_TEST_KILL_AT").is_some_and(|at| at == name) {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
