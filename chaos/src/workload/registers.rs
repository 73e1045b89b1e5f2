//! Registers: each has one client that puts 1, 2, 3 … into it, and another that reads it, so that
//! every read says how much of the writer's work it saw ([`crate::judge::registers`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;

use super::client::Client;
use super::history::{History, Outcome, ServerId, Way};
use crate::live::{PATIENCE, Service, until};

/// How many there are.
pub const REGISTERS: u32 = 4;

/// Between two uses of a register: they are there to be judged, not to make work.
const PAUSE: Duration = Duration::from_millis(20);

/// What was done to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// This value was put there. A register's values only rise.
    Put(u64),
    /// This value was found there.
    Found(u64),
}

/// One use of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterUse {
    /// Which one.
    pub register: u32,
    /// What was done.
    pub what: Use,
    /// When it was sent.
    pub invoked: Duration,
    /// When its end was known.
    pub ended: Duration,
    /// How it ended. Reads without an answer are not kept.
    pub outcome: Outcome,
    /// Who answered.
    pub server: ServerId,
}

/// A running crowd of them.
#[derive(Debug)]
pub struct Registers {
    service: Service,
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Registers {
    /// Starts a writer and a reader of each at `address`; what they do goes into `history`.
    #[must_use]
    pub fn start(service: Service, address: SocketAddr, history: &History) -> Registers {
        let stopped = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for register in 0..REGISTERS {
            for writes in [true, false] {
                let user = User { service, address, register, history: history.clone() };
                let stopped = Arc::clone(&stopped);
                tasks.spawn(async move { user.run(writes, &stopped).await });
            }
        }
        Registers { service, address, stopped, tasks }
    }

    /// Ends them, and reads every register over a connection of its own.
    ///
    /// # Errors
    /// The service could not be read.
    pub async fn finish(mut self) -> Result<Vec<(u32, u64)>> {
        self.stopped.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        let step = Duration::from_millis(200);
        until("a reader of the registers", PATIENCE, step, async || {
            let mut client = Client::connect_to(self.service, self.address).await.ok()?;
            let mut values = Vec::new();
            for register in 0..REGISTERS {
                values.push((register, client.get(register).await.ok()?));
            }
            Some(values)
        })
        .await
    }
}

struct User {
    service: Service,
    address: SocketAddr,
    register: u32,
    history: History,
}

impl User {
    async fn run(self, writes: bool, stopped: &AtomicBool) {
        let mut value = 0;
        let mut connection = None;
        while !stopped.load(Ordering::Relaxed) {
            tokio::time::sleep(PAUSE).await;
            let Some((client, server)) = connection.as_mut() else {
                connection = self.connect().await.ok();
                continue;
            };
            let invoked = self.history.now();
            let (what, outcome) = if writes {
                value += 1;
                let result = client.set(self.register, value).await;
                let done = result.is_ok();
                (Use::Put(value), if done { Outcome::Acknowledged } else { Outcome::Unknown })
            } else {
                match client.get(self.register).await {
                    Ok(found) => (Use::Found(found), Outcome::Acknowledged),
                    Err(_) => {
                        connection = None;
                        continue;
                    }
                }
            };
            let (register, ended, server) = (self.register, self.history.now(), *server);
            let used = RegisterUse { register, what, invoked, ended, outcome, server };
            self.history.record_register(used);
            if outcome != Outcome::Acknowledged {
                connection = None;
            }
        }
    }

    async fn connect(&self) -> Result<(Client, ServerId)> {
        let began = self.history.now();
        let mut client = Client::connect_to(self.service, self.address).await?;
        let name = client.server().await?;
        Ok((client, self.history.connected(began, &name, Way::Ambassador)))
    }
}
