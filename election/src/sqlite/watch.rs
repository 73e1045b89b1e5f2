//! A watch of the file: a thread that asks it a few dozen times a second whether it changed.
//!
//! SQLite tells nobody of another process's commit; `data_version` is a look at shared memory, so
//! asking often is cheap. The thread also ends leases that are over, so that a watcher hears of a
//! dead leader though nobody else does anything.

use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::database::{Changes, Database};
use crate::coordinator::{CoordinatorError, Event, Result, Revision, Watch};

const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Leases are looked at this often though nothing changed: `Instant` stands still while the machine
/// is suspended, their clock does not.
const LEASES_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// Events on their way to a slow reader; then the thread waits.
const EVENTS_QUEUED: usize = 256;

/// A running watch of everything below a root.
pub(super) struct SqliteWatch {
    events: Receiver<Event>,
    broken: Option<Event>,
}

impl SqliteWatch {
    /// Begins after `after`.
    pub(super) fn begin(database: Database, root: String, after: Revision) -> Result<SqliteWatch> {
        let (sender, events) = mpsc::channel(EVENTS_QUEUED);
        let poll = Poll { database, root, known: after, leases_due: Instant::now(), version: None };
        thread::Builder::new()
            .name("coordinator-watch".to_owned())
            .spawn(move || poll.run(&sender))
            .map_err(|error| {
                CoordinatorError::Unreachable(format!("no thread to watch: {error}"))
            })?;
        Ok(SqliteWatch { events, broken: None })
    }
}

#[async_trait]
impl Watch for SqliteWatch {
    async fn next(&mut self) -> Event {
        if let Some(broken) = &self.broken {
            return broken.clone();
        }
        let event = self.events.recv().await;
        let event = event.unwrap_or_else(|| Event::Broken("the watch's thread died".to_owned()));
        if matches!(event, Event::Broken(_)) {
            self.broken = Some(event.clone());
        }
        event
    }
}

struct Poll {
    database: Database,
    root: String,
    known: Revision,
    /// When to look at the leases again.
    leases_due: Instant,
    /// The file's version at the last look; `None` looks whatever it is.
    version: Option<i64>,
}

impl Poll {
    /// Until the reader is gone or the watch breaks.
    fn run(mut self, sender: &Sender<Event>) {
        while !sender.is_closed() {
            let events = match self.look() {
                Ok(Changes::Since(events, known)) => {
                    self.known = known;
                    events
                }
                Ok(Changes::Forgotten) => {
                    let cause = format!("what came after revision {} is forgotten", self.known.0);
                    vec![Event::Broken(cause)]
                }
                Err(error) => vec![Event::Broken(error.to_string())],
            };
            for event in events {
                let last = matches!(event, Event::Broken(_));
                if sender.blocking_send(event).is_err() || last {
                    return;
                }
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn look(&mut self) -> Result<Changes> {
        let version = self.database.version()?;
        let now = Instant::now();
        if self.version == Some(version) && now < self.leases_due {
            return Ok(Changes::Since(Vec::new(), self.known));
        }
        let left = self.database.expire()?.unwrap_or(LEASES_LOOKED_AT_EVERY);
        self.leases_due = now + left.min(LEASES_LOOKED_AT_EVERY);
        // The version from before the changes are read: what comes between is seen again, not
        // missed.
        self.version = Some(version);
        self.database.changes(&self.root, self.known)
    }
}
