//! Keeps sight of everything in the coordinator: for the runner, for status, for ambassadors.
//!
//! A change that a watch tells of is only a reason to read. One transaction's events come one by
//! one, and who decides between two of them decides by half a transaction; a read is whole. The
//! contents are a few dozen small keys, so that costs one round trip per change. Because a watch
//! can be silent for being stuck, there is a read every third of a ttl in any case.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::coordinator::{Contents, Coordinator, Event, Revision, Watch};
use crate::machine::Moment;
use crate::runner::boot_now;
use crate::view::View;

/// After a failure the next try comes after this part of the ttl.
const RETRY_PARTS: u32 = 20;
/// A read comes after this part of the ttl although nothing changed.
const POLL_PARTS: u32 = 3;
/// A call that has not ended after this part of the ttl has failed.
const CALL_PARTS: u32 = 3;

/// What was seen last, and when.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Everything, as of one revision; none before the first read that succeeded.
    pub view: Option<Arc<View>>,
    /// When the read that returned `view` was sent, on the boot clock: it was true then or later.
    pub fresh_at: Moment,
    /// Why the newest read failed, if it did.
    pub silence: Option<String>,
    /// The request of [`Looker::look_again`] that this answers.
    answers: u64,
}

impl Observed {
    /// How old the view may be; none if there is none.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.view.as_ref().map(|_| boot_now().since(self.fresh_at))
    }
}

/// Watches a service's contents until every receiver is dropped.
///
/// `ttl` sets the pace: it is never longer out of date than that without [`Observed::age`] saying
/// so. Call it inside a tokio runtime.
pub fn observe(coordinator: Arc<dyn Coordinator>, ttl: Duration) -> watch::Receiver<Observed> {
    Looker::start(coordinator, ttl).observed
}

/// The task behind [`observe`], with a way to ask for a read.
pub(crate) struct Looker {
    pub(crate) observed: watch::Receiver<Observed>,
    asks: watch::Sender<u64>,
}

impl Looker {
    pub(crate) fn start(coordinator: Arc<dyn Coordinator>, ttl: Duration) -> Looker {
        let (asks, asked) = watch::channel(0);
        let (publish, observed) = watch::channel(Observed::default());
        tokio::spawn(Task { coordinator, ttl, asked, publish, watch: None }.run());
        Looker { observed, asks }
    }

    /// Reads again, from now; what was being read is dropped.
    pub(crate) fn look_again(&self) {
        self.asks.send_modify(|ask| *ask += 1);
    }

    /// What was seen last, unless it was read before the last [`Looker::look_again`].
    pub(crate) fn latest(&mut self) -> Option<Observed> {
        let observed = self.observed.borrow_and_update().clone();
        (observed.answers >= *self.asks.borrow()).then_some(observed)
    }
}

struct Task {
    coordinator: Arc<dyn Coordinator>,
    ttl: Duration,
    asked: watch::Receiver<u64>,
    publish: watch::Sender<Observed>,
    watch: Option<Box<dyn Watch>>,
}

impl Task {
    async fn run(mut self) {
        while !self.publish.is_closed() {
            let revision = self.read().await;
            self.wait(revision).await;
        }
    }

    /// One read, begun anew whenever somebody asks; returns what it saw, or none after a failure.
    async fn read(&mut self) -> Option<Revision> {
        let coordinator = Arc::clone(&self.coordinator);
        loop {
            let answers = *self.asked.borrow_and_update();
            let fresh_at = boot_now();
            let contents = tokio::select! {
                contents = timeout(self.ttl / CALL_PARTS, coordinator.read()) => contents,
                Ok(()) = self.asked.changed() => continue,
            };
            let seen = match contents {
                Ok(Ok(contents)) => understand(&contents),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("a read took too long".to_owned()),
            };
            return self.tell(seen, fresh_at, answers);
        }
    }

    fn tell(
        &self,
        seen: Result<Arc<View>, String>,
        fresh_at: Moment,
        answers: u64,
    ) -> Option<Revision> {
        match seen {
            Ok(view) => {
                let revision = view.revision;
                self.publish.send_replace(Observed {
                    view: Some(view),
                    fresh_at,
                    silence: None,
                    answers,
                });
                Some(revision)
            }
            Err(why) => {
                tracing::debug!(%why, "cannot read the coordinator");
                // Not an answer: `answers` stays, and so do the view and its age.
                self.publish.send_modify(|observed| observed.silence = Some(why));
                None
            }
        }
    }

    /// Waits for a reason to read.
    async fn wait(&mut self, revision: Option<Revision>) {
        let Some(seen) = revision else {
            self.watch = None;
            return self.pause().await;
        };
        if self.watch.is_none() {
            let open = timeout(self.ttl / CALL_PARTS, self.coordinator.watch(seen)).await;
            self.watch = open.ok().and_then(Result::ok);
        }
        let Some(watch) = &mut self.watch else {
            return self.pause().await;
        };
        let due = sleep(self.ttl / POLL_PARTS);
        tokio::pin!(due);
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                Ok(()) = self.asked.changed() => return,
                () = self.publish.closed() => return,
                () = &mut due => return,
            };
            match event {
                Event::Put(entry) if entry.modified <= seen => {}
                Event::Deleted(_, at) if at <= seen => {}
                Event::Put(_) | Event::Deleted(..) => return,
                Event::Broken(why) => {
                    tracing::debug!(%why, "the coordinator's watch broke");
                    self.watch = None;
                    // A coordinator whose watches break at once must not be asked as fast.
                    return self.pause().await;
                }
            }
        }
    }

    async fn pause(&mut self) {
        tokio::select! {
            () = sleep(self.ttl / RETRY_PARTS) => {}
            () = self.publish.closed() => {}
        }
    }
}

fn understand(contents: &Contents) -> Result<Arc<View>, String> {
    View::parse(contents).map(Arc::new).map_err(|bad| bad.to_string())
}
