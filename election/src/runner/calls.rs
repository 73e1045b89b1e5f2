//! The machine's questions to the world, each a future that ends in an event.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use tokio::time::{sleep, timeout};

use crate::coordinator::{Coordinator, CoordinatorError, LeaseId, Outcome};
use crate::machine::{Effect, Event, Fate};
use crate::runner::{Vows, boot_now};
use crate::values::UnixMs;

/// A call that has not ended after this part of the ttl has no outcome. Coordinators end theirs
/// within a quarter; this is for one that does not keep to it.
const CALL_PARTS: u32 = 3;
/// A promise that failed is made again after this part of the ttl.
const RETRY_PARTS: u32 = 20;

pub(super) type Call = BoxFuture<'static, Event>;

/// Whom to ask.
pub(super) struct Caller {
    pub(super) coordinator: Arc<dyn Coordinator>,
    pub(super) vows: Arc<dyn Vows>,
    pub(super) ttl: Duration,
}

impl Caller {
    /// The call for an effect, if it is one that has an answer.
    ///
    /// `sent` is read before the call exists: the coordinator cannot have begun to count earlier.
    pub(super) fn call(&self, effect: Effect) -> Option<Call> {
        let coordinator = Arc::clone(&self.coordinator);
        let limit = self.ttl / CALL_PARTS;
        let sent = boot_now();
        Some(match effect {
            Effect::Grant(ttl) => Box::pin(async move {
                match answered(timeout(limit, coordinator.grant(ttl)).await) {
                    Ok(grant) => Event::Granted { sent, grant },
                    Err(error) => unanswered(error),
                }
            }),
            Effect::KeepAlive(lease) => Box::pin(async move {
                match answered(timeout(limit, coordinator.keep_alive(lease)).await) {
                    Ok(ttl) => Event::KeptAlive { sent, lease, ttl },
                    Err(CoordinatorError::LeaseGone) => lease_gone(lease),
                    Err(error) => unanswered(error),
                }
            }),
            Effect::Transact(ticket, compares, writes) => Box::pin(async move {
                let call = timeout(limit, coordinator.transact(compares, writes));
                let fate = match answered(call.await) {
                    Ok(Outcome::Done(_)) => Fate::Done,
                    Ok(Outcome::Refused) => Fate::Refused,
                    Err(CoordinatorError::LeaseGone) => Fate::LeaseGone,
                    Err(error) => {
                        tracing::warn!(%error, "a transaction's outcome is not known");
                        Fate::Unknown(error.to_string())
                    }
                };
                Event::Transacted(ticket, fate)
            }),
            Effect::Promise(through) => {
                let (vows, pause) = (Arc::clone(&self.vows), self.ttl / RETRY_PARTS);
                Box::pin(async move {
                    loop {
                        match vows.promise(through).await {
                            Ok(sealed) => return sealed.promised(through),
                            Err(error) => {
                                tracing::warn!(%through, %error, "cannot make a promise");
                                sleep(pause).await;
                            }
                        }
                    }
                })
            }
            Effect::Gate(_) | Effect::Terms(_) | Effect::Direct(_) | Effect::Read => return None,
        })
    }
}

fn answered<T>(
    call: Result<Result<T, CoordinatorError>, tokio::time::error::Elapsed>,
) -> Result<T, CoordinatorError> {
    call.unwrap_or_else(|_| Err(CoordinatorError::Unreachable("no answer in time".to_owned())))
}

fn unanswered(error: CoordinatorError) -> Event {
    tracing::warn!(%error, "the lease could not be confirmed");
    Event::LeaseUnanswered(error.to_string())
}

fn lease_gone(lease: LeaseId) -> Event {
    tracing::warn!(lease = lease.0, "the coordinator ended the lease");
    Event::LeaseGone(lease)
}

/// Now, for people.
pub(super) fn wall_now() -> UnixMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
