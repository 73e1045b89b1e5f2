//! Transactions that append to lists and read them, on Postgres: a list's order tells the order of
//! those who appended to it, so that a history of them shows cycles ([`crate::judge::appends`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;

use super::client::{ANSWER_TIMEOUT, connect_postgres, postgres_server};
use super::history::{History, Outcome, ServerId, Way};
use crate::live::{PATIENCE, until};

/// How many lists are in use at a time. Few, so that transactions meet.
const KEYS: i64 = 8;
/// A list that is this long gives way to a new one: reading long lists is slow.
const LENGTH_MAX: i64 = 128;

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Appends a value that is never used again.
    Append {
        /// The list.
        key: i64,
        /// The value.
        value: i64,
    },
    /// Reads a list.
    Read {
        /// The list.
        key: i64,
        /// What was there; `None` if no answer came.
        seen: Option<Vec<i64>>,
    },
}

/// One transaction of some steps, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// When its begin was sent.
    pub invoked: Duration,
    /// When its end was known.
    pub ended: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// Who ran it.
    pub server: ServerId,
    /// What it did, in order.
    pub steps: Vec<Step>,
}

/// A running crowd of transactions.
#[derive(Debug)]
pub struct Appenders {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Appenders {
    /// Starts `clients` of them; what they do goes into `history`.
    ///
    /// # Errors
    /// The table cannot be made.
    pub async fn start(
        address: SocketAddr,
        clients: u32,
        seed: u64,
        history: &History,
    ) -> Result<Appenders> {
        let table = "create table if not exists lists (key bigint primary key, list bigint[])";
        connect_postgres(address).await?.batch_execute(table).await?;
        let stopped = Arc::new(AtomicBool::new(false));
        let values = Arc::new(AtomicI64::new(0));
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let appender = Appender {
                address,
                history: history.clone(),
                random: StdRng::seed_from_u64(seed ^ u64::from(client) << 32),
                values: Arc::clone(&values),
            };
            tasks.spawn(appender.run(Arc::clone(&stopped)));
        }
        Ok(Appenders { address, stopped, tasks })
    }

    /// Ends them, and reads every list over a connection of its own.
    ///
    /// # Errors
    /// The service could not be read.
    pub async fn finish(mut self) -> Result<Vec<(i64, Vec<i64>)>> {
        self.stopped.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        until("a reader of the lists", PATIENCE, Duration::from_millis(200), async || {
            let client = connect_postgres(self.address).await.ok()?;
            let rows = client.query("select key, list from lists", &[]).await.ok()?;
            Some(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        })
        .await
    }
}

struct Appender {
    address: SocketAddr,
    history: History,
    random: StdRng,
    /// The next value of all clients; it also decides which lists are in use.
    values: Arc<AtomicI64>,
}

impl Appender {
    async fn run(mut self, stopped: Arc<AtomicBool>) {
        let mut connection = None;
        while !stopped.load(Ordering::Relaxed) {
            let Some((client, server)) = &connection else {
                connection = self.connect().await.ok();
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let mut steps = self.steps();
            let invoked = self.history.now();
            let attempt = tokio::time::timeout(ANSWER_TIMEOUT, transact(client, &mut steps));
            let outcome = attempt.await.unwrap_or(Outcome::Unknown);
            let (ended, server) = (self.history.now(), *server);
            let transaction = Transaction { invoked, ended, outcome, server, steps };
            self.history.record_transaction(transaction);
            if client.is_closed() || outcome == Outcome::Unknown {
                connection = None;
            }
        }
    }

    async fn connect(&self) -> Result<(tokio_postgres::Client, ServerId)> {
        let began = self.history.now();
        tokio::time::timeout(2 * ANSWER_TIMEOUT, async {
            let client = connect_postgres(self.address).await?;
            let name = postgres_server(&client).await?;
            Ok((client, self.history.connected(began, &name, Way::Ambassador)))
        })
        .await
        .context("no connection in time")?
    }

    fn steps(&mut self) -> Vec<Step> {
        let count = self.random.random_range(1..=4);
        (0..count).map(|_| self.step()).collect()
    }

    fn step(&mut self) -> Step {
        let next = self.values.load(Ordering::Relaxed);
        let generation = next / (KEYS * LENGTH_MAX);
        let key = generation * KEYS + self.random.random_range(0..KEYS);
        if self.random.random() {
            Step::Append { key, value: self.values.fetch_add(1, Ordering::Relaxed) }
        } else {
            Step::Read { key, seen: None }
        }
    }
}

/// Runs one transaction; what it read goes into its steps.
async fn transact(client: &tokio_postgres::Client, steps: &mut [Step]) -> Outcome {
    if let Err(error) = work(client, steps).await {
        tracing::debug!(%error, "a transaction is rolled back");
        // Nothing was committed, and without a COMMIT nothing will be.
        let _ = client.batch_execute("rollback").await;
        return Outcome::Failed;
    }
    match client.batch_execute("commit").await {
        Ok(()) => Outcome::Acknowledged,
        Err(error) if is_refusal(&error) => Outcome::Failed,
        Err(error) => {
            tracing::debug!(%error, "a transaction's outcome is unknown");
            Outcome::Unknown
        }
    }
}

/// Whether a COMMIT's error says that the transaction did not happen.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    let refusals = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
    error.code().is_some_and(|code| refusals.contains(code))
}

async fn work(
    client: &tokio_postgres::Client,
    steps: &mut [Step],
) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("begin isolation level serializable").await?;
    for step in steps {
        match step {
            Step::Append { key, value } => {
                let append = "insert into lists values ($1, array[$2::bigint]) \
                     on conflict (key) do update set list = lists.list || excluded.list";
                client.execute(append, &[&*key, &*value]).await?;
            }
            Step::Read { key, seen } => {
                let read = "select list from lists where key = $1";
                let row = client.query_opt(read, &[&*key]).await?;
                *seen = Some(row.map(|row| row.get(0)).unwrap_or_default());
            }
        }
    }
    Ok(())
}
