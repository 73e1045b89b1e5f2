//! Clients that write without pause, through failovers, and remember everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;

use super::client::Client;
use super::history::{History, Outcome, ServerId, Write};
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
        Writers::start_at(service, address, clients, History::default()).await
    }

    /// Starts `clients` writers at an address; what they do goes into `history`.
    ///
    /// # Errors
    /// The service cannot be prepared.
    pub async fn start_at(
        service: Service,
        address: SocketAddr,
        clients: u32,
        history: History,
    ) -> Result<Writers> {
        Client::connect_to(service, address).await?.prepare().await?;
        let mut writers =
            Writers { history, service, address, stopped: Arc::default(), tasks: JoinSet::new() };
        for client in 1..=clients {
            let history = writers.history.clone();
            let stopped = Arc::clone(&writers.stopped);
            writers.tasks.spawn(write_on(service, address, client, history, stopped));
        }
        Ok(writers)
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

async fn write_on(
    service: Service,
    address: SocketAddr,
    client: u32,
    history: History,
    stopped: Arc<AtomicBool>,
) {
    let mut number = 0;
    let mut connection = None;
    while !stopped.load(Ordering::Relaxed) {
        let Some((connected, server)) = connection.as_mut() else {
            connection = connect(service, address, &history).await.ok();
            if connection.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            continue;
        };
        number += 1;
        let invoked = history.now();
        let result = connected.write(client, number).await;
        let outcome = if result.is_ok() { Outcome::Acknowledged } else { Outcome::Unknown };
        let (ended, server) = (history.now(), Some(*server));
        history.record(Write { client, number, invoked, ended, outcome, server });
        if let Err(error) = result {
            tracing::debug!(client, number, %error, "a write's outcome is unknown");
            connection = None;
        }
    }
}

async fn connect(
    service: Service,
    address: SocketAddr,
    history: &History,
) -> Result<(Client, ServerId)> {
    let began = history.now();
    let mut client = Client::connect_to(service, address).await?;
    let name = client.server().await?;
    Ok((client, history.connected(began, &name)))
}
