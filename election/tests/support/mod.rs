//! What the coordinators' tests share: real etcd processes, and the cases that every backend must
//! pass.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::print_stderr, reason = "skipped tests and running cases are named there")]

pub mod cases;
pub mod etcd;

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use mainstay_election::coordinator::{Contents, Coordinator, Entry, Event, Watch};
use mainstay_election::{CoordinationAddress, EtcdOptions, connect};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take on a machine that is busy with other things.
pub const LONG: Duration = Duration::from_secs(60);

/// A connection whose calls may take long: only what is answered matters, not when.
pub const PATIENT_TTL: Duration = Duration::from_secs(240);

/// A coordinator for `service` at `address`.
pub async fn coordinator(
    address: &str,
    options: &EtcdOptions,
    service: &str,
    ttl: Duration,
) -> Arc<dyn Coordinator> {
    let address: CoordinationAddress = address.parse().expect("an address");
    connect(&address, options, service, ttl).await.expect("connected")
}

/// Asks until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < LONG, "still waiting after {LONG:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The next event, within reason.
pub async fn next(watch: &mut Box<dyn Watch>) -> Event {
    timeout(LONG, watch.next()).await.expect("an event within a minute")
}

/// The entry of `key`, if it is there.
pub fn find<'a>(contents: &'a Contents, key: &str) -> Option<&'a Entry> {
    contents.entries.iter().find(|entry| entry.key == key)
}

/// Runs a test that takes any call without an answer for a failure, and runs it again where that
/// was its failure: etcd itself gives a request up after seven seconds, which a disk that others
/// are writing to may well need. `test` is told which attempt it is.
pub async fn despite_stalls<F: Future<Output = ()>>(name: &str, mut test: impl FnMut(u32) -> F) {
    for attempt in 0.. {
        let Err(panic) = AssertUnwindSafe(test(attempt)).catch_unwind().await else {
            return;
        };
        let text = panic_text(&*panic);
        let stalled = text.contains("Unreachable(") || text.contains("cannot be reached");
        if !stalled || attempt == 3 {
            resume_unwind(panic);
        }
        eprintln!("{name}: once more, since the store did not answer");
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default()
}
