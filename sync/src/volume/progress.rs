//! How far the applier has come, who waits for it, and whether it can go on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::VolumeError;
use crate::journal::{Refused, Waiter};
use crate::position::Seq;

type Told = Box<dyn Fn(Seq) + Send + Sync>;

/// Up to where a leader may append, so that those who may take over lack no more than they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Until so many bytes were appended, as [`Volume::appended_bytes`] counts.
    ///
    /// [`Volume::appended_bytes`]: super::Volume::appended_bytes
    pub bytes: u64,
    /// And until then, if time is bounded too.
    pub until: Option<Instant>,
}

/// Who waits for a disk.
#[derive(Clone, Copy)]
pub(super) enum Who {
    Applier,
    Checkpointer,
}

/// Shared by the applier, which moves it, and everybody who waits.
pub(super) struct Progress {
    applied: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
    told: Mutex<Vec<Told>>,
}

#[derive(Default)]
struct State {
    /// Records up to here were in the log when it was opened, and are not in `unapplied`.
    recovered: Seq,
    /// Bytes appended since and not applied yet.
    unapplied: u64,
    /// All bytes appended since it was opened.
    appended: u64,
    allowance: Option<Allowance>,
    /// Writers that wait for room, with what each wants.
    parked: VecDeque<(u64, Waiter)>,
    failed: Option<String>,
    stopped: bool,
    /// What the applier waits for, and what the checkpointer does, for people.
    waiting: [Option<String>; 2],
}

impl Progress {
    pub(super) fn new(applied: Seq, recovered: Seq) -> Progress {
        Progress {
            applied: AtomicU64::new(applied.0),
            state: Mutex::new(State { recovered, ..State::default() }),
            changed: Condvar::new(),
            told: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn applied(&self) -> Seq {
        Seq(self.applied.load(Ordering::Acquire))
    }

    pub(super) fn on_applied(&self, told: Told) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }

    /// `bytes` were taken by the log.
    pub(super) fn appended(&self, bytes: u64) {
        let mut state = self.state();
        state.unapplied += bytes;
        state.appended += bytes;
    }

    /// All bytes appended since it was opened.
    pub(super) fn appended_bytes(&self) -> u64 {
        self.state().appended
    }

    /// Bounds what may be appended, or no longer does. Whoever calls it lets writers in.
    pub(super) fn allow(&self, allowance: Option<Allowance>) {
        self.state().allowance = allowance;
    }

    /// Whether a writer waits for more to be allowed.
    pub(super) fn wants_more(&self) -> bool {
        let state = self.state();
        state.parked.front().is_some_and(|(bytes, _)| !state.allowed(*bytes))
    }

    /// They were not, after all.
    pub(super) fn take_back(&self, bytes: u64) {
        let mut state = self.state();
        state.unapplied = state.unapplied.saturating_sub(bytes);
        state.appended = state.appended.saturating_sub(bytes);
    }

    /// `seq`, of `bytes`, is in the objects.
    pub(super) fn step(&self, seq: Seq, bytes: u64) {
        let mut state = self.state();
        if seq > state.recovered {
            state.unapplied = state.unapplied.saturating_sub(bytes);
        }
        self.applied.store(seq.0, Ordering::Release);
        drop(state);
        self.changed.notify_all();
        for told in self.told.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            told(seq);
        }
    }

    /// Gives the waiter back if `bytes` more may come, and keeps it otherwise.
    pub(super) fn room_for(
        &self,
        bytes: u64,
        max: u64,
        log_full: bool,
        waiter: Waiter,
    ) -> Option<Waiter> {
        let mut state = self.state();
        // Whoever comes after it is over finds that out from the append.
        let over = state.failed.is_some() || state.stopped;
        let fits = !log_full && state.parked.is_empty() && state.fits(bytes, max);
        if over || fits {
            return Some(waiter);
        }
        state.parked.push_back((bytes, waiter));
        None
    }

    /// Lets writers go on for whom there is room now.
    pub(super) fn let_in(&self, max: u64) {
        let mut due = Vec::new();
        let mut state = self.state();
        let mut granted = 0;
        while let Some((bytes, _)) = state.parked.front() {
            if !state.fits(granted + bytes, max) {
                break;
            }
            granted += bytes;
            due.extend(state.parked.pop_front());
        }
        drop(state);
        due.into_iter().for_each(|(_, waiter)| waiter(Ok(())));
    }

    /// Blocks until `seq` is applied.
    pub(super) fn wait_applied(&self, seq: Seq) -> Result<(), VolumeError> {
        let mut state = self.state();
        while self.applied() < seq {
            state.check()?;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// As [`Progress::wait_applied`], but no longer than that.
    pub(super) fn wait_applied_for(&self, seq: Seq, longest: Duration) -> Result<(), VolumeError> {
        let begun = Instant::now();
        let mut state = self.state();
        while self.applied() < seq {
            state.check()?;
            let left = longest.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let waiting = state.waiting.iter().flatten().next().cloned();
                return Err(VolumeError::Behind { applied: self.applied(), seq, waiting });
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Whether it can still go on.
    pub(super) fn check(&self) -> Result<(), VolumeError> {
        self.state().check()
    }

    /// Nothing goes on any more; everybody who waits is told why.
    pub(super) fn fail(&self, why: &str) {
        let mut state = self.state();
        if state.failed.is_none() {
            state.failed = Some(why.to_owned());
        }
        self.end(state, &Refused::Failed(why.to_owned()));
    }

    /// As [`Progress::fail`], but in order.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        self.end(state, &Refused::Deposed);
    }

    fn end(&self, mut state: MutexGuard<'_, State>, refused: &Refused) {
        let parked = std::mem::take(&mut state.parked);
        drop(state);
        self.changed.notify_all();
        parked.into_iter().for_each(|(_, waiter)| waiter(Err(refused.clone())));
    }

    /// Turns away the writers that wait, as their leadership is over.
    pub(super) fn turn_away(&self) {
        let state = self.state();
        self.end(state, &Refused::Deposed);
    }

    /// Says what is being waited for; `None` when it is over.
    pub(super) fn set_waiting(&self, who: Who, what: Option<String>) {
        self.state().waiting[who as usize] = what;
    }

    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.state();
        state.failed.clone().or_else(|| state.waiting.iter().flatten().next().cloned())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One op larger than the whole bound goes alone.
    fn fits(&self, bytes: u64, max: u64) -> bool {
        (self.unapplied == 0 || self.unapplied + bytes <= max) && self.allowed(bytes)
    }

    fn allowed(&self, bytes: u64) -> bool {
        self.allowance.is_none_or(|allowance| {
            self.appended + bytes <= allowance.bytes
                && allowance.until.is_none_or(|until| Instant::now() < until)
        })
    }

    fn check(&self) -> Result<(), VolumeError> {
        match &self.failed {
            Some(why) => Err(VolumeError::Failed(why.clone())),
            None if self.stopped => Err(VolumeError::Closed),
            None => Ok(()),
        }
    }
}
