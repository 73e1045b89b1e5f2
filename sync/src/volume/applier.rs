//! The thread that brings the objects to what the log holds durably.
//!
//! It reads the log only as far as it is durable: log before data, so a kill never leaves bytes
//! in an object that no record accounts for. In sync durability it reads only as far as the log is
//! committed, so that the tail of a leader that lost is in no object and is simply cut off.

use std::time::Duration;

use super::VolumeError;
use super::progress::Who;
use super::running::{Running, bytes_of};
use crate::log::UpTo;
use crate::op::Record;

/// Bytes of log that are applied between two looks at the clock.
const BATCH_BYTES: usize = 1 << 20;

/// How long a full disk is waited for between two tries, at first and at most.
const FULL_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Until the volume stops or fails.
pub(super) fn run(running: &Running) {
    match follow(running) {
        // Whoever failed it has said why.
        Ok(()) | Err(VolumeError::Closed | VolumeError::Failed(_)) => {}
        Err(error) => running.fail(&error.to_string()),
    }
}

fn follow(running: &Running) -> Result<(), VolumeError> {
    let mut gate = running.gate();
    while gate.holds && !gate.stopped {
        gate = running.wait(gate, Duration::from_secs(3600));
    }
    drop(gate);
    let mut reader = running.log.reader(running.progress.applied())?;
    loop {
        let frames = reader.next_blocking(UpTo::Applicable, BATCH_BYTES, &running.stop)?;
        if frames.is_empty() {
            return Ok(());
        }
        for frame in frames {
            running.progress.check()?;
            let record = frame.record();
            apply(running, &record)?;
            running.progress.step(record.head.seq, bytes_of(&record));
        }
        running.let_in();
        if checkpoint_due(running) {
            running.request_checkpoint();
        }
    }
}

/// A full disk is waited for, as the log keeps the record meanwhile and back-pressure keeps the
/// service from adding many; whatever else the disk says ends the volume.
fn apply(running: &Running, record: &Record) -> Result<(), VolumeError> {
    let mut wait = FULL_WAIT.0;
    loop {
        match running.live().apply(&running.objects, record) {
            Ok(()) => break,
            Err(error) if error.is_full() => {
                running
                    .progress
                    .set_waiting(Who::Applier, Some(format!("the disk is full: {error}")));
                tracing::warn!("the disk is full, trying again: {error}");
                // What was removed may give room back.
                running.request_checkpoint();
            }
            Err(error) => return Err(error.into()),
        }
        let gate = running.gate();
        if running.wait(gate, wait).stopped {
            return Err(VolumeError::Closed);
        }
        wait = (wait * 2).min(FULL_WAIT.1);
    }
    if wait > FULL_WAIT.0 {
        running.progress.set_waiting(Who::Applier, None);
    }
    Ok(())
}

fn checkpoint_due(running: &Running) -> bool {
    // Whoever waits for room in the log waits for a checkpoint, whatever else is due when.
    running.log_full()
        || running.log.unreleased_bytes() >= running.options.checkpoint_bytes
        || running.live().delta.noted >= running.options.checkpoint_changes
}
