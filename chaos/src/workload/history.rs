//! What was written when, and what the service said to it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::appends::Transaction;
use super::registers::RegisterUse;

/// How a write ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The service said that it is done.
    Acknowledged,
    /// The service said that it is not done, and will not be.
    Failed,
    /// The connection broke or time ran out: it may be there or not.
    Unknown,
}

/// One write: client `client`'s `number`th value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Who wrote.
    pub client: u32,
    /// Its count, from 1; never used twice.
    pub number: u64,
    /// When it was sent, since the history's start.
    pub invoked: Duration,
    /// When the answer or the failure came.
    pub ended: Duration,
    /// What came.
    pub outcome: Outcome,
    /// Whose client it was of, if that is known.
    pub server: Option<ServerId>,
    /// How that client got there.
    pub way: Way,
}

/// How a client gets to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the ambassador.
    Ambassador,
    /// At a node's own address: such a client sees what a replica does that nobody should be led
    /// to any more.
    Direct,
}

/// One run of the service's process, from its start to its end, as its clients tell it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct ServerId(pub u32);

/// One connection that came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// When it was asked for.
    pub began: Duration,
    /// When it stood.
    pub ended: Duration,
    /// To whom it led.
    pub server: ServerId,
    /// How.
    pub way: Way,
}

/// All writes so far; clones share it.
#[derive(Clone, Debug)]
pub struct History {
    start: Instant,
    events: Arc<Mutex<Events>>,
}

#[derive(Debug, Default)]
struct Events {
    writes: Vec<Write>,
    acknowledged: usize,
    kills: Vec<Kill>,
    transactions: Vec<Transaction>,
    registers: Vec<RegisterUse>,
    connections: Vec<Connection>,
    servers: Vec<String>,
}

/// A leader's end takes a moment: it may go on answering from when its end begins until it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// When it began.
    pub began: Duration,
    /// When nothing of it answered any more.
    pub over: Duration,
}

impl Default for History {
    fn default() -> History {
        History { start: Instant::now(), events: Arc::default() }
    }
}

impl History {
    /// Time since the start, the clock of everything in here.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Adds a write that has ended.
    pub fn record(&self, write: Write) {
        let mut events = self.lock();
        events.acknowledged += usize::from(write.outcome == Outcome::Acknowledged);
        events.writes.push(write);
    }

    /// Adds a transaction that has ended.
    pub fn record_transaction(&self, transaction: Transaction) {
        self.lock().transactions.push(transaction);
    }

    /// Adds a use of a register that has ended.
    pub fn record_register(&self, used: RegisterUse) {
        self.lock().registers.push(used);
    }

    /// Notes a connection to the server of this name, which stands for one run of its process.
    pub fn connected(&self, began: Duration, name: &str, way: Way) -> ServerId {
        let ended = self.now();
        let mut events = self.lock();
        let known = events.servers.iter().position(|server| server == name);
        let index = known.unwrap_or_else(|| {
            events.servers.push(name.to_owned());
            events.servers.len() - 1
        });
        let server = ServerId(u32::try_from(index).expect("there are few servers"));
        events.connections.push(Connection { began, ended, server, way });
        server
    }

    /// All transactions, in the order of their ends.
    #[must_use]
    pub fn transactions(&self) -> Vec<Transaction> {
        self.lock().transactions.clone()
    }

    /// All uses of registers, in the order of their ends.
    #[must_use]
    pub fn registers(&self) -> Vec<RegisterUse> {
        self.lock().registers.clone()
    }

    /// All connections that came about.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.lock().connections.clone()
    }

    /// The servers' names; a [`ServerId`] is an index of it.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        self.lock().servers.clone()
    }

    /// Takes a leader away by `end`, and notes when: what it had acknowledged alone may be lost.
    pub fn kill<T>(&self, end: impl FnOnce() -> T) -> T {
        let began = self.now();
        let result = end();
        self.killed_since(began);
        result
    }

    /// Notes that a leader whose end began at `began` answers no more.
    pub fn killed_since(&self, began: Duration) {
        let over = self.now();
        self.lock().kills.push(Kill { began, over });
    }

    /// All writes, in the order of their ends.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        self.lock().writes.clone()
    }

    /// When leaders were taken away.
    #[must_use]
    pub fn kills(&self) -> Vec<Kill> {
        self.lock().kills.clone()
    }

    /// How many writes were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.lock().acknowledged
    }

    /// The first acknowledged write that was sent after `then`.
    #[must_use]
    pub fn first_acknowledged_after(&self, then: Duration) -> Option<Write> {
        self.lock()
            .writes
            .iter()
            .filter(|write| write.outcome == Outcome::Acknowledged && write.invoked >= then)
            .min_by_key(|write| write.ended)
            .copied()
    }

    /// The first write acknowledged after `then`, whenever it was sent: a client that waited
    /// through a failover counts too.
    #[must_use]
    pub fn first_end_after(&self, then: Duration) -> Option<Write> {
        self.lock()
            .writes
            .iter()
            .filter(|write| write.outcome == Outcome::Acknowledged && write.ended > then)
            .min_by_key(|write| write.ended)
            .copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
