//! From single values to a complete configuration: what is missing, and what does not go together.

use std::net::SocketAddr;
use std::path::PathBuf;

use mainstay_election::machine::OnQuorumLoss;
use mainstay_election::values::{Durability, MaxLag, NodeName, Tags};
use mainstay_election::{CoordinationAddress, EtcdOptions, Login};

use super::document::Document;
use super::problem::{ConfigError, Problem};
use super::schema;
use super::types::{
    AmbassadorConfig, ClusterConfig, PeerConfig, ProcessConfig, ReadyConfig, ReadyProbe,
    RestartConfig, RunConfig, SecretText,
};

use crate::supervise::watchdog;

mod ambassador;

/// What a value stands for while a problem with it is already on the list.
const UNUSED: &str = "";

/// The least bound on lag, bytes: a few of the largest writes.
const MAX_LAG_BYTES_MIN: u64 = 4 << 20;

/// Reads a [`Document`] and remembers everything that is wrong on the way.
struct Builder<'a> {
    document: &'a Document,
    problems: Vec<Problem>,
}

impl Document {
    /// All that `mainstay run` needs. Reads `secret_file`.
    ///
    /// # Errors
    /// Everything that is missing or does not go together, at once.
    pub fn run(&self) -> Result<RunConfig, ConfigError> {
        let mut builder = Builder::new(self);
        let node = builder.required("node", "\"a\"");
        let config = RunConfig {
            node: node.parse().unwrap_or_else(|_| placeholder_node()),
            cluster: builder.cluster(),
            state_dir: PathBuf::from(builder.required("state_dir", "\"/var/lib/mainstay\"")),
            mount: PathBuf::from(builder.required("mount", "\"/var/lib/postgresql/data\"")),
            secret: builder.secret(),
            durability: match self.text("durability").as_deref() {
                Some("async") => Durability::Async,
                _ => Durability::Sync,
            },
            voters: count(builder.defaulted(self.number("voters"))),
            write_quorum: self.number("write_quorum").map(count),
            on_quorum_loss: match self.text("on_quorum_loss").as_deref() {
                Some("degrade") => OnQuorumLoss::Degrade,
                _ => OnQuorumLoss::Wait,
            },
            suspect_after: builder.defaulted(self.duration("suspect_after")),
            max_lag: MaxLag {
                bytes: self.size("max_lag.bytes").filter(|bytes| *bytes > 0),
                ms: self.duration("max_lag.time").map(millis).filter(|ms| *ms > 0),
            },
            watchdog: self.text("watchdog").map(PathBuf::from),
            peer: builder.peer(),
            api_listen: builder.socket("api.listen"),
            process: builder.process(),
            log_bytes_max: builder.defaulted(self.size("log.max")),
            quarantine_bytes_max: builder.defaulted(self.size("quarantine.max")),
            bandwidth: self.size("sync.bandwidth"),
            verify_every: self.duration("sync.verify_every").filter(|every| !every.is_zero()),
            verify_bandwidth: builder.defaulted(self.size("sync.verify_bandwidth")),
            tags: Tags {
                nofailover: builder.defaulted(self.bool("tags.nofailover")),
                priority: small(builder.defaulted(self.number("tags.priority"))),
            },
            drain_timeout: builder.defaulted(self.duration("switchover.drain_timeout")),
            ambassador: if self.is_given("ambassador") { builder.ambassador() } else { None },
        };
        builder.check_directories(&config);
        builder.check_quorum(&config);
        builder.check_watchdog(&config);
        builder.done(config)
    }

    /// All that watching a service needs.
    ///
    /// # Errors
    /// Everything that is missing, at once.
    pub fn cluster(&self) -> Result<ClusterConfig, ConfigError> {
        let mut builder = Builder::new(self);
        let cluster = builder.cluster();
        builder.done(cluster)
    }

    /// All that `mainstay ambassador` needs: no replica's keys, and no coordinator's either if no
    /// route asks for one.
    ///
    /// # Errors
    /// Everything that is missing or does not go together, at once.
    pub fn ambassador(&self) -> Result<AmbassadorConfig, ConfigError> {
        let mut builder = Builder::new(self);
        match builder.ambassador() {
            Some(ambassador) => builder.done(ambassador),
            None => Err(ConfigError { problems: builder.problems }),
        }
    }

    /// The state directory: all that offline commands need.
    ///
    /// # Errors
    /// It is missing.
    pub fn state_dir(&self) -> Result<PathBuf, ConfigError> {
        let mut builder = Builder::new(self);
        let state_dir = builder.required("state_dir", "\"/var/lib/mainstay\"");
        builder.done(PathBuf::from(state_dir))
    }
}

