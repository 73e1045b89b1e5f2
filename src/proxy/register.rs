//! An ambassador's own key below a service: that it is there, and by which word of the leader it
//! acts. A planned hand-over waits for it: for the moment from which no client is forwarded any
//! more, and for the last one that was.
//!
//! It changes when the ambassador begins or ends to hold, and while it holds, with the number of
//! clients that are still connected. Not with anything else: every change has all who watch the
//! service read it anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_ambassador::{Ambassador, RouteState, Standing};
use mainstay_election::coordinator::{Coordinator, CoordinatorError, LeaseId, Outcome, Write};
use mainstay_election::values::{self, encode, keys};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How often clients are counted while they leave, and the key changes for them at most.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// A route takes a new word within microseconds; it is looked whether it has, then less often.
const TAKE_FIRST: Duration = Duration::from_millis(1);
/// The lease is kept alive, and a failure is got over, after this part of the ttl.
const KEEP_PARTS: u32 = 3;

/// One ambassador before one service.
pub(super) struct Registration {
    pub coordinator: Arc<dyn Coordinator>,
    pub ambassador: Arc<Ambassador>,
    /// What the service's routes act by.
    pub source: watch::Receiver<RouteState>,
    pub ttl: Duration,
    /// Unique per process.
    pub id: String,
    /// Where clients connect, in words.
    pub listen: String,
}

impl Registration {
    /// Keeps the key true until no route follows the service any more, or `ended` says so; then
    /// it goes.
    pub(super) async fn keep(mut self, mut ended: watch::Receiver<bool>) {
        let mut lease = None;
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => {}
            () = self.renew(&mut lease) => {}
        }
        if let Some(lease) = lease {
            let revoked = timeout(self.ttl, self.coordinator.revoke(lease)).await;
            tracing::debug!(?revoked, "no longer registered");
        }
    }

    async fn renew(&mut self, lease: &mut Option<LeaseId>) {
        let mut said = None;
        let mut silent = false;
        let mut due = Instant::now();
        let mut take = TAKE_FIRST;
        loop {
            self.source.mark_unchanged();
            let standing = self.ambassador.standing(&self.source);
            if standing.routes == 0 {
                return;
            }
            let told = self.tell(&standing, &mut said, lease, &mut due).await;
            match &told {
                Err(CoordinatorError::LeaseGone) => *lease = None,
                // A hand-over will not wait for this one: who reads the log should know.
                Err(error) if !silent => {
                    tracing::warn!(%error, "this ambassador cannot register with the coordinator");
                }
                _ => {}
            }
            silent = told.is_err();
            if silent {
                sleep(self.ttl / KEEP_PARTS / 4).await;
                continue;
            }
            let newest = self.source.borrow().version;
            // A word that a route ignores, being of an older epoch, is never taken.
            let waits = standing.version < newest;
            take = if waits { (take * 2).min(COUNT_EVERY) } else { TAKE_FIRST };
            let pause = match &standing {
                _ if waits => take,
                standing if !standing.forwards && standing.open > 0 => COUNT_EVERY,
                _ => due.saturating_duration_since(Instant::now()),
            };
            tokio::select! {
                () = sleep(pause) => {}
                changed = self.source.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Puts the key if it says something new, and keeps its lease alive.
    async fn tell(
        &self,
        standing: &Standing,
        said: &mut Option<values::Ambassador>,
        lease: &mut Option<LeaseId>,
        due: &mut Instant,
    ) -> Result<(), CoordinatorError> {
        let held = match *lease {
            Some(held) => held,
            None => {
                *said = None;
                *due = Instant::now() + self.ttl / KEEP_PARTS;
                let granted = self.coordinator.grant(self.ttl).await?.id;
                *lease.insert(granted)
            }
        };
        let wanted = self.value(standing);
        if said.as_ref() != Some(&wanted) {
            let put = Write::Put(keys::ambassador(&self.id), encode(&wanted), Some(held));
            match self.coordinator.transact(Vec::new(), vec![put]).await? {
                Outcome::Done(_) => *said = Some(wanted),
                Outcome::Refused => {} // cannot be: nothing was compared
            }
        }
        if *due <= Instant::now() {
            *due = Instant::now() + self.ttl / KEEP_PARTS;
            self.coordinator.keep_alive(held).await?;
        }
        Ok(())
    }

    fn value(&self, standing: &Standing) -> values::Ambassador {
        values::Ambassador {
            id: self.id.clone(),
            listen: self.listen.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            acts_on: standing.version,
            forwards: standing.forwards,
            open: (!standing.forwards).then_some(standing.open as u64),
        }
    }
}

/// An id for this process: where it runs, for people, and a number that no other has.
pub(super) fn id() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let host: String = host.chars().filter(plain).take(40).collect();
    format!("{host}-{:08x}", rand::random::<u32>())
}

#[cfg(test)]
mod tests;
