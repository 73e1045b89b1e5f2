//! Which member of the cluster is asked: one at a time, the next one when it does not answer.
//!
//! A client over several endpoints would go on handing requests to a member that takes packets
//! and says nothing. Here each member has a client of its own, so giving up on one is certain.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::fault::explain;
use crate::coordinator::{CoordinatorError, Result};

/// The members, and whose turn it is.
pub(super) struct Members {
    uris: Vec<String>,
    options: ConnectOptions,
    patience: Duration,
    /// Counts up for ever; the member is its remainder. A call that failed in turn n ends turn n
    /// and no later one, so that many calls failing at once pass on one turn.
    turn: AtomicUsize,
    /// The client that was made for a turn. A new turn has a new one, even at the same member:
    /// whatever was wrong with the old connection or token goes with it.
    client: Mutex<Option<(usize, Client)>>,
}

impl Members {
    /// The members at `uris`. No call takes longer than `patience`.
    pub(super) fn new(uris: Vec<String>, options: ConnectOptions, patience: Duration) -> Members {
        let turn = AtomicUsize::new(rand::random_range(0..uris.len().max(1)));
        Members { uris, options, patience, turn, client: Mutex::new(None) }
    }

    /// A call that must not happen twice: asked of one member, once.
    pub(super) async fn once<T, F>(&self, call: impl FnOnce(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.ask(Instant::now() + self.patience, call).await
    }

    /// A call that may happen twice: a member that fails at once is no reason to give up while
    /// there are others and time.
    pub(super) async fn repeatable<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let deadline = Instant::now() + self.patience;
        let mut asked = 1;
        loop {
            match self.ask(deadline, &call).await {
                Err(CoordinatorError::Unreachable(_))
                    if asked < self.uris.len() && Instant::now() < deadline =>
                {
                    asked += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn ask<T, F>(&self, deadline: Instant, call: impl FnOnce(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut asking = Asking::begin(self);
        let turn = asking.turn;
        let answer = timeout_at(deadline, async {
            let client = self.client(turn).await?;
            call(client).await
        })
        .await;
        asking.answered = true;
        let cause = match answer {
            Ok(Err(CoordinatorError::Unreachable(cause))) => cause,
            Ok(answer) => return answer,
            Err(_) => format!("no answer within {:?}", self.patience),
        };
        self.end(turn);
        Err(CoordinatorError::Unreachable(format!("{}: {cause}", self.member(turn))))
    }

    fn member(&self, turn: usize) -> &str {
        &self.uris[turn % self.uris.len()]
    }

    /// Ends `turn`, if it is not over already.
    fn end(&self, turn: usize) {
        let next = turn.wrapping_add(1);
        if self.turn.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let (member, next) = (self.member(turn), self.member(next));
            tracing::debug!(member, next, "this etcd member does not answer: on to the next");
        }
    }

    /// The client of `turn`. Making one contacts the member only where there is a login.
    async fn client(&self, turn: usize) -> Result<Client> {
        let mut kept = self.client.lock().await;
        if let Some((made_for, client)) = &*kept
            && *made_for == turn
        {
            return Ok(client.clone());
        }
        // The wait for the lock was a wait for another call's attempt at this very member.
        if self.turn.load(Ordering::Relaxed) != turn {
            return Err(CoordinatorError::Unreachable(
                "given up while we waited for it".to_owned(),
            ));
        }
        let member = [self.member(turn)];
        let client = Client::connect(member, Some(self.options.clone())).await.map_err(explain)?;
        *kept = Some((turn, client.clone()));
        Ok(client)
    }
}

/// A call that waits for its answer. A caller less patient than we are drops it unanswered; if it
/// waited for long, that is as good a reason to go on to the next member as our own deadline.
struct Asking<'a> {
    members: &'a Members,
    turn: usize,
    begun: Instant,
    answered: bool,
}

impl Asking<'_> {
    fn begin(members: &Members) -> Asking<'_> {
        let turn = members.turn.load(Ordering::Relaxed);
        Asking { members, turn, begun: Instant::now(), answered: false }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.answered && self.begun.elapsed() >= self.members.patience / 2 {
            self.members.end(self.turn);
        }
    }
}
