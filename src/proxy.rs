//! The ambassador as configured: beside a replica, or a process of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_ambassador::{
    AccessLog, Ambassador, Hold, Order, ProxyVersion, RouteConfig as Route, RouteState, Settings,
    Source, StartError, UpstreamsConfig,
};
use mainstay_election::coordinator::CoordinatorError;
use mainstay_election::runner::{Observed, observe};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{AmbassadorConfig, ClusterConfig, RouteConfig, RouteTo};
use crate::replica::routes;

/// How long an ending ambassador waits for its clients to finish.
const DRAIN: Duration = Duration::from_secs(5);

/// Why there is no ambassador.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The coordinator's address is unusable.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    /// An address to listen on, or a route, is unusable.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// A configured address cannot be read.
    #[error("ambassador route {route:?}: {why}")]
    Route {
        /// Its name.
        route: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A running ambassador with what keeps its routes true.
pub struct Proxy {
    ambassador: Arc<Ambassador>,
    /// One observer for each service that is fronted.
    watched: BTreeMap<String, watch::Receiver<Observed>>,
    cluster: ClusterConfig,
    routes: BTreeMap<String, watch::Receiver<RouteState>>,
    tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts it. `known` are services that are observed already.
    ///
    /// # Errors
    /// See [`ProxyError`]; nothing listens then.
    pub async fn start(
        config: &AmbassadorConfig,
        cluster: &ClusterConfig,
        known: BTreeMap<String, watch::Receiver<Observed>>,
    ) -> Result<Proxy, ProxyError> {
        let mut proxy = Proxy {
            ambassador: Arc::new(Ambassador::start(settings(config), Vec::new())?),
            watched: known,
            cluster: cluster.clone(),
            routes: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        proxy.reload(config).await?;
        Ok(proxy)
    }

    /// Takes on another configuration. Connections of routes that stay as they are stay too.
    ///
    /// # Errors
    /// See [`ProxyError`]; everything is as before.
    pub async fn reload(&mut self, config: &AmbassadorConfig) -> Result<(), ProxyError> {
        let mut routes = Vec::new();
        for route in &config.routes {
            let source = self.source(route).await?;
            routes.push(translate(config, route, source)?);
        }
        self.ambassador.reload(routes)?;
        Ok(())
    }

    /// The running proxy, for its numbers.
    #[must_use]
    pub fn ambassador(&self) -> Arc<Ambassador> {
        Arc::clone(&self.ambassador)
    }

    /// Takes no more clients, and waits a while for those that are here.
    pub async fn shutdown(self) {
        // Whoever still looks at its numbers keeps it; then it ends with them.
        if let Some(ambassador) = Arc::into_inner(self.ambassador) {
            let drained = ambassador.shutdown(DRAIN).await;
            tracing::info!(cut = drained.cut, "the ambassador has ended");
        }
    }

    async fn source(&mut self, route: &RouteConfig) -> Result<Source, ProxyError> {
        match &route.to {
            RouteTo::Leader(service) => Ok(Source::Leader(self.follow(service).await?)),
            RouteTo::Upstreams { addresses, first_alive, check } => {
                let addresses =
                    addresses.iter().map(|text| address(route, text)).collect::<Result<_, _>>()?;
                Ok(Source::Upstreams(UpstreamsConfig {
                    addresses,
                    order: if *first_alive { Order::FirstAlive } else { Order::LeastConnections },
                    check_interval: check.interval,
                    check_timeout: check.timeout,
                    rise: check.rise,
                    fall: check.fall,
                }))
            }
        }
    }

    /// The state of a service's route, observed from the first time on that it is asked for.
    async fn follow(&mut self, service: &str) -> Result<watch::Receiver<RouteState>, ProxyError> {
        if let Some(state) = self.routes.get(service) {
            return Ok(state.clone());
        }
        let ttl = self.cluster.ttl;
        let observed = match self.watched.get(service) {
            Some(observed) => observed.clone(),
            None => {
                let coordinator = self.cluster.connect_for(service).await?;
                let observed = observe(coordinator, ttl);
                self.watched.insert(service.to_owned(), observed.clone());
                observed
            }
        };
        let (sender, state) = watch::channel(RouteState::unknown());
        self.tasks.spawn(routes::keep(observed, sender, ttl));
        self.routes.insert(service.to_owned(), state.clone());
        Ok(state)
    }
}

fn settings(config: &AmbassadorConfig) -> Settings {
    Settings {
        connections_max: usize::try_from(config.connections_max).unwrap_or(usize::MAX),
        access_log: AccessLog::Off,
        ..Settings::default()
    }
}

fn translate(
    config: &AmbassadorConfig,
    route: &RouteConfig,
    source: Source,
) -> Result<Route, ProxyError> {
    let mut translated = Route::new(route.name.clone(), address(route, &route.listen)?, source);
    translated.hold = Hold {
        max: usize::try_from(config.hold.max).unwrap_or(usize::MAX),
        timeout: config.hold.timeout,
    };
    translated.connect_timeout = config.connect_timeout;
    translated.proxy_in = config.accept_proxy;
    translated.proxy_out = config.proxy_protocol.map(|version| match version {
        1 => ProxyVersion::V1,
        _ => ProxyVersion::V2,
    });
    Ok(translated)
}

fn address(route: &RouteConfig, text: &str) -> Result<mainstay_ambassador::Address, ProxyError> {
    text.parse().map_err(|error: mainstay_ambassador::AddressError| ProxyError::Route {
        route: route.name.clone(),
        why: error.to_string(),
    })
}

/// An ambassador as a process of its own, until SIGTERM or SIGINT.
///
/// # Errors
/// It could not start.
pub async fn run(cluster: ClusterConfig, config: AmbassadorConfig) -> Result<(), ProxyError> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = || Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?));
    let (mut terminate, mut interrupt) = signals().map_err(ProxyError::Signals)?;
    let proxy = Proxy::start(&config, &cluster, BTreeMap::new()).await?;
    for route in &config.routes {
        tracing::info!(route = %route.name, listen = %route.listen, "takes clients");
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    proxy.shutdown().await;
    Ok(())
}
