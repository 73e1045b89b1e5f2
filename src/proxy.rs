//! The ambassador as configured: beside a replica, or a process of its own.
//!
//! [`Proxy`] joins the TCP proxy, which knows nothing of elections, to what its routes need: the
//! coordinator's view of each service that is fronted, the leader's attestation, the ambassador's
//! own key, the access log. [`Beside`] and [`run`] own one each, and take a new configuration on
//! SIGHUP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mainstay_ambassador::{
    AccessLog, Ambassador, Inherited, RouteState, Settings, Source, StartError,
};
use mainstay_election::coordinator::{Coordinator, CoordinatorError};
use mainstay_election::runner::{Observed, observe};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{AmbassadorConfig, ClusterConfig, ConfigError, RouteConfig, RouteTo};

mod access_log;
mod attest;
mod beside;
mod notify;
mod register;
mod routes;
mod run;
mod takeover;
mod translate;

use access_log::{AccessLines, AccessWriter};
pub use beside::Beside;
use register::Registration;
pub use run::run;
pub use takeover::FLAG as TAKE_OVER_FLAG;

/// Reads the configuration again; absent if it has no ambassador any more.
pub type Reload = Arc<dyn Fn() -> Result<Option<AmbassadorConfig>, ConfigError> + Send + Sync>;

/// A service that is observed already, and through what.
pub type Known = (Arc<dyn Coordinator>, watch::Receiver<Observed>);

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
    /// The access log cannot be opened.
    #[error("the access log cannot be opened: {0}; change `ambassador.access_log`")]
    AccessLog(std::io::Error),
    /// The API cannot listen.
    #[error("the API cannot listen at {0}: {1}; change `ambassador.api.listen`")]
    Api(std::net::SocketAddr, std::io::Error),
    /// There is nobody to take over from.
    #[error("cannot take over: {0}; this flag is for a running ambassador's own restart (SIGUSR2)")]
    TakeOver(std::io::Error),
    /// A route follows a leader, but no coordinator is configured.
    #[error("a route follows a leader, but `coordination` was not set at the start: restart")]
    NoCoordinator,
}

/// A running ambassador with what keeps its routes true.
pub struct Proxy {
    ambassador: Arc<Ambassador>,
    cluster: Option<ClusterConfig>,
    config: AmbassadorConfig,
    known: BTreeMap<String, Known>,
    /// The state of each service that a route leads to.
    followed: BTreeMap<String, watch::Receiver<RouteState>>,
    id: String,
    ended: watch::Sender<bool>,
    tasks: JoinSet<()>,
    lines: AccessLines,
    writer: AccessWriter,
}

impl Proxy {
    /// Starts it, on the sockets of a predecessor where there are some. `known` are services that
    /// are observed already.
    ///
    /// # Errors
    /// See [`ProxyError`]; nothing listens then.
    pub async fn start(
        config: AmbassadorConfig,
        known: BTreeMap<String, Known>,
        inherited: Inherited,
    ) -> Result<Proxy, ProxyError> {
        let (lines, writer) = AccessLines::start().map_err(ProxyError::AccessLog)?;
        lines.open(&config.access_log).map_err(ProxyError::AccessLog)?;
        let puts = lines.clone();
        let settings = Settings {
            connections_max: translate::size(config.connections_max),
            access_log: AccessLog::Callback(Arc::new(move |access| puts.put(access.to_json()))),
            ..Settings::default()
        };
        let mut proxy = Proxy {
            ambassador: Arc::new(Ambassador::start(settings, Vec::new())?),
            cluster: config.cluster.clone(),
            config: config.clone(),
            known,
            followed: BTreeMap::new(),
            id: register::id(),
            ended: watch::Sender::new(false),
            tasks: JoinSet::new(),
            lines,
            writer,
        };
        proxy.lead(&config, inherited).await?;
        for route in &config.routes {
            tracing::info!(route = %route.name, listen = %route.listen, "takes clients");
        }
        Ok(proxy)
    }

    /// Takes on another configuration. Connections go on, those of changed routes as they began;
    /// the access log's file is opened anew.
    ///
    /// # Errors
    /// See [`ProxyError`]; every route is as before.
    pub async fn reload(&mut self, config: AmbassadorConfig) -> Result<(), ProxyError> {
        self.lines.open(&config.access_log).map_err(ProxyError::AccessLog)?;
        let later = [
            (
                "coordination, ttl and etcd",
                config.cluster.is_some() && config.cluster != self.cluster,
            ),
            ("max_connections", config.connections_max != self.config.connections_max),
            ("api.listen", config.api_listen != self.config.api_listen),
        ];
        for (what, _) in later.iter().filter(|(_, changed)| *changed) {
            tracing::warn!("{what}: changed, which takes a restart");
        }
        self.lead(&config, Inherited::default()).await?;
        tracing::info!(routes = config.routes.len(), "took on the new configuration");
        self.config = config;
        Ok(())
    }

