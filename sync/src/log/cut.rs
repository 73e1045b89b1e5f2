//! Taking records back: the tail that another leadership replaced, or everything.
//!
//! Both are one durable header. A new segment is written and synced first, then its header, which
//! says which older segments it replaces; only then are their files removed. A kill before leaves
//! the old log whole, a kill after leaves the new one; a record that was cut off cannot come back,
//! since the frames of another segment never check out in this one.

use std::sync::{Arc, MutexGuard};

use super::Log;
use super::error::LogError;
use super::format::SEGMENT_HEADER_BYTES;
use super::segment::{self, Blank, Segment};
use super::state::{Shared, State};
use crate::position::{Position, Seq};

impl Log {
    /// Drops every record after `seq`, durably. For the tail that a newer leadership replaced and
    /// that was never applied.
    ///
    /// # Errors
    /// Nothing changed: [`LogError::InUse`] while a reader or pin is past `seq`,
    /// [`LogError::Released`] or [`LogError::Beyond`] if `seq` is not within the log,
    /// [`LogError::NoSpace`]. Or the log failed.
    pub fn truncate_after(&self, seq: Seq) -> Result<(), LogError> {
        let shared = self.shared();
        let (mut state, blank) = loop {
            let mut state = shared.lock();
            check_cut(&state, seq)?;
            if seq == state.head.seq {
                return Ok(());
            }
            match quiet(shared, &mut state)? {
                Some(blank) => break (state, blank),
                None => drop(shared.wait_progress(state)),
            }
        };
        let at = state.segments.partition_point(|segment| segment.base().seq <= seq) - 1;
        let from = state.segments[at].clone();
        match segment::rewrite(&*shared.disk, &from, seq, &blank) {
            Ok((segment, end, head)) => replace(shared, state, at, segment, end, head),
            Err(error) => return Err(fail(shared, &mut state, &blank, error)),
        }
        Ok(())
    }

    /// Drops every record and continues after `at`: a follower that took a full copy of the
    /// volume as it is there.
    ///
    /// # Errors
    /// Nothing changed: [`LogError::InUse`] while there is a reader or pin, [`LogError::NoSpace`].
    /// Or the log failed.
    pub fn restart_at(&self, at: Position) -> Result<(), LogError> {
        let shared = self.shared();
        let (mut state, blank) = loop {
            let mut state = shared.lock();
            if let Some(read) = state.pins.values().max() {
                return Err(LogError::InUse { read: *read, after: at.seq });
            }
            match quiet(shared, &mut state)? {
                Some(blank) => break (state, blank),
                None => drop(shared.wait_progress(state)),
            }
        };
        let mut segment = Segment::begun(&blank, at);
        segment.header.replaces = Seq(0);
        if let Err(source) = segment.write_header().and_then(|()| segment.sync()) {
            let error = LogError::io("begin", segment.path(&*shared.disk), source);
            return Err(fail(shared, &mut state, &blank, error));
        }
        state.released = at.seq;
        replace(shared, state, 0, segment, SEGMENT_HEADER_BYTES, at);
        Ok(())
    }
}

fn check_cut(state: &State, seq: Seq) -> Result<(), LogError> {
    if seq > state.head.seq {
        return Err(LogError::Beyond { seq, head: state.head.seq });
    }
    if seq.next() < state.first() {
        return Err(LogError::Released { oldest: state.first() });
    }
    match state.pins.values().find(|after| **after > seq) {
        Some(read) => Err(LogError::InUse { read: *read, after: seq }),
        None => Ok(()),
    }
}

/// A blank, if there is one and nothing is on its way to the disk.
fn quiet(shared: &Shared, state: &mut State) -> Result<Option<Blank>, LogError> {
    state.check_alive()?;
    if !state.drained() {
        return Ok(None);
    }
    let blank = state.ready.pop_front();
    if blank.is_none()
        && let Some(error) = state.unprepared.clone()
    {
        state.wanted = true;
        shared.prepare.notify_all();
        return Err(error);
    }
    shared.prepare.notify_all();
    Ok(blank)
}

/// Makes `segment`, whose header is durable, the last one, in place of all from `at` on.
fn replace(
    shared: &Shared,
    mut state: MutexGuard<'_, State>,
    at: usize,
    segment: Segment,
    end: u64,
    head: Position,
) {
    for old in state.segments.drain(at..).rev() {
        // What cannot be removed is recognised as replaced when the log is opened again.
        if let Err(error) = shared.disk.remove(&old.id().file_name()) {
            tracing::warn!(%error, segment = old.id().0, "a replaced segment stays for now");
        }
    }
    state.segments.push_back(Arc::new(segment));
    state.end = end;
    state.head = head;
    state.durable = head;
    while state.tail.back().is_some_and(|frame| frame.seq() > head.seq) {
        let dropped = state.tail.pop_back();
        state.tail_bytes -= dropped.map_or(0, |frame| frame.bytes.len() as u64);
    }
    shared.wake_all(&state);
}

/// Whether the new header is on the disk is unknown, so which log is there is.
fn fail(shared: &Shared, state: &mut State, blank: &Blank, error: LogError) -> LogError {
    let path = shared.disk.path(&blank.id.file_name());
    let source = Arc::new(std::io::Error::other(error));
    let failed = LogError::Failed { action: "cut the log into", path, source };
    state.fail(failed.clone());
    shared.wake_all(state);
    failed
}
