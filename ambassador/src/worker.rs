//! Threads, each with an event loop of its own.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::sync::oneshot;

/// A thread that runs tasks until it is dropped; tasks that are not done then are dropped too,
/// and their sockets closed.
#[derive(Debug)]
pub(crate) struct Worker {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(crate) fn start(name: String) -> io::Result<Worker> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            // An error means that the sender was dropped: the same word.
            let _ = runtime.block_on(stopped);
            // Not waiting for a name that is still being resolved.
            runtime.shutdown_background();
        })?;
        Ok(Worker { handle, stop: Some(stop), thread: Some(thread) })
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
