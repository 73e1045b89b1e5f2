//! The ambassador beside a replica: there if the configuration has one, also if it gets or loses it
//! while the replica runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_ambassador::{Ambassador, Inherited};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::{Known, Proxy, ProxyError, Reload};
use crate::config::AmbassadorConfig;

/// A task that owns the ambassador, if there is one, and reloads it on SIGHUP.
pub struct Beside {
    running: watch::Receiver<Option<Arc<Ambassador>>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Beside {
    /// Starts what is configured. `known` are services that are observed already.
    ///
    /// # Errors
    /// The ambassador cannot start.
    pub async fn start(
        config: Option<AmbassadorConfig>,
        known: BTreeMap<String, Known>,
        reload: Reload,
    ) -> Result<Beside, ProxyError> {
        // Also without an ambassador: what would end the daemon otherwise must not.
        let hangup = signal(SignalKind::hangup()).map_err(ProxyError::Signals)?;
        let restart = signal(SignalKind::user_defined2()).map_err(ProxyError::Signals)?;
        let proxy = match config {
            Some(config) => Some(Proxy::start(config, known.clone(), Inherited::default()).await?),
            None => None,
        };
        let (tells, running) = watch::channel(proxy.as_ref().map(Proxy::ambassador));
        let (stop, stopped) = oneshot::channel();
        let owner = Owner { proxy, known, reload, tells };
        let task = tokio::spawn(owner.run(hangup, restart, stopped));
        Ok(Beside { running, stop, task })
    }

    /// The running proxy, if there is one, for its numbers.
    #[must_use]
    pub fn running(&self) -> watch::Receiver<Option<Arc<Ambassador>>> {
        self.running.clone()
    }

    /// Ends it in order.
    pub async fn shutdown(self) {
        drop(self.running);
        let _it_ended_by_itself = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the ambassador's task ended badly");
        }
    }
}

struct Owner {
    proxy: Option<Proxy>,
    known: BTreeMap<String, Known>,
    reload: Reload,
    tells: watch::Sender<Option<Arc<Ambassador>>>,
}

impl Owner {
    async fn run(
        mut self,
        mut hangup: Signal,
        mut restart: Signal,
        mut stopped: oneshot::Receiver<()>,
    ) {
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                _ = hangup.recv() => self.take_on().await,
                _ = restart.recv() => tracing::warn!(
                    "SIGUSR2 restarts an ambassador that runs alone; a replica is restarted by \
                     SIGTERM and a new start"
                ),
            }
        }
        self.tells.send_replace(None);
        if let Some(proxy) = self.proxy.take() {
            proxy.shutdown().await;
        }
    }

    async fn take_on(&mut self) {
        tracing::info!("SIGHUP: reading the ambassador's configuration again; all else stays");
        let config = match (self.reload)() {
            Ok(config) => config,
            Err(error) => return tracing::error!(%error, "the configuration stays as it was"),
        };
        let result = match (self.proxy.take(), config) {
            (Some(mut proxy), Some(config)) => {
                let done = proxy.reload(config).await;
                self.proxy = Some(proxy);
                done
            }
            (None, Some(config)) => {
                let started = Proxy::start(config, self.known.clone(), Inherited::default()).await;
                started.map(|proxy| self.proxy = Some(proxy))
            }
            (Some(proxy), None) => {
                self.tells.send_replace(None);
                proxy.shutdown().await;
                Ok(())
            }
            (None, None) => Ok(()),
        };
        if let Err(error) = result {
            tracing::error!(%error, "the ambassador stays as it was");
        }
        self.tells.send_replace(self.proxy.as_ref().map(Proxy::ambassador));
    }
}
