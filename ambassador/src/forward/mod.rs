//! Carries bytes between a client and its target until both are done.
//!
//! One task per connection polls both directions; an idle one owns no buffer and no pipe.

mod direction;
mod pipe;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::access::End;
use crate::conn::Conn;
use direction::{Direction, Ended};

/// A client and its target.
pub(crate) struct Forward<'a> {
    client: Conn,
    target: Conn,
    up: Direction,
    down: Direction,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    active: bool,
    counters: (&'a AtomicU64, &'a AtomicU64),
    /// Bytes from the client to the target.
    pub(crate) bytes_in: u64,
    /// Bytes from the target to the client.
    pub(crate) bytes_out: u64,
}

impl<'a> Forward<'a> {
    /// `first` is sent to the target before all that the client says. `counters`: the route's
    /// bytes in and out.
    pub(crate) fn new(
        client: Conn,
        target: Conn,
        first: Vec<u8>,
        idle_timeout: Option<Duration>,
        counters: (&'a AtomicU64, &'a AtomicU64),
    ) -> Forward<'a> {
        Forward {
            client,
            target,
            up: Direction::new(first, true),
            down: Direction::new(Vec::new(), true),
            idle: idle_timeout.map(|timeout| (timeout, Box::pin(sleep(timeout)))),
            active: false,
            counters,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Closes both sides as `end` and each direction's fate ask for.
    pub(crate) fn close(self, end: End) {
        if end == End::Closed {
            return; // both directions finished: dropping sends nothing more than was sent
        }
        self.client.reset();
        self.target.reset();
    }

    /// The directions' ends as the connection's, once it has one.
    fn end(up: Poll<Ended>, down: Poll<Ended>) -> Poll<End> {
        match (up, down) {
            (Poll::Ready(Ended::Finished), Poll::Ready(Ended::Finished)) => {
                Poll::Ready(End::Closed)
            }
            (Poll::Ready(Ended::SourceBroken), _) | (_, Poll::Ready(Ended::SourceBroken)) => {
                Poll::Ready(End::Broken)
            }
            // A target that answers and closes before it has read everything: its answer was
            // delivered, and the rest of the request has nowhere to go.
            (Poll::Ready(Ended::SinkBroken), Poll::Ready(Ended::Finished))
            | (Poll::Ready(Ended::Finished), Poll::Ready(Ended::SinkBroken)) => {
                Poll::Ready(End::Closed)
            }
            (Poll::Ready(_), Poll::Ready(_)) => Poll::Ready(End::Broken),
            _ => Poll::Pending,
        }
    }

    fn count(&mut self) {
        for (direction, total, counter) in [
            (&mut self.up, &mut self.bytes_in, self.counters.0),
            (&mut self.down, &mut self.bytes_out, self.counters.1),
        ] {
            let moved = std::mem::take(&mut direction.moved);
            if moved > 0 {
                self.active = true;
                *total += moved;
                counter.fetch_add(moved, Relaxed);
            }
        }
    }

    /// Looked at once per timeout, so that traffic never touches a timer.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Some((timeout, sleep)) = &mut self.idle else { return Poll::Pending };
        while sleep.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.active) {
                return Poll::Ready(End::Idle);
            }
            sleep.as_mut().reset(Instant::now() + *timeout);
        }
        Poll::Pending
    }
}

impl Future for Forward<'_> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        let is_finished = |ended: Poll<Ended>| ended == Poll::Ready(Ended::Finished);
        let answered = this.down.has_finished();
        let up = this.up.poll(cx, &mut this.client, &mut this.target, answered);
        let down = this.down.poll(cx, &mut this.target, &mut this.client, is_finished(up));
        this.count();
        match Forward::end(up, down) {
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending => this.poll_idle(cx),
        }
    }
}
