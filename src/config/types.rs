//! The configuration as the rest of the program takes it: complete, checked, typed.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_election::coordinator::{Coordinator, CoordinatorError};
use mainstay_election::machine::OnQuorumLoss;
use mainstay_election::values::{Durability, MaxLag, NodeName, Tags};
use mainstay_election::{CoordinationAddress, EtcdOptions, connect};

/// All that a replica needs.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// This node.
    pub node: NodeName,
    /// Which service, and who decides who leads it.
    pub cluster: ClusterConfig,
    /// The replica's own directory.
    pub state_dir: PathBuf,
    /// Where the service finds its data.
    pub mount: PathBuf,
    /// The cluster's secret, in text form.
    pub secret: SecretText,
    /// What is proposed to a new cluster.
    pub durability: Durability,
    /// What is proposed to a new cluster.
    pub max_lag: MaxLag,
    /// The machine's watchdog device, if it stands behind the fencer.
    pub watchdog: Option<PathBuf>,
    /// How many replicas shall be voters (sync).
    pub voters: u32,
    /// Copies that make a write safe (sync); none is a majority of the voters.
    pub write_quorum: Option<u32>,
    /// What becomes of writes while there are too few voters (sync).
    pub on_quorum_loss: OnQuorumLoss,
    /// How long a voter may not hear its leader before it would elect another (sync).
    pub suspect_after: Duration,
    /// Where other replicas reach this one.
    pub peer: PeerConfig,
    /// Where status and metrics are served.
    pub api_listen: SocketAddr,
    /// The service.
    pub process: ProcessConfig,
    /// The log's size at most, in bytes.
    pub log_bytes_max: u64,
    /// The quarantine's size at most, in bytes.
    pub quarantine_bytes_max: u64,
    /// Bytes a second that copies and deltas to followers may take together.
    pub bandwidth: Option<u64>,
    /// How often the followers compare their content with this leader's; `None`: only when asked.
    pub verify_every: Option<Duration>,
    /// Bytes a second that a comparison may read.
    pub verify_bandwidth: u64,
    /// What the operator says of this replica.
    pub tags: Tags,
    /// How long clients may take to leave before a planned hand-over stops the service.
    pub drain_timeout: Duration,
    /// An ambassador beside the replica.
    pub ambassador: Option<AmbassadorConfig>,
}

/// Which service, and who decides who leads it: all that watching needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The service's name.
    pub service: String,
    /// Where the coordinator is. May hold a password, which its `Debug` does not show.
    pub coordination: CoordinationAddress,
    /// How etcd is spoken to.
    pub etcd: EtcdOptions,
    /// How long a leader that is not heard still counts as one.
    pub ttl: Duration,
}

impl ClusterConfig {
    /// The coordinator.
    ///
    /// # Errors
    /// As [`connect`] says.
    pub async fn connect(&self) -> Result<Arc<dyn Coordinator>, CoordinatorError> {
        self.connect_for(&self.service).await
    }

    /// The same coordinator, for another service's keys.
    ///
    /// # Errors
    /// As [`connect`] says.
    pub async fn connect_for(
        &self,
        service: &str,
    ) -> Result<Arc<dyn Coordinator>, CoordinatorError> {
        connect(&self.coordination, &self.etcd, service, self.ttl).await
    }
}

/// Where other replicas reach this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Where to listen (UDP).
    pub listen: SocketAddr,
    /// What to tell others, as `host:port`.
    pub advertise: String,
}

/// The service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessConfig {
    /// The program and its arguments; at least one word.
    pub command: Vec<String>,
    /// Fills an empty volume: once in the cluster's life.
    pub init: Option<Vec<String>>,
    /// Whom it runs as; absent is whom the daemon runs as.
    pub user: Option<String>,
    /// Where it starts.
    pub workdir: PathBuf,
    /// Where it answers clients, as `host:port` or `unix:/path`.
    pub address: Option<String>,
    /// When it counts as ready.
    pub ready: ReadyConfig,
    /// Asks it to end, such as `SIGTERM`.
    pub stop_signal: String,
    /// How long it may take to end before it is killed.
    pub stop_grace: Duration,
    /// How often it is started again in place.
    pub restarts: RestartConfig,
}

