//! Every key of the configuration, once: the file, the environment, `config schema` and the
//! shipped example are all held to this table.

use super::kind::Kind;

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it stands, with dots; `*` is an index into an array of tables.
    pub path: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What holds when it is not given, in the text form that the environment takes.
    pub default: Option<&'static str>,
    /// What it does, for an operator.
    pub help: &'static str,
    /// It is taken from the environment only, and never shown.
    pub secret: bool,
}

impl Key {
    /// The environment variable that overrides it: `MAINSTAY_PEER__LISTEN`.
    #[must_use]
    pub fn env(&self) -> String {
        env_name(self.path)
    }
}

/// What every environment variable of ours begins with.
pub const ENV_PREFIX: &str = "MAINSTAY_";

/// Variables of ours that are no configuration keys.
pub const ENV_RESERVED: [&str; 2] = ["MAINSTAY_CONFIG", "MAINSTAY_LOG"];

/// `peer.listen` as `MAINSTAY_PEER__LISTEN`.
#[must_use]
pub fn env_name(path: &str) -> String {
    format!("{ENV_PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// The key at `path`, in which indexes stand as they are given (`ambassador.route.0.listen`).
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    let general = generalise(path);
    SCHEMA.iter().find(|key| key.path == general)
}

/// Whether keys stand below `path`.
#[must_use]
pub fn is_table(path: &str) -> bool {
    let prefix = format!("{}.", generalise(path));
    SCHEMA.iter().any(|key| key.path.starts_with(&prefix))
}

fn generalise(path: &str) -> String {
    let parts = path.split('.').map(|part| match part.parse::<usize>() {
        Ok(_) => "*",
        Err(_) => part,
    });
    parts.collect::<Vec<_>>().join(".")
}

const fn key(
    path: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    help: &'static str,
) -> Key {
    Key { path, kind, default, help, secret: false }
}

const fn secret(path: &'static str, help: &'static str) -> Key {
    Key { path, kind: Kind::Text, default: None, help, secret: true }
}

const SIGNALS: Kind = Kind::Choice(&["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1"]);
const COUNT: Kind = Kind::Number { least: 1, most: 1_000_000 };
const HELD: Kind = Kind::Number { least: 0, most: 1_000_000 };
const HOLD: Kind = Kind::Duration { least_ms: 100, most_ms: 3_600_000 };
const CONNECT: Kind = Kind::Duration { least_ms: 10, most_ms: 600_000 };
const IDLE: Kind = Kind::Duration { least_ms: 1_000, most_ms: 2_592_000_000 };
const PROBE: Kind = Kind::Duration { least_ms: 1_000, most_ms: 32_767_000 };
const PROBES: Kind = Kind::Number { least: 1, most: 127 };
const PROXY: Kind = Kind::Choice(&["off", "v1", "v2"]);

/// The table.
pub const SCHEMA: &[Key] = &[
    key("service", Kind::Name, None, "The service's name: the same on all of its nodes."),
    key("node", Kind::Name, None, "This node's name: another on each node, and lasting."),
    key("state_dir", Kind::Path, None, "Where this replica keeps its log and objects. Local disk."),
    key("mount", Kind::Path, None, "Where the service finds its data: an empty directory."),
    key(
        "coordination",
        Kind::Coordination,
        None,
        "The store through which replicas agree who leads.",
    ),
    key(
        "secret_file",
        Kind::Path,
        None,
        "A file with the cluster's secret, as `secret new` makes.",
    ),
    secret("secret", "The cluster's secret itself; wins over secret_file."),
    key(
        "durability",
        Kind::Choice(&["async", "sync"]),
        Some("sync"),
        "What an acknowledged fsync is worth: it is on a write quorum's disks, or on the leader's.",
    ),
    key(
        "voters",
        Kind::Number { least: 1, most: 15 },
        Some("3"),
        "In sync: so many replicas' copies and ballots count; others follow until one is lost.",
    ),
    key(
        "write_quorum",
        Kind::Number { least: 2, most: 15 },
        None,
        "In sync: copies that make a write safe, the leader's included. A majority of the voters.",
    ),
    key(
        "on_quorum_loss",
        Kind::Choice(&["wait", "degrade"]),
        Some("wait"),
        "In sync, with too few voters for a ttl: writes wait, or fewer copies are kept for a while.",
    ),
    key(
        "suspect_after",
        Kind::Duration { least_ms: 200, most_ms: 60_000 },
        Some("1s"),
        "In sync: a voter that does not hear its leader for so long would elect another.",
    ),
    key(
        "ttl",
        Kind::Duration { least_ms: 1_000, most_ms: 300_000 },
        Some("5s"),
        "How long a leader that is not heard still counts as one.",
    ),
    key(
        "max_lag.bytes",
        Kind::Size,
        Some("64MiB"),
        "In async: what a failover may lose at most. Writes are slowed for it; 0: no bound.",
    ),
    key(
        "max_lag.time",
        Kind::Duration { least_ms: 0, most_ms: 86_400_000 },
        Some("10s"),
        "In async: the same, as the age of what may be lost. 0: no bound.",
    ),
    key("etcd.ca", Kind::Path, None, "The CA that signed etcd's certificates, for etcds://."),
    key("etcd.cert", Kind::Path, None, "Our certificate towards etcd."),
    key("etcd.key", Kind::Path, None, "The key of etcd.cert."),
    key("etcd.user", Kind::Text, None, "Our user in etcd."),
    key("etcd.password_file", Kind::Path, None, "A file with the password of etcd.user."),
    key(
        "peer.listen",
        Kind::Socket,
        Some("0.0.0.0:7400"),
        "Where other replicas reach this one (UDP).",
    ),
    key(
        "peer.advertise",
        Kind::HostPort,
        None,
        "The address that others use for it; may be left out if peer.listen names one.",
    ),
    key("api.listen", Kind::Socket, Some("127.0.0.1:7480"), "Where status and metrics are served."),
    key("process.command", Kind::Words, None, "The service. Or what stands after `--`."),
    key("process.init", Kind::Words, None, "Fills an empty volume: once in the cluster's life."),
    key("process.user", Kind::Text, None, "Whom the service runs as: a name, or UID or UID:GID."),
    key("process.workdir", Kind::Path, Some("/"), "Where the service starts."),
    key(
        "process.address",
        Kind::Service,
        None,
        "Where the service answers clients. A Unix socket is for ambassadors of this machine.",
    ),
    key(
        "process.ready.tcp",
        Kind::Bool,
        None,
        "The service is ready when process.address connects; what holds if nothing is said.",
    ),
    key("process.ready.command", Kind::Words, None, "The service is ready when this exits with 0."),
    key(
        "process.ready.interval",
        Kind::Duration { least_ms: 10, most_ms: 60_000 },
        Some("200ms"),
        "From one question whether it is ready to the next.",
    ),
    key(
        "process.ready.timeout",
        Kind::Duration { least_ms: 10, most_ms: 600_000 },
        Some("2s"),
        "How long one such question may take.",
    ),
    key("process.stop_signal", SIGNALS, Some("SIGTERM"), "Asks the service to end."),
    key(
        "process.stop_grace",
        Kind::Duration { least_ms: 0, most_ms: 86_400_000 },
        Some("30s"),
        "How long it may take to end before it is killed.",
    ),
    key(
        "process.restarts.max",
        Kind::Number { least: 0, most: 1_000 },
        Some("3"),
        "How often the service is started again in place before another node gets its turn.",
    ),
    key(
        "process.restarts.within",
        Kind::Duration { least_ms: 1_000, most_ms: 86_400_000 },
        Some("60s"),
        "The span in which process.restarts.max counts.",
    ),
    key("log.max", Kind::Size, Some("4GiB"), "The log's size at most; beyond it writes wait."),
    key("quarantine.max", Kind::Size, Some("10GiB"), "The size of what is kept of lost content."),
    key(
        "sync.bandwidth",
        Kind::Size,
        None,
        "Bytes a second that copies and deltas to followers may take together; none: no limit.",
    ),
    key(
        "sync.verify_every",
        Kind::Duration { least_ms: 0, most_ms: 366 * 24 * 3_600_000 },
        Some("168h"),
        "How often followers compare their content with the leader's; 0s: only when asked.",
    ),
    key(
        "sync.verify_bandwidth",
        Kind::Size,
        Some("32MiB"),
        "Bytes a second that a comparison may read.",
    ),
    key(
        "watchdog",
        Kind::Path,
        None,
        "The machine's watchdog, /dev/watchdog: resets it if a deposed leader cannot be killed.",
    ),
    key("tags.nofailover", Kind::Bool, Some("false"), "This node never takes over."),
    key(
        "tags.priority",
        Kind::Number { least: -1_000, most: 1_000 },
        Some("0"),
        "Among equals, the higher takes over.",
    ),
    key(
        "switchover.drain_timeout",
        Kind::Duration { least_ms: 0, most_ms: 3_600_000 },
        Some("5s"),
        "How long clients may take to leave before a switchover stops the service.",
    ),
    key("ambassador.listen", Kind::Listen, None, "Where clients reach this service's leader."),
    key(
        "ambassador.api.listen",
        Kind::Socket,
        None,
        "Where an ambassador alone shows its numbers; beside a replica api.listen does.",
    ),
    key(
        "ambassador.access_log",
        Kind::Log,
        Some("off"),
        "A line of JSON per finished connection. SIGHUP opens the file anew.",
    ),
    key(
        "ambassador.max_connections",
        COUNT,
        Some("10000"),
        "Connections at once, over all routes.",
    ),
    key(
        "ambassador.drain_timeout",
        Kind::Duration { least_ms: 0, most_ms: 86_400_000 },
        Some("5s"),
        "How long open connections may go on when the ambassador ends.",
    ),
    key("ambassador.hold.max", HELD, Some("1000"), "Connections that wait for a leader at most."),
    key(
        "ambassador.hold.timeout",
        HOLD,
        Some("30s"),
        "How long a connection waits for a leader, connecting included.",
    ),
    key(
        "ambassador.connect_timeout",
        CONNECT,
        Some("5s"),
        "How long one attempt to connect to the service may take.",
    ),
    key(
        "ambassador.idle_timeout",
        IDLE,
        None,
        "A connection without a byte for so long is reset; never if this is not given.",
    ),
    key(
        "ambassador.keepalive.idle",
        PROBE,
        Some("60s"),
        "Silence after which TCP asks whether a peer still lives. Whole seconds.",
    ),
    key("ambassador.keepalive.interval", PROBE, Some("10s"), "From one such question to the next."),
    key(
        "ambassador.keepalive.probes",
        PROBES,
        Some("3"),
        "So many without an answer end the connection.",
    ),
    key(
        "ambassador.proxy_protocol",
        PROXY,
        Some("off"),
        "Tell the service each client's address by this version of the PROXY protocol.",
    ),
    key(
        "ambassador.accept_proxy",
        Kind::Bool,
        Some("false"),
        "Clients come through a proxy that speaks the PROXY protocol.",
    ),
    key("ambassador.route.*.name", Kind::Name, None, "A further route's name."),
    key("ambassador.route.*.listen", Kind::Listen, None, "Where clients reach it."),
    key("ambassador.route.*.service", Kind::Name, None, "The service whose leader it follows."),
    key(
        "ambassador.route.*.upstreams",
        Kind::Words,
        None,
        "Instead of a service: fixed addresses, such as etcd's members.",
    ),
    key(
        "ambassador.route.*.order",
        Kind::Choice(&["least-connections", "first-alive"]),
        Some("least-connections"),
        "Which of the upstreams that are alive is taken.",
    ),
    key(
        "ambassador.route.*.check.interval",
        Kind::Duration { least_ms: 50, most_ms: 3_600_000 },
        Some("2s"),
        "From one health check of an upstream to the next.",
    ),
    key(
        "ambassador.route.*.check.timeout",
        Kind::Duration { least_ms: 10, most_ms: 600_000 },
        Some("1s"),
        "How long one may take.",
    ),
    key("ambassador.route.*.check.rise", COUNT, Some("2"), "Good checks until it counts as alive."),
    key("ambassador.route.*.check.fall", COUNT, Some("3"), "Bad checks until it does not."),
    key(
        "ambassador.route.*.max_connections",
        COUNT,
        None,
        "Through this route at once; more wait.",
    ),
    key(
        "ambassador.route.*.access_log",
        Kind::Bool,
        Some("true"),
        "Its connections are told of in the access log, if there is one.",
    ),
    key("ambassador.route.*.hold.max", HELD, None, INSTEAD),
    key("ambassador.route.*.hold.timeout", HOLD, None, INSTEAD),
    key("ambassador.route.*.connect_timeout", CONNECT, None, INSTEAD),
    key("ambassador.route.*.idle_timeout", IDLE, None, INSTEAD),
    key("ambassador.route.*.keepalive.idle", PROBE, None, INSTEAD),
    key("ambassador.route.*.keepalive.interval", PROBE, None, INSTEAD),
    key("ambassador.route.*.keepalive.probes", PROBES, None, INSTEAD),
    key("ambassador.route.*.proxy_protocol", PROXY, None, INSTEAD),
    key("ambassador.route.*.accept_proxy", Kind::Bool, None, INSTEAD),
];

/// Of a route's key that has a namesake for all routes.
const INSTEAD: &str = "For this route, instead of the key of that name below `ambassador`.";
