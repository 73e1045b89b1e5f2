//! The one signal that ends the daemon.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether the daemon is asked to stop; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for SIGTERM and SIGINT. A second one changes nothing: an impatient operator has
    /// SIGKILL, and the fencer does the rest.
    pub fn on_signals() -> std::io::Result<Stop> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => tracing::info!("SIGTERM: stopping in order"),
                    _ = interrupt.recv() => tracing::info!("SIGINT: stopping in order"),
                }
                sender.send_replace(true);
            }
        });
        Ok(Stop(receiver))
    }

    /// Whether it was asked already.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is asked. Cancel-safe.
    pub async fn requested(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }
}