impl<'a> Builder<'a> {
    fn new(document: &'a Document) -> Self {
        Builder { document, problems: Vec::new() }
    }

    fn done<T>(self, built: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() {
            Ok(built)
        } else {
            Err(ConfigError { problems: self.problems })
        }
    }

    fn required(&mut self, path: &str, example: &str) -> String {
        self.document.text(path).unwrap_or_else(|| {
            let key = schema::find(path).expect("only keys of the schema are required");
            self.say(Problem::missing(key, example));
            UNUSED.to_owned()
        })
    }

    fn defaulted<T>(&self, value: Option<T>) -> T {
        value.expect("a test finds a default of the right kind for every such key")
    }

    fn refuse(&mut self, path: &str, what: String, fix: &str) {
        let source = self.document.source(path);
        self.say(Problem { source, what, fix: fix.to_owned() });
    }

    /// Each only once: replica and ambassador want some of the same keys.
    fn say(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn socket(&self, path: &str) -> SocketAddr {
        let text = self.defaulted(self.document.text(path));
        text.parse().expect("its kind is checked to be an address")
    }

    fn cluster(&mut self) -> ClusterConfig {
        let service = self.required("service", "\"orders-db\"");
        self.coordination_of(service)
    }

    /// The coordinator, as seen by those who care for `service`.
    fn coordination_of(&mut self, service: String) -> ClusterConfig {
        let coordination = self.required("coordination", "\"etcd://10.0.1.5:2379\"");
        ClusterConfig {
            service,
            coordination: coordination.parse().unwrap_or_else(|_| placeholder_coordination()),
            etcd: self.etcd(),
            ttl: self.defaulted(self.document.duration("ttl")),
        }
    }

    fn etcd(&mut self) -> EtcdOptions {
        let document = self.document;
        for (one, other) in [("etcd.cert", "etcd.key"), ("etcd.user", "etcd.password_file")] {
            if document.is_given(one) != document.is_given(other) {
                let given = if document.is_given(one) { one } else { other };
                self.refuse(
                    given,
                    format!("of `{one}` and `{other}` only `{given}` is given"),
                    "give both or neither",
                );
            }
        }
        let password = document.path("etcd.password_file").and_then(|path| {
            let read = std::fs::read_to_string(&path);
            read.map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| {
                    let what =
                        format!("the password file {} cannot be read: {error}", path.display());
                    self.refuse("etcd.password_file", what, "name a file that this user can read");
                })
                .ok()
        });
        EtcdOptions {
            ca: document.path("etcd.ca"),
            identity: document.path("etcd.cert").zip(document.path("etcd.key")),
            login: document
                .text("etcd.user")
                .zip(password)
                .map(|(user, password)| Login { user, password }),
        }
    }

