//! The one thread that writes records to the disk and makes them durable.
//!
//! It takes everything that was appended while it was busy, so that syncs group themselves: one
//! write and one sync per round, however many wait for it. The hooks run in this thread, because
//! a hop to another one would cost a waiting `fsync` more than the hook does.
//!
//! Hazard: after a failed sync the kernel may call the lost pages clean, and the next sync would
//! succeed. So the first failure is the last thing that this thread does.

use std::io;
use std::sync::Arc;

use super::error::LogError;
use super::format::{FrameHeader, SEGMENT_HEADER_BYTES};
use super::state::{Placed, Shared};
use crate::position::Seq;

/// The thread's whole life: until the log is closed and drained, or fails.
pub(super) fn run(shared: &Shared) {
    while let Some((batch, durable)) = next_batch(shared) {
        match write(&batch, durable) {
            Ok(()) => publish(shared, &batch),
            Err((action, source)) => {
                let path = batch[0].segment.path(&*shared.disk);
                let mut state = shared.lock();
                state.fail(LogError::Failed { action, path, source: Arc::new(source) });
                shared.wake_all(&state);
                return;
            }
        }
    }
}

/// Everything queued for one segment, and what is durable before it.
///
/// A segment's last batch is thus durable before the next segment's header is written, which
/// says so.
fn next_batch(shared: &Shared) -> Option<(Vec<Placed>, Seq)> {
    let mut state = shared.lock();
    if state.telling {
        state.telling = false;
        shared.wake_callers(&state);
    }
    while state.queue.is_empty() {
        if state.closed || state.failed.is_some() {
            return None;
        }
        state.writer_waits = true;
        state = shared.wait(&shared.write, state);
        state.writer_waits = false;
    }
    let first = state.queue.front().map(|placed| placed.segment.id());
    let others = |placed: &Placed| Some(placed.segment.id()) != first;
    let until = state.queue.iter().position(others).unwrap_or(state.queue.len());
    let batch = state.queue.drain(..until).collect();
    Some((batch, state.durable.seq))
}

fn write(batch: &[Placed], durable: Seq) -> Result<(), (&'static str, io::Error)> {
    let Placed { segment, offset, .. } = &batch[0];
    let frames: Vec<_> = batch
        .iter()
        .map(|placed| {
            let bytes = placed.frame.bytes.clone();
            let length = u32::try_from(bytes.len()).expect("append checks against 8 MiB");
            let position = placed.frame.position();
            (FrameHeader { length, body_crc: placed.body_crc, position, durable }, bytes)
        })
        .collect();
    if *offset == SEGMENT_HEADER_BYTES {
        segment.write_header().map_err(|error| ("write", error))?;
    }
    segment.write_frames(*offset, &frames).map_err(|error| ("write", error))?;
    segment.sync().map_err(|error| ("sync", error))
}

fn publish(shared: &Shared, batch: &[Placed]) {
    let Some(last) = batch.last() else { return };
    let durable = last.frame.position();
    let mut state = shared.lock();
    state.durable = durable;
    state.telling = true;
    state.trim_tail(shared.options.tail_bytes);
    shared.wake_callers(&state);
    drop(state);
    for hook in shared.hooks().iter() {
        hook(durable);
    }
}