/// When the service counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyConfig {
    /// How that is found out.
    pub probe: ReadyProbe,
    /// From one question to the next.
    pub interval: Duration,
    /// How long one question may take.
    pub timeout: Duration,
}

/// How it is found out whether the service is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyProbe {
    /// This `host:port` or `unix:/path` connects.
    Tcp(String),
    /// This exits with 0.
    Command(Vec<String>),
    /// It is not: ready is as soon as it runs.
    Started,
}

/// How often the service is started again in place before another node gets its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartConfig {
    /// So often,
    pub max: u32,
    /// in any span of this length.
    pub within: Duration,
}

/// The TCP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmbassadorConfig {
    /// Where leaders are known from; absent if every route has upstreams.
    pub cluster: Option<ClusterConfig>,
    /// Where an ambassador alone shows its numbers.
    pub api_listen: Option<SocketAddr>,
    /// Where finished connections are told of.
    pub access_log: AccessLogConfig,
    /// Connections at once at most, over all routes.
    pub connections_max: u32,
    /// How long open connections may go on at the end.
    pub drain_timeout: Duration,
    /// At least one; the first is the service's own if `ambassador.listen` is given.
    pub routes: Vec<RouteConfig>,
}

/// Where finished connections are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogConfig {
    /// Nowhere.
    Off,
    /// On standard output.
    Stdout,
    /// At the end of this file.
    File(PathBuf),
}

/// The bound on connections that wait for a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldConfig {
    /// In number.
    pub max: u32,
    /// In time.
    pub timeout: Duration,
}

/// How TCP finds out that a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepaliveConfig {
    /// Silence before the first question.
    pub idle: Duration,
    /// From one question to the next.
    pub interval: Duration,
    /// Questions without an answer until it is gone.
    pub probes: u32,
}

/// One place where clients connect, and where they get to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Its name, for status and metrics.
    pub name: String,
    /// `ip:port` or `unix:/path`.
    pub listen: String,
    /// Where clients get to.
    pub to: RouteTo,
    /// The bound on connections that wait.
    pub hold: HoldConfig,
    /// How long one attempt to connect to the service may take.
    pub connect_timeout: Duration,
    /// A connection without a byte for so long is reset.
    pub idle_timeout: Option<Duration>,
    /// How TCP finds out that a peer is gone.
    pub keepalive: KeepaliveConfig,
    /// Connections through this route at once at most; more wait.
    pub connections_max: Option<u32>,
    /// Tell the service each client's address by this version of the PROXY protocol, 1 or 2.
    pub proxy_protocol: Option<u8>,
    /// Clients come through a proxy that speaks the PROXY protocol.
    pub accept_proxy: bool,
    /// Its connections are told of in the access log, if there is one.
    pub access_log: bool,
}

/// Where a route's clients get to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTo {
    /// The leader of this service.
    Leader(String),
    /// One of some fixed addresses.
    Upstreams {
        /// Each as `host:port` or `unix:/path`.
        addresses: Vec<String>,
        /// The first that is alive, rather than the one with the fewest connections.
        first_alive: bool,
        /// How it is known who is alive.
        check: CheckConfig,
    },
}

/// How it is known which upstream is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckConfig {
    /// From one check to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Good checks until it counts as alive.
    pub rise: u32,
    /// Bad checks until it does not.
    pub fall: u32,
}

/// The cluster's secret as text, which nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps a secret; whitespace around it is not part of it.
    #[must_use]
    pub fn new(text: &str) -> SecretText {
        SecretText(text.trim().to_owned())
    }

    /// The secret itself. Not for messages.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(not shown)")
    }
}
