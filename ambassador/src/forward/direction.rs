//! One direction of a connection: bytes from one socket to the other.
//!
//! Small messages are copied through a buffer that the thread's connections share, so an idle
//! connection owns none. What the reader does not take at once is kept aside, and nothing more is
//! read until it is gone: that is the back-pressure. A stream that fills the buffer several times
//! in a row is bulk and goes through a pipe, uncopied, until it turns small again.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use super::pipe::Pipe;
use crate::conn::Conn;

/// The shared buffer of a thread.
const BUFFER_BYTES: usize = 64 * 1024;
/// Full reads in a row that make a stream bulk.
const BULK_AFTER: u8 = 4;
/// A bulk move below this much is a small one.
const BULK_BYTES: usize = 16 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_BYTES].into_boxed_slice());
}

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The end of the stream came and was passed on.
    Finished,
    /// Its reading side is dead, so both directions are.
    SourceBroken,
    /// Its writing side is dead; the other direction may still have bytes to deliver.
    SinkBroken,
}

#[derive(Debug)]
pub(super) struct Direction {
    /// Read but not yet written, from `pending_at` on.
    pending: Vec<u8>,
    pending_at: usize,
    pipe: Option<Pipe>,
    /// Full reads (or big moves) in a row, less small ones; bulk from `BULK_AFTER` on.
    bulk: u8,
    splice: bool,
    end_seen: bool,
    ended: Option<Ended>,
    /// Bytes written since the last look.
    pub(super) moved: u64,
}

impl Direction {
    /// `first` goes before all that is read.
    pub(super) fn new(first: Vec<u8>, splice: bool) -> Direction {
        Direction {
            pending: first,
            pending_at: 0,
            pipe: None,
            bulk: 0,
            splice,
            end_seen: false,
            ended: None,
            moved: 0,
        }
    }

    /// Moves what can be moved now. `last`: the other direction has finished, so that both sides
    /// are closed once this one has.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Conn,
        to: &mut Conn,
        last: bool,
    ) -> Poll<Ended> {
        if let Some(ended) = self.ended {
            return Poll::Ready(ended);
        }
        let ended = ready!(self.run(cx, from, to, last));
        self.ended = Some(ended);
        self.pending = Vec::new();
        self.pipe = None;
        Poll::Ready(ended)
    }

    pub(super) fn has_finished(&self) -> bool {
        self.ended == Some(Ended::Finished)
    }

    fn run(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Conn,
        to: &mut Conn,
        last: bool,
    ) -> Poll<Ended> {
        loop {
            if let Err(_broken) = ready!(self.flush(cx, to)) {
                return Poll::Ready(Ended::SinkBroken);
            }
            if self.end_seen && last {
                // Its own end was read, so to close it says the same as to end writing first.
                return Poll::Ready(Ended::Finished);
            }
            if self.end_seen {
                return Poll::Ready(match to.finish_writing() {
                    Ok(()) => Ended::Finished,
                    Err(_) => Ended::SinkBroken,
                });
            }
            let polled = if self.splice && self.bulk >= BULK_AFTER {
                self.fill_pipe(cx, from)
            } else {
                self.return_pipe();
                self.copy(cx, from, to)
            };
            match ready!(polled) {
                Ok(0) => self.end_seen = true,
                Ok(_) => {}
                Err(_broken) => return Poll::Ready(Ended::SourceBroken),
            }
        }
    }

    /// Writes all that was read before.
    fn flush(&mut self, cx: &mut Context<'_>, to: &mut Conn) -> Poll<io::Result<()>> {
        while self.pending_at < self.pending.len() {
            let written = ready!(to.poll_write(cx, &self.pending[self.pending_at..]))?;
            self.pending_at += written;
            self.moved += written as u64;
        }
        if self.pending_at > 0 {
            self.pending = Vec::new();
            self.pending_at = 0;
        }
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(())) };
        while !pipe.is_empty() {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                Ok(moved) => self.moved += moved as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads into the thread's buffer and writes what `to` takes at once; keeps the rest.
    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Conn,
        to: &mut Conn,
    ) -> Poll<io::Result<usize>> {
        BUFFER.with_borrow_mut(|buffer| {
            let read = ready!(from.poll_read(cx, buffer))?;
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            self.bulk = if read == buffer.len() { self.bulk.saturating_add(1) } else { 0 };
            let written = match to.poll_write(cx, &buffer[..read]) {
                Poll::Ready(Ok(written)) => written,
                // The next `flush` meets the error again, as the sink's and not the source's.
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            self.moved += written as u64;
            if written < read {
                self.pending.extend_from_slice(&buffer[written..read]);
            }
            Poll::Ready(Ok(read))
        })
    }

    fn fill_pipe(&mut self, cx: &mut Context<'_>, from: &Conn) -> Poll<io::Result<usize>> {
        if self.pipe.is_none() {
            match Pipe::take() {
                Ok(pipe) => self.pipe = Some(pipe),
                Err(_) => {
                    // Out of descriptors: copying needs none.
                    self.splice = false;
                    return Poll::Ready(Ok(usize::MAX));
                }
            }
        }
        let pipe = self.pipe.as_mut().expect("set just above");
        loop {
            if from.poll_read_ready(cx)?.is_pending() {
                self.return_pipe();
                return Poll::Pending;
            }
            match from.try_io(Interest::READABLE, || pipe.fill(from)) {
                Ok(moved) if moved < BULK_BYTES => {
                    self.bulk -= 1;
                    return Poll::Ready(Ok(moved));
                }
                Ok(moved) => {
                    self.bulk = 2 * BULK_AFTER;
                    return Poll::Ready(Ok(moved));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.splice = false; // a socket that cannot be spliced
                    return Poll::Ready(Ok(usize::MAX));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn return_pipe(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            pipe.give_back();
        }
    }
}
