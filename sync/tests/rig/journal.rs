//! A journal in memory, with a slow applier, whose every step a test can hold.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mainstay_sync::image::Image;
use mainstay_sync::journal::{Journal, Refused, Waiter};
use mainstay_sync::op::{Change, Head, Record, Time};
use mainstay_sync::position::{Epoch, Seq};

use super::eventually;
use super::objects::TestObjects;
use super::rows::Rows;

#[derive(Default)]
struct State {
    queue: VecDeque<Record>,
    head: u64,
    committed: u64,
    applied: u64,
    waiting: Vec<(Seq, Waiter)>,
    for_room: Vec<Waiter>,
    hold_commits: bool,
    hold_applies: bool,
    full: bool,
    refuse: Option<Refused>,
    asked_for_commit: Vec<Seq>,
    rows: Rows,
    stopped: bool,
}

/// Called with each seq that the applier reaches.
type Told = Box<dyn Fn(Seq) + Send + Sync>;

pub struct TestJournal {
    state: Mutex<State>,
    wake: Condvar,
    told: Mutex<Vec<Arc<Told>>>,
    objects: Arc<TestObjects>,
}

impl TestJournal {
    pub fn start(objects: Arc<TestObjects>) -> Arc<TestJournal> {
        let journal = Arc::new(TestJournal {
            state: Mutex::default(),
            wake: Condvar::new(),
            told: Mutex::default(),
            objects,
        });
        let running = journal.clone();
        std::thread::spawn(move || while running.step() {});
        journal
    }

    /// Commits, then applies one record. False once stopped.
    fn step(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        while !state.stopped && !state.can_commit() && !state.can_apply() {
            state = self.wake.wait(state).unwrap();
        }
        if state.stopped {
            return false;
        }
        if !state.hold_commits {
            state.committed = state.head;
        }
        let committed = state.committed;
        let all = std::mem::take(&mut state.waiting);
        let (ready, rest): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(seq, _)| seq.0 <= committed);
        state.waiting = rest;
        let next = if state.can_apply() { state.queue.pop_front() } else { None };
        drop(state);
        ready.into_iter().for_each(|(_, waiter)| waiter(Ok(())));
        if let Some(record) = next {
            self.apply(&record);
        }
        true
    }

    fn apply(&self, record: &Record) {
        let seq = record.head.seq;
        // Late enough for reads to come in between, and not always equally late.
        std::thread::sleep(Duration::from_micros(seq.0 % 7 * 50));
        self.objects.apply(record);
        let mut state = self.state.lock().unwrap();
        record.head.changes.iter().for_each(|change| state.rows.apply(change));
        state.applied = seq.0;
        drop(state);
        let told: Vec<_> = self.told.lock().unwrap().clone();
        told.iter().for_each(|told| told(seq));
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.wake.notify_all();
    }

    pub fn hold_commits(&self, hold: bool) {
        self.set(|state| state.hold_commits = hold);
    }

    pub fn hold_applies(&self, hold: bool) {
        self.set(|state| state.hold_applies = hold);
    }

    /// Commits up to `seq` and no further.
    pub fn commit_to(&self, seq: Seq) {
        self.set(|state| {
            state.hold_commits = true;
            state.committed = seq.0;
        });
    }

    /// From now on ops are refused, and so is everybody who waits.
    pub fn refuse(&self, refused: Option<Refused>) {
        let mut waiting = Vec::new();
        self.set(|state| {
            if let Some(refused) = &refused {
                let parked = state.waiting.drain(..).map(|(_, waiter)| waiter);
                waiting.extend(parked.chain(state.for_room.drain(..)));
                state.refuse = Some(refused.clone());
            } else {
                state.refuse = None;
            }
        });
        if let Some(refused) = refused {
            waiting.into_iter().for_each(|waiter: Waiter| waiter(Err(refused.clone())));
        }
    }

    /// Whether there is room for more.
    pub fn set_full(&self, full: bool) {
        let mut waiting = Vec::new();
        self.set(|state| {
            state.full = full;
            if !full {
                waiting = std::mem::take(&mut state.for_room);
            }
        });
        waiting.into_iter().for_each(|waiter| waiter(Ok(())));
    }

    /// How many wait for room.
    pub fn waiting_for_room(&self) -> usize {
        self.state.lock().unwrap().for_room.len()
    }

    /// How many wait for a commit.
    pub fn waiting_for_commit(&self) -> usize {
        self.state.lock().unwrap().waiting.len()
    }

    /// Every seq whose commit was asked for.
    pub fn asked_for_commit(&self) -> Vec<Seq> {
        self.state.lock().unwrap().asked_for_commit.clone()
    }

    pub fn head(&self) -> Seq {
        Seq(self.state.lock().unwrap().head)
    }

    /// Waits until everything is applied.
    pub fn settle(&self) {
        eventually("everything is applied", || {
            let state = self.state.lock().unwrap();
            state.applied == state.head
        });
    }

    /// What a follower has that applied everything so far.
    pub fn image(&self) -> Image {
        self.settle();
        self.state.lock().unwrap().rows.image()
    }

    /// Files without a name that a follower has.
    pub fn orphans(&self) -> usize {
        self.settle();
        self.state.lock().unwrap().rows.orphans()
    }

    pub fn stop(&self) {
        self.set(|state| state.stopped = true);
    }
}

impl State {
    fn can_commit(&self) -> bool {
        let behind = !self.hold_commits && self.committed < self.head;
        behind || self.waiting.iter().any(|(seq, _)| seq.0 <= self.committed)
    }

    fn can_apply(&self) -> bool {
        let next = self.queue.front().map(|record| record.head.seq.0);
        !self.hold_applies && next.is_some_and(|next| next <= self.committed)
    }
}

impl Journal for TestJournal {
    fn append(&self, at: Time, changes: Vec<Change>, payload: Bytes) -> Result<Seq, Refused> {
        let mut state = self.state.lock().unwrap();
        if let Some(refused) = &state.refuse {
            return Err(refused.clone());
        }
        state.head += 1;
        let seq = Seq(state.head);
        let head = Head { epoch: Epoch(1), seq, at, changes };
        assert_eq!(head.payload_length(), payload.len() as u64);
        state.queue.push_back(Record { head, payload });
        drop(state);
        self.wake.notify_all();
        Ok(seq)
    }

    fn ready(&self, _bytes: u64, waiter: Waiter) -> Option<Waiter> {
        let mut state = self.state.lock().unwrap();
        if !state.full {
            return Some(waiter);
        }
        state.for_room.push(waiter);
        None
    }

    fn when_committed(&self, seq: Seq, waiter: Waiter) {
        let mut state = self.state.lock().unwrap();
        state.asked_for_commit.push(seq);
        if let Some(refused) = state.refuse.clone() {
            drop(state);
            return waiter(Err(refused));
        }
        state.waiting.push((seq, waiter));
        drop(state);
        self.wake.notify_all();
    }

    fn applied(&self) -> Seq {
        Seq(self.state.lock().unwrap().applied)
    }

    fn on_applied(&self, told: Box<dyn Fn(Seq) + Send + Sync>) {
        self.told.lock().unwrap().push(Arc::new(told));
    }
}
