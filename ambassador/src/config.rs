//! What a caller asks of the ambassador: proxy-wide settings and routes.

use std::io;
use std::time::Duration;

use tokio::sync::watch;

use crate::access::AccessLog;
use crate::address::Address;
use crate::proxy_protocol::ProxyVersion;
use crate::route::{Limits, Order, RouteState};

/// Settings of the whole proxy; fixed for its life.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that accept and forward, each with listeners of its own.
    pub threads: usize,
    /// Clients served at once over all routes; more wait in the kernel's listen queue. Lowered
    /// at start to what the limit of open files allows.
    pub connections_max: usize,
    /// Where finished connections are told of.
    pub access_log: AccessLog,
}

impl Default for Settings {
    fn default() -> Settings {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Settings { threads, connections_max: 20_000, access_log: AccessLog::Off }
    }
}

/// One front door and where it leads.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// Unique; what logs, metrics and reloads know the route by.
    pub name: String,
    /// Where clients connect. Port 0 takes a free one (see [`crate::Ambassador::address`]).
    pub listen: Address,
    /// Where they are led.
    pub source: Source,
    /// Bounds on waiting clients.
    pub hold: Hold,
    /// Clients connected through this route at once; more are held. `None`: no bound of its own.
    pub open_max: Option<usize>,
    /// How long one attempt to connect to a target may take.
    pub connect_timeout: Duration,
    /// A connection without a byte either way for this long is reset (after at most twice this
    /// long). `None`, the default: never; a pooled database connection may well idle for days.
    pub idle_timeout: Option<Duration>,
    /// Probing of silent peers.
    pub keepalive: Keepalive,
    /// Clients must begin with a PROXY header (v1 or v2). Only behind a proxy that is trusted.
    pub proxy_in: bool,
    /// Tell the target who the client is.
    pub proxy_out: Option<ProxyVersion>,
    /// Tell of its connections in the access log, if there is one.
    pub access_log: bool,
}

impl RouteConfig {
    /// A route with default bounds.
    pub fn new(name: impl Into<String>, listen: Address, source: Source) -> RouteConfig {
        RouteConfig {
            name: name.into(),
            listen,
            source,
            hold: Hold::default(),
            open_max: None,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: None,
            keepalive: Keepalive::default(),
            proxy_in: false,
            proxy_out: None,
            access_log: true,
        }
    }

    /// The bounds as the pure machine takes them.
    pub(crate) fn limits(&self) -> Limits {
        Limits { held_max: self.hold.max, hold: self.hold.timeout, open_max: self.open_max }
    }

    /// Whether a reload from `self` to `new` changes nothing.
    pub(crate) fn same(&self, new: &RouteConfig) -> bool {
        let source = match (&self.source, &new.source) {
            (Source::Leader(a), Source::Leader(b)) => a.same_channel(b),
            (Source::Upstreams(a), Source::Upstreams(b)) => a == b,
            _ => false,
        };
        let key = |c: &RouteConfig| {
            (c.hold, c.open_max, c.connect_timeout, c.idle_timeout, c.keepalive, c.proxy_in)
        };
        source
            && self.name == new.name
            && self.listen == new.listen
            && (self.proxy_out, self.access_log) == (new.proxy_out, new.access_log)
            && key(self) == key(new)
    }
}

/// Where a route leads.
#[derive(Clone, Debug)]
pub enum Source {
    /// To the leader, as the caller tells. A dropped sender leaves the last word to expire.
    Leader(watch::Receiver<RouteState>),
    /// To whichever of these is alive.
    Upstreams(UpstreamsConfig),
}

/// Static upstreams and how their health is checked (a TCP connect).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamsConfig {
    /// In order of preference.
    pub addresses: Vec<Address>,
    /// How one of the living is picked.
    pub order: Order,
    /// From the end of one check to the next.
    pub check_interval: Duration,
    /// A check that takes longer has failed.
    pub check_timeout: Duration,
    /// Checks passed in a row that make a dead upstream alive.
    pub rise: u32,
    /// Checks failed in a row that make a living upstream dead.
    pub fall: u32,
}

impl UpstreamsConfig {
    /// These addresses, checked every 2 s, down after 3 failures, up after 2 passes.
    pub fn new(addresses: Vec<Address>) -> UpstreamsConfig {
        UpstreamsConfig {
            addresses,
            order: Order::LeastConnections,
            check_interval: Duration::from_secs(2),
            check_timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
        }
    }
}

/// How many clients may wait for a target, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// One more is refused at once. 0 holds nobody.
    pub max: usize,
    /// Counted from the client's arrival, attempts to connect included.
    pub timeout: Duration,
}

impl Default for Hold {
    fn default() -> Hold {
        Hold { max: 1000, timeout: Duration::from_secs(30) }
    }
}

/// TCP keepalive on both sides: finds peers that vanished without a word. Whole seconds.
///
/// With bytes under way to the vanished peer it is the kernel that gives up, after about 15
/// minutes (`net.ipv4.tcp_retries2`). `TCP_USER_TIMEOUT` would be quicker, but also ends clients
/// that live and merely do not read for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub probes: u32,
}

impl Default for Keepalive {
    fn default() -> Keepalive {
        Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 3 }
    }
}

/// Why the ambassador cannot start or take new routes. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Two routes under one name.
    #[error("two routes are named `{0}`: give each a name of its own")]
    NameTwice(String),
    /// Two routes at one address.
    #[error("routes `{0}` and `{1}` both listen on {2}: give each an address of its own")]
    ListenTwice(String, String, Address),
    /// A route without a target, or a number that makes none reachable.
    #[error("route `{route}`: {fault}")]
    Route {
        /// Its name.
        route: String,
        /// What is wrong and what to write in its place.
        fault: &'static str,
    },
    /// The address cannot be listened on.
    #[error(
        "route `{route}` cannot listen on {address}: {source}; free the address or change `listen`"
    )]
    Listen {
        /// The route's name.
        route: String,
        /// Its address.
        address: Address,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It has been shut down.
    #[error("the proxy is ending and takes no routes any more")]
    Ended,
    /// A thread or its event loop cannot be made.
    #[error(
        "the proxy cannot start a thread: {0}; raise the limits of processes and of open files"
    )]
    Thread(#[source] io::Error),
}