    fn secret(&mut self) -> SecretText {
        if let Some(secret) = self.document.text("secret") {
            return SecretText::new(&secret);
        }
        let path = self.required("secret_file", "\"/etc/mainstay/secret\"");
        if path.is_empty() {
            return SecretText::new(UNUSED);
        }
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => {
                self.refuse(
                    "secret_file",
                    format!("the secret file {path} is empty"),
                    "make one with `mainstay secret new` and copy it to every node",
                );
            }
            Ok(text) => return SecretText::new(&text),
            Err(error) => self.refuse(
                "secret_file",
                format!("the secret file {path} cannot be read: {error}"),
                "make one with `mainstay secret new` and copy it to every node",
            ),
        }
        SecretText::new(UNUSED)
    }

    /// What contradicts itself in sync durability.
    fn check_quorum(&mut self, config: &RunConfig) {
        if config.durability == Durability::Async {
            if let Some(bytes) = config.max_lag.bytes.filter(|bytes| *bytes < MAX_LAG_BYTES_MIN) {
                self.refuse(
                    "max_lag.bytes",
                    format!("`max_lag.bytes` is {bytes} bytes; a single write may have 1 MiB"),
                    "use at least \"4MiB\", or 0 for no bound",
                );
            }
            return;
        }
        let voters = config.voters;
        if voters == 1 {
            self.refuse(
                "voters",
                "`voters` is 1 and `durability` is \"sync\": there would be one copy".to_owned(),
                "set voters = 3 (one may then be lost), or durability = \"async\"",
            );
        }
        if let Some(quorum) = config.write_quorum.filter(|quorum| *quorum > voters) {
            let majority = voters / 2 + 1;
            self.refuse(
                "write_quorum",
                format!("`write_quorum` is {quorum}, but there are only {voters} voters"),
                &format!("leave it out for a majority, {majority}, or raise `voters`"),
            );
        }
        let ttl = config.cluster.ttl;
        if config.suspect_after >= ttl {
            let (suspect, half) = (config.suspect_after, ttl / 2);
            self.refuse(
                "suspect_after",
                format!("`suspect_after` is {suspect:?}, not below `ttl`, {ttl:?}"),
                &format!("use at most half of the ttl, {half:?}; the default is \"1s\""),
            );
        }
    }

    fn check_watchdog(&mut self, config: &RunConfig) {
        // An eighth of the ttl is what is left to it; see `replica::run`.
        let least = watchdog::TIMEOUT_MIN * 8;
        if let Some(path) = &config.watchdog
            && config.cluster.ttl < least
        {
            let path = path.display();
            self.refuse(
                "watchdog",
                format!("`watchdog` is {path} and `ttl` is {:?}", config.cluster.ttl),
                &format!(
                    "a watchdog counts whole seconds: use a ttl of at least {least:?} with it, or \
                     leave it out"
                ),
            );
        }
    }

    fn peer(&mut self) -> PeerConfig {
        let listen = self.socket("peer.listen");
        let advertise = match self.document.text("peer.advertise") {
            Some(advertise) => advertise,
            None if !listen.ip().is_unspecified() => listen.to_string(),
            None => self.required("peer.advertise", "\"10.0.1.5:7400\""),
        };
        PeerConfig { listen, advertise }
    }

    fn process(&mut self) -> ProcessConfig {
        let document = self.document;
        let command = document.words("process.command").unwrap_or_default();
        if command.is_empty() {
            self.refuse(
                "process.command",
                "there is no service to run: `process.command` is missing".to_owned(),
                "set it, or put the service's command after `--`",
            );
        }
        let restarts = document.number("process.restarts.max");
        ProcessConfig {
            command,
            init: document.words("process.init"),
            user: document.text("process.user"),
            workdir: self.defaulted(document.path("process.workdir")),
            address: document.text("process.address"),
            ready: self.ready(),
            stop_signal: self.defaulted(document.text("process.stop_signal")),
            stop_grace: self.defaulted(document.duration("process.stop_grace")),
            restarts: RestartConfig {
                max: count(self.defaulted(restarts)),
                within: self.defaulted(document.duration("process.restarts.within")),
            },
        }
    }

    fn ready(&mut self) -> ReadyConfig {
        let document = self.document;
        let tcp = document.bool("process.ready.tcp");
        let command = document.words("process.ready.command");
        let address = document.text("process.address");
        if tcp == Some(true) && command.is_some() {
            self.refuse(
                "process.ready.command",
                "both `process.ready.tcp` and `process.ready.command` are given".to_owned(),
                "give one of them",
            );
        }
        if tcp == Some(true) && address.is_none() {
            self.refuse(
                "process.ready.tcp",
                "`process.ready.tcp` has no `process.address` to connect to".to_owned(),
                "set `process.address = \"127.0.0.1:5432\"`",
            );
        }
        let probe = match (command, address) {
            (Some(command), _) => ReadyProbe::Command(command),
            (None, Some(address)) if tcp != Some(false) => ReadyProbe::Tcp(address),
            _ => ReadyProbe::Started,
        };
        ReadyConfig {
            probe,
            interval: self.defaulted(document.duration("process.ready.interval")),
            timeout: self.defaulted(document.duration("process.ready.timeout")),
        }
    }

    /// A mount inside the state directory, or around it, would put the log into itself.
    fn check_directories(&mut self, config: &RunConfig) {
        let (state, mount) = (&config.state_dir, &config.mount);
        if state.as_os_str().is_empty() || mount.as_os_str().is_empty() {
            return;
        }
        if state.starts_with(mount) || mount.starts_with(state) {
            self.refuse(
                "mount",
                format!(
                    "`mount` ({}) and `state_dir` ({}) lie within one another",
                    mount.display(),
                    state.display()
                ),
                "give two directories of which neither contains the other",
            );
        }
    }
}

fn placeholder_coordination() -> CoordinationAddress {
    CoordinationAddress::Sqlite { path: PathBuf::new() }
}

fn placeholder_node() -> NodeName {
    "unnamed".parse().expect("it is a name")
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).expect("its kind bounds it")
}

fn count(number: i64) -> u32 {
    u32::try_from(number).expect("its kind bounds it")
}

fn small(number: i64) -> i32 {
    i32::try_from(number).expect("its kind bounds it")
}
