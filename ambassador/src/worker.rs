//! Threads, each with an event loop of its own, and which of them serves a client.
//!
//! The kernel spreads clients over the threads' listeners by a hash of their addresses, which is
//! even only in the long run: of 50 lasting connections one thread may well get 32, and all of
//! those wait longer. So the thread that accepts passes a client on to one with clearly fewer.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::sleep;

/// How late [`within`] may be.
const TICK: Duration = Duration::from_millis(100);

thread_local! {
    static TICKS: RefCell<Option<Arc<Ticks>>> = const { RefCell::new(None) };
}

/// A thread's clock, which runs only while somebody wants it to.
#[derive(Debug)]
struct Ticks {
    wanted: Notify,
    ticked: watch::Sender<()>,
}

impl Ticks {
    async fn run(&self) {
        loop {
            self.wanted.notified().await;
            sleep(TICK).await;
            self.ticked.send_replace(());
        }
    }
}

/// As `tokio::time::timeout`, up to a tick later, and without a timer of its own: each time that a
/// thread's next timer changes costs a system call and another turn of its event loop, which shows
/// when every connection does it. Only on a [`Worker`]'s thread.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let ticks = TICKS.with_borrow(Clone::clone);
    let late = async {
        let Some(ticks) = ticks else { return sleep(limit).await };
        let began = Instant::now();
        let mut ticked = ticks.ticked.subscribe();
        while began.elapsed() < limit {
            ticks.wanted.notify_one();
            // The sender is in `ticks`.
            let _ = ticked.changed().await;
        }
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = late => None,
    }
}

/// A thread that runs tasks until it is dropped; tasks that are not done then are dropped too,
/// and their sockets closed.
#[derive(Debug)]
pub(crate) struct Worker {
    handle: Handle,
    load: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(crate) fn start(name: String) -> io::Result<Worker> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let ticks = Arc::new(Ticks { wanted: Notify::new(), ticked: watch::Sender::new(()) });
            TICKS.set(Some(Arc::clone(&ticks)));
            runtime.block_on(async {
                tokio::select! {
                    // An error means that the sender was dropped: the same word.
                    _ = stopped => {}
                    () = ticks.run() => {}
                }
            });
            // Not waiting for a name that is still being resolved.
            runtime.shutdown_background();
        })?;
        Ok(Worker { handle, load: Arc::default(), stop: Some(stop), thread: Some(thread) })
    }

    /// Where clients are sent to it.
    pub(crate) fn seat(&self) -> Seat {
        Seat { handle: self.handle.clone(), load: self.load.clone() }
    }

    /// Sockets made while the guard lives belong to this thread's event loop.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a proxy thread panicked");
        }
    }
}

/// A thread as one that serves clients.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    handle: Handle,
    load: Arc<AtomicUsize>,
}

/// A client counted at the thread that serves it, until dropped.
#[derive(Debug)]
pub(crate) struct Seated(Arc<AtomicUsize>);

impl Drop for Seated {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Seat {
    /// Runs `task` for one client there, with what counts it.
    pub(crate) fn spawn<F>(&self, task: impl FnOnce(Seated) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.load.fetch_add(1, Relaxed);
        drop(self.handle.spawn(task(Seated(self.load.clone()))));
    }
}

/// The seat for the next client that `own` has accepted.
///
/// Loads are read without a lock: a stale one sends a client to the second best thread.
pub(crate) fn choose(seats: &[Seat], own: usize) -> usize {
    let load = |seat: &Seat| seat.load.load(Relaxed);
    let least = (0..seats.len()).min_by_key(|n| load(&seats[*n])).unwrap_or(own);
    if passes_on(load(&seats[own]), load(&seats[least])) { least } else { own }
}

/// Passing on costs a wake-up of the other thread, so it must pay: not for one client, nor for a
/// difference that is small beside what both have.
fn passes_on(own: usize, least: usize) -> bool {
    own > least + 1 + least / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_passed_on_only_where_it_pays() {
        for (own, least, on) in
            [(0, 0, false), (1, 0, false), (2, 0, true), (10, 9, false), (30, 20, true)]
        {
            assert_eq!(passes_on(own, least), on, "{own} {least}");
        }
        assert!(!passes_on(1100, 1000) && passes_on(1200, 1000));
    }

    #[test]
    fn what_takes_too_long_is_given_up_and_what_does_not_is_not() {
        let worker = Worker::start("within".into()).expect("a thread");
        let (told, hears) = std::sync::mpsc::channel();
        worker.spawn(async move {
            let never = within(TICK, std::future::pending::<()>()).await;
            let soon = within(Duration::from_secs(3600), async { 7 }).await;
            told.send((never, soon)).expect("it listens");
        });
        let patience = Duration::from_secs(60);
        assert_eq!(hears.recv_timeout(patience).expect("in time"), (None, Some(7)));
    }

    #[test]
    fn lasting_clients_spread_evenly() {
        let workers: Vec<_> =
            (0..3).map(|n| Worker::start(format!("seat-{n}")).expect("a thread")).collect();
        let seats: Vec<_> = workers.iter().map(Worker::seat).collect();
        for _ in 0..60 {
            // All by the same listener, as bad as the hash can be.
            seats[choose(&seats, 0)].spawn(|seated| async move {
                let _seated = seated;
                std::future::pending::<()>().await;
            });
        }
        let loads: Vec<_> = seats.iter().map(|seat| seat.load.load(Relaxed)).collect();
        assert_eq!(loads.iter().sum::<usize>(), 60);
        assert!(loads.iter().all(|load| (16..=25).contains(load)), "{loads:?}");
    }
}
