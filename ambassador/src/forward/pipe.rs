//! Pipes for `splice(2)`, lent to a connection only while bulk data flows through it.
//!
//! A pipe costs two descriptors and kernel memory, and making one three system calls; so each
//! thread keeps a few that were emptied.
//!
//! Hazard: unlike `send`, `splice` cannot ask for no `SIGPIPE`. Rust's runtime ignores that signal
//! from the start; a program that restores it dies of a client that closes at the wrong moment.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What a pipe can hold, bytes: enough to feed a fast link between two wake-ups.
pub(super) const PIPE_BYTES: usize = 512 * 1024;

/// Spare pipes kept per thread.
const SPARE_MAX: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe and how much is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    held: usize,
}

impl Pipe {
    /// A spare one or a new one.
    pub(super) fn take() -> io::Result<Pipe> {
        if let Some(spare) = SPARE.with_borrow_mut(Vec::pop) {
            return Ok(spare);
        }
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused to the unprivileged beyond /proc/sys/fs/pipe-user-pages-soft; 64 KiB will do.
        let _ = fcntl_setpipe_size(&into, PIPE_BYTES);
        Ok(Pipe { out, into, held: 0 })
    }

    /// Back to the spares, if nothing is left in it.
    pub(super) fn give_back(self) {
        if self.held == 0 {
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARE_MAX {
                    spare.push(self);
                }
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves what a socket has into the pipe; 0 is its end of stream.
    pub(super) fn fill(&mut self, from: &impl AsFd) -> io::Result<usize> {
        let moved = splice(from, None, &self.into, None, PIPE_BYTES, FLAGS)?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves what the pipe has to a socket.
    pub(super) fn drain(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.out, None, to, None, self.held, FLAGS)?;
        self.held -= moved;
        Ok(moved)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
