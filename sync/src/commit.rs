//! Which ops are committed, and who waits for them.
//!
//! The log's thread tells what is durable here, the senders tell what is durable on the
//! followers, and parked `fsync`s are answered the moment that the [`Rule`] is met, in the thread
//! that met it: a hop to another thread would cost more than the answer.
//!
//! Hazard: an acknowledgement promises that the op survives. Hence acknowledgements of another
//! epoch's session never count, and after [`Commit::close`] nothing is promised any more.

mod tally;

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::{Refused, Waiter};
use crate::position::{Epoch, Seq, VolumeId};
pub use tally::{Rule, Tally};

/// What is committed in one leadership after another. Shared by reference or in an `Arc`.
pub struct Commit {
    inner: Mutex<Inner>,
    told: Mutex<Option<Arc<Told>>>,
}

/// Told of every step ahead.
type Told = dyn Fn(Seq) + Send + Sync;

struct Inner {
    tally: Tally,
    parked: BinaryHeap<Parked>,
    /// Waiters so far: among equals the earlier one is answered first.
    arrivals: u64,
    closed: Option<Refused>,
}

struct Parked {
    seq: Seq,
    arrival: u64,
    waiter: Waiter,
}

impl Commit {
    /// Nothing committed, nobody waiting, no leadership begun.
    #[must_use]
    pub fn new(rule: Rule) -> Commit {
        Commit {
            inner: Mutex::new(Inner {
                tally: Tally::new(rule),
                parked: BinaryHeap::new(),
                arrivals: 0,
                closed: None,
            }),
            told: Mutex::new(None),
        }
    }

    /// Has `told` called after each step, with the last committed op, in the thread that made the
    /// step; in place of whoever was told before. It must not wait for this commit.
    pub fn on_step(&self, told: Box<Told>) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told.into());
    }

    /// Whether everything that was acknowledged before the rule in force is durable on the quorum
    /// that it names last.
    #[must_use]
    pub fn covered(&self) -> bool {
        self.lock().tally.covered()
    }

    /// Begins the leadership `epoch`, whose EpochStart will have seq `start`. Call it before that
    /// record is appended.
    ///
    /// Nothing is committed until `start` is: older records may be on a quorum and yet lose to
    /// a higher position. What was acknowledged in earlier sessions no longer counts. A
    /// [`Commit::close`] with [`Refused::Deposed`] is over; a failed log stays closed.
    pub fn begin(&self, epoch: Epoch, start: Seq) {
        let mut inner = self.lock();
        inner.tally.begin(epoch, start);
        if inner.closed == Some(Refused::Deposed) {
            inner.closed = None;
        }
    }

    /// Everything up to `seq` is durable in this replica's log.
    pub fn local_durable(&self, seq: Seq) {
        self.step(|tally| tally.local_durable(seq));
    }

    /// The voter `volume` acknowledged, in a session of `epoch`, that everything up to `seq` is
    /// durable in its log. Ignored if `epoch` is not the one begun last.
    pub fn peer_durable(&self, volume: VolumeId, epoch: Epoch, seq: Seq) {
        self.step(|tally| tally.peer_durable(volume, epoch, seq));
    }

    /// From now on `rule` decides. What is committed stays so.
    pub fn set_rule(&self, rule: Rule) {
        self.step(|tally| tally.set_rule(rule));
    }

    /// The last committed op.
    #[must_use]
    pub fn committed(&self) -> Seq {
        self.lock().tally.committed()
    }

    /// Calls `waiter` once everything up to `seq` is committed, or never can be; before this
    /// returns if that is known now. Waiters are called under no lock.
    pub fn when_committed(&self, seq: Seq, waiter: Waiter) {
        let mut inner = self.lock();
        let answer = match &inner.closed {
            Some(refused) => Err(refused.clone()),
            None if seq <= inner.tally.committed() => Ok(()),
            None => {
                let arrival = inner.arrivals;
                inner.arrivals += 1;
                inner.parked.push(Parked { seq, arrival, waiter });
                return;
            }
        };
        drop(inner);
        waiter(answer);
    }

    /// Answers every waiter, parked and future, with `refused`. The first reason of a failed log
    /// stays.
    pub fn close(&self, refused: Refused) {
        let mut inner = self.lock();
        if !matches!(inner.closed, Some(Refused::Failed(_))) {
            inner.closed = Some(refused.clone());
        }
        let parked = std::mem::take(&mut inner.parked).into_sorted_vec();
        drop(inner);
        for Parked { waiter, .. } in parked.into_iter().rev() {
            waiter(Err(refused.clone()));
        }
    }

    fn step(&self, advance: impl FnOnce(&mut Tally)) {
        let mut inner = self.lock();
        let before = inner.tally.committed();
        advance(&mut inner.tally);
        let committed = inner.tally.committed();
        let mut due = Vec::new();
        while inner.parked.peek().is_some_and(|parked| parked.seq <= committed) {
            due.extend(inner.parked.pop());
        }
        // After its end a leadership lets nobody apply anything: what its rule would commit then is
        // for the next leader to say.
        let leads = inner.closed.is_none();
        drop(inner);
        for Parked { waiter, .. } in due {
            waiter(Ok(()));
        }
        if committed > before && leads {
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(told) = told {
                told(committed);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No waiter runs under the lock and the tally does not panic half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The heap's greatest is the one to answer first: the lowest seq, then the earliest.
impl Ord for Parked {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.seq, other.arrival).cmp(&(self.seq, self.arrival))
    }
}

impl PartialOrd for Parked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Parked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Parked {}

#[cfg(test)]
mod tests;