    /// The running proxy, for its numbers.
    #[must_use]
    pub fn ambassador(&self) -> Arc<Ambassador> {
        Arc::clone(&self.ambassador)
    }

    /// What `/metrics` says beside the ambassador's own.
    fn further_metrics(&self) -> impl Fn() -> String + Clone + Send + 'static {
        let lines = self.lines.clone();
        move || {
            let mut metrics = crate::telemetry::metrics::Metrics::default();
            metrics.counter(
                "mainstay_ambassador_access_log_lost_total",
                "Lines that were dropped.",
                &[],
                lines.lost(),
            );
            metrics.render()
        }
    }

    /// Takes no more clients, lets those who are here finish within the configured time, and cuts
    /// the rest. Dropped in the middle, it cuts them at once.
    pub async fn shutdown(mut self) {
        let drained = self.ambassador.shutdown(self.config.drain_timeout).await;
        tracing::info!(cut = drained.cut, "the ambassador has ended");
        // Only now: a planned hand-over counts those who are still here.
        self.ended.send_replace(true);
        self.followed.clear();
        while self.tasks.join_next().await.is_some() {}
        let Proxy { ambassador, lines, writer, .. } = self;
        // Whoever still looks at its numbers keeps it, and the log with it; else the last lines
        // are waited for.
        let last = Arc::into_inner(ambassador);
        if last.is_some() {
            drop((last, lines));
            let _ = tokio::task::spawn_blocking(move || writer.finish()).await;
        }
    }

    /// Makes the routes those of `config`.
    async fn lead(
        &mut self,
        config: &AmbassadorConfig,
        inherited: Inherited,
    ) -> Result<(), ProxyError> {
        let mut routes = Vec::new();
        let mut begun = Vec::new();
        for route in &config.routes {
            let source = match &route.to {
                RouteTo::Leader(service) => Source::Leader(self.follow(service, &mut begun).await?),
                RouteTo::Upstreams { addresses, first_alive, check } => {
                    let upstreams = translate::upstreams(route, addresses, *first_alive, *check)?;
                    Source::Upstreams(upstreams)
                }
            };
            routes.push(translate::route(config, route, source)?);
        }
        self.ambassador.reload_with(routes, inherited)?;
        for (service, coordinator, ttl) in begun {
            self.register(config, &service, coordinator, ttl);
        }
        // Of a service without a route nothing more is wanted here. What follows it goes on for
        // as long as it has clients, so that they are still cut when its leader changes.
        let wanted: BTreeSet<_> = config.routes.iter().filter_map(service_of).collect();
        self.followed.retain(|service, _| wanted.contains(service.as_str()));
        Ok(())
    }

    /// The state of a service's route, kept from the first time on that it is asked for.
    async fn follow(
        &mut self,
        service: &str,
        begun: &mut Vec<(String, Arc<dyn Coordinator>, std::time::Duration)>,
    ) -> Result<watch::Receiver<RouteState>, ProxyError> {
        if let Some(state) = self.followed.get(service) {
            return Ok(state.clone());
        }
        let cluster = self.cluster.as_ref().ok_or(ProxyError::NoCoordinator)?;
        let ttl = cluster.ttl;
        let (coordinator, observed) = match self.known.get(service) {
            Some(known) => known.clone(),
            None => {
                let coordinator = cluster.connect_for(service).await?;
                let observed = observe(Arc::clone(&coordinator), ttl);
                (coordinator, observed)
            }
        };
        let (sender, state) = watch::channel(RouteState::unknown());
        self.tasks.spawn(routes::keep(service.to_owned(), observed, sender, ttl));
        self.followed.insert(service.to_owned(), state.clone());
        begun.push((service.to_owned(), coordinator, ttl));
        Ok(state)
    }

    /// Shows this ambassador to the service's leader.
    fn register(
        &mut self,
        config: &AmbassadorConfig,
        service: &str,
        coordinator: Arc<dyn Coordinator>,
        ttl: std::time::Duration,
    ) {
        let Some(source) = self.followed.get(service).cloned() else { return };
        let routes = config.routes.iter().filter(|route| service_of(route) == Some(service));
        let listen: Vec<_> = routes.map(|route| route.listen.as_str()).collect();
        let registration = Registration {
            coordinator,
            ambassador: Arc::clone(&self.ambassador),
            source,
            ttl,
            id: self.id.clone(),
            listen: listen.join(", "),
        };
        self.tasks.spawn(registration.keep(self.ended.subscribe()));
    }
}

fn service_of(route: &RouteConfig) -> Option<&str> {
    match &route.to {
        RouteTo::Leader(service) => Some(service),
        RouteTo::Upstreams { .. } => None,
    }
}
