//! Threads that live on a host of a world.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::world::{Host, World};

/// Runs `work` with the world on threads that live on `host`: what it connects to is what that host
/// can reach, and what it starts without a place of its own runs there. The world ends with it, also
/// when a signal or a panic ends it.
///
/// # Errors
/// What `work` says, or that a signal came.
pub fn on_host<T: Send>(
    host: &str,
    world: World,
    work: impl AsyncFnOnce(World) -> Result<T> + Send,
) -> Result<T> {
    let host = Arc::clone(world.host(host)?);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            host.netns().enter()?;
            let entered: Arc<Host> = Arc::clone(&host);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .on_thread_start(move || {
                    entered.netns().enter().expect("the namespace lives as long as the world");
                })
                .enable_all()
                .build()?;
            let result = runtime.block_on(async {
                tokio::select! {
                    result = work(world) => result,
                    name = end_asked() => match name {
                        Ok(name) => bail!("interrupted by {name}"),
                        Err(error) => Err(error),
                    },
                }
            });
            runtime.shutdown_timeout(std::time::Duration::from_secs(5));
            result
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Returns when somebody wants this process to end.
async fn end_asked() -> Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}
