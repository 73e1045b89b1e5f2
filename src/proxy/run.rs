//! An ambassador as a process of its own.
//!
//! SIGHUP: takes the configuration on anew. SIGUSR2: starts a successor, which takes the listening
//! sockets over, and ends. SIGTERM and SIGINT: ends; a second one does not wait for clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mainstay_ambassador::Ambassador;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use super::notify::notify;
use super::takeover::{self, Launch, Legacy};
use super::{Proxy, ProxyError, Reload};
use crate::api;
use crate::config::AmbassadorConfig;

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    restart: Signal,
}

enum Asked {
    End,
    Reload,
    Restart,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            restart: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.restart.recv() => Asked::Restart,
        }
    }
}

/// Runs it until it is asked to end. With `successor` it takes over from the process that started
/// it.
///
/// # Errors
/// It could not start.
pub async fn run(
    config: AmbassadorConfig,
    reload: Reload,
    successor: bool,
) -> Result<(), ProxyError> {
    // Before anything that can be asked to end, so that no signal is missed.
    let mut signals = Signals::listen().map_err(ProxyError::Signals)?;
    let launch = Launch::of_this_process().map_err(ProxyError::Signals)?;
    let legacy = match successor {
        true => blocking(takeover::take_over).await.map_err(ProxyError::TakeOver)?,
        false => Legacy::default(),
    };
    let api = open_api(config.api_listen, legacy.api).await?;
    let mut proxy = Proxy::start(config, BTreeMap::new(), legacy.listeners).await?;
    let api = api.map(|listener| Api::start(listener, &proxy)).transpose();
    let api = api.map_err(|error| ProxyError::Api(SocketAddr::from(([0; 4], 0)), error))?;
    if successor && let Err(error) = takeover::accepting() {
        tracing::warn!(%error, "the predecessor is gone already");
    }
    notify("READY=1");
    loop {
        match signals.next().await {
            Asked::End => break,
            Asked::Reload => take_on(&mut proxy, &reload).await,
            Asked::Restart => match succeed(&launch, proxy.ambassador(), api.as_ref()).await {
                Ok(pid) => {
                    tracing::info!(pid, "a successor accepts clients; finishing with ours");
                    notify(&format!("MAINPID={pid}"));
                    break;
                }
                Err(error) => tracing::error!(%error, "no successor; going on"),
            },
        }
    }
    // No numbers any more: what looks at them would keep the proxy.
    drop(api);
    let mut ending = std::pin::pin!(proxy.shutdown());
    loop {
        tokio::select! {
            () = &mut ending => return Ok(()),
            asked = signals.next() => if matches!(asked, Asked::End) {
                tracing::warn!("asked again: not waiting for clients");
                return Ok(());
            },
        }
    }
}

async fn take_on(proxy: &mut Proxy, reload: &Reload) {
    let result = match reload() {
        Ok(Some(config)) => proxy.reload(config).await.map_err(|error| error.to_string()),
        Ok(None) => Err("there is no ambassador in it".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = result {
        tracing::error!(%error, "the configuration stays as it was");
    }
}

/// Brings up a successor, and returns its pid when it accepts clients.
async fn succeed(
    launch: &Launch,
    ambassador: Arc<Ambassador>,
    api: Option<&Api>,
) -> std::io::Result<u32> {
    let listeners = ambassador.listeners()?;
    let api = api.map(|api| api.socket.try_clone()).transpose()?;
    let launch = launch.clone();
    let pid = blocking(move || launch.succeed(listeners, api)).await?;
    ambassador.hand_over();
    Ok(pid)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

/// The API while it answers.
struct Api {
    socket: OwnedFd,
    _task: JoinSet<()>,
}

impl Api {
    fn start(listener: TcpListener, proxy: &Proxy) -> std::io::Result<Api> {
        let socket = listener.as_fd().try_clone_to_owned()?;
        let mut task = JoinSet::new();
        let limits = api::Limits::default();
        let further = proxy.further_metrics();
        task.spawn(api::ambassador::serve(listener, proxy.ambassador(), further, limits));
        Ok(Api { socket, _task: task })
    }
}

/// The API's socket: the predecessor's, if it had one at the same address.
async fn open_api(
    wanted: Option<SocketAddr>,
    inherited: Option<OwnedFd>,
) -> Result<Option<TcpListener>, ProxyError> {
    let Some(wanted) = wanted else { return Ok(None) };
    let failed = |error| ProxyError::Api(wanted, error);
    if let Some(socket) = inherited {
        let listener = TcpListener::from_std(socket.into()).map_err(failed)?;
        if listener.local_addr().is_ok_and(|at| at == wanted) {
            return Ok(Some(listener));
        }
    }
    TcpListener::bind(wanted).await.map(Some).map_err(failed)
}
