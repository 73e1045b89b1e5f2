//! Clients that write without pause, through failovers, and remember everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;

use super::client::Client;
use super::history::{History, Outcome, ServerId, Way, Write};
use crate::live::{PATIENCE, Service, until};

/// A running crowd of writers.
#[derive(Debug)]
pub struct Writers {
    /// What they did so far.
    pub history: History,
    service: Service,
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts `clients` writers at a port of loopback.
    ///
    /// # Errors
    /// The service cannot be prepared.
    pub async fn start(service: Service, port: u16, clients: u32) -> Result<Writers> {
        let address = ([127, 0, 0, 1], port).into();
        Writers::start_at(service, address, clients, &History::default()).await
    }

    /// Starts `clients` writers at an address; what they do goes into `history`.
    ///
    /// # Errors
    /// The service cannot be prepared.
    pub async fn start_at(
        service: Service,
        address: SocketAddr,
        clients: u32,
        history: &History,
    ) -> Result<Writers> {
        Client::connect_to(service, address).await?.prepare().await?;
        let mut writers = Writers {
            history: history.clone(),
            service,
            address,
            stopped: Arc::default(),
            tasks: JoinSet::new(),
        };
        for client in 1..=clients {
            writers.add(address, client, Way::Ambassador);
        }
        Ok(writers)
    }

    /// Adds a writer, by a number that no other has, at another address.
    pub fn add(&mut self, address: SocketAddr, client: u32, way: Way) {
        self.add_one(address, client, way, false);
    }

    /// The same, directly and without pauses: when its server is stopped, something is under way.
    pub fn add_busy(&mut self, address: SocketAddr, client: u32) {
        self.add_one(address, client, Way::Direct, true);
    }

    fn add_one(&mut self, address: SocketAddr, client: u32, way: Way, is_busy: bool) {
        let one = Writer {
            is_busy,
            service: self.service,
            address,
            client,
            way,
            history: self.history.clone(),
            stopped: Arc::clone(&self.stopped),
        };
        self.tasks.spawn(one.run());
    }

    /// Waits until `count` more writes were acknowledged.
    ///
    /// # Errors
    /// They were not in time.
    pub async fn advance(&self, count: usize) -> Result<()> {
        let target = self.history.acknowledged() + count;
        let what = format!("{count} more acknowledged writes");
        until(&what, PATIENCE, Duration::from_millis(10), async || {
            (self.history.acknowledged() >= target).then_some(())
        })
        .await
    }

    /// Ends the writers and reads what is there, over a connection of its own.
    ///
    /// # Errors
    /// The service could not be read.
    pub async fn finish(mut self) -> Result<(History, Vec<(u32, u64)>)> {
        self.stopped.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        let present = until("a reader", PATIENCE, Duration::from_millis(200), async || {
            Client::connect_to(self.service, self.address).await.ok()?.read_all().await.ok()
        })
        .await?;
        Ok((self.history, present))
    }
}

struct Writer {
    service: Service,
    address: SocketAddr,
    client: u32,
    way: Way,
    is_busy: bool,
    history: History,
    stopped: Arc<AtomicBool>,
}

impl Writer {
    async fn run(self) {
        let mut number = 0;
        let mut connection = None;
        while !self.stopped.load(Ordering::Relaxed) {
            if self.way == Way::Direct && !self.is_busy {
                self.rest().await;
            }
            let Some((connected, server)) = connection.as_mut() else {
                connection = self.connect().await.ok();
                if connection.is_none() {
                    // Nobody listens at a follower.
                    let pause = if self.way == Way::Direct { 200 } else { 20 };
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                continue;
            };
            number += 1;
            let (client, invoked) = (self.client, self.history.now());
            let result = connected.write(client, number).await;
            let outcome = if result.is_ok() { Outcome::Acknowledged } else { Outcome::Unknown };
            let (ended, server, way) = (self.history.now(), Some(*server), self.way);
            self.history.record(Write { client, number, invoked, ended, outcome, server, way });
            if let Err(error) = result {
                tracing::debug!(client, number, %error, "a write's outcome is unknown");
                connection = None;
            }
        }
    }

    /// A pause by chance, which the end cuts short.
    async fn rest(&self) {
        let mut left = rand::random_range(Duration::ZERO..DIRECT_PAUSE);
        while !left.is_zero() && !self.stopped.load(Ordering::Relaxed) {
            let step = left.min(Duration::from_millis(200));
            tokio::time::sleep(step).await;
            left -= step;
        }
    }

    async fn connect(&self) -> Result<(Client, ServerId)> {
        let began = self.history.now();
        let mut client = Client::connect_to(self.service, self.address).await?;
        let name = client.server().await?;
        Ok((client, self.history.connected(began, &name, self.way)))
    }
}

/// The longest pause of a direct client. They are there to see, not to make work: some of them must
/// still be silent when their server was deposed, and send only then.
const DIRECT_PAUSE: Duration = Duration::from_secs(12);
