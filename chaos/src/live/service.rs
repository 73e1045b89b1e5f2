//! The services that the harness can put under Mainstay, as lines of a configuration.

use std::path::Path;
use std::str::FromStr;

/// Which service a cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Postgres, with data checksums.
    Postgres,
    /// Redis with an append-only file synced at each write.
    Redis,
    /// No server: the harness itself works on the leader's mount.
    Files,
}

impl FromStr for Service {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "postgres" => Ok(Service::Postgres),
            "redis" => Ok(Service::Redis),
            "files" => Ok(Service::Files),
            _ => Err(format!("unknown service {text:?}: postgres, redis or files")),
        }
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Service::Postgres => "postgres",
            Service::Redis => "redis",
            Service::Files => "files",
        })
    }
}

impl Service {
    /// The `[process]` table for a service that listens on `port` and keeps its data in `mount`.
    #[must_use]
    pub fn process_table(self, mount: &Path, port: u16) -> String {
        let mount = mount.display();
        match self {
            Service::Postgres => {
                let bin = postgres_bin();
                let bin = bin.display();
                format!(
                    r#"[process]
command = ["{bin}/postgres", "-D", "{mount}", "-p", "{port}", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=300", "-c", "restart_after_crash=off"]
init = ["{bin}/initdb", "-D", "{mount}", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--data-checksums"]
user = "postgres"
address = "127.0.0.1:{port}"
ready = {{ command = ["{bin}/pg_isready", "-q", "-h", "127.0.0.1", "-p", "{port}"], interval = "100ms", timeout = "3s" }}
stop_signal = "SIGINT"
stop_grace = "30s"
"#
                )
            }
            Service::Redis => format!(
                r#"[process]
command = ["redis-server", "--dir", "{mount}", "--port", "{port}", "--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
address = "127.0.0.1:{port}"
ready = {{ command = ["redis-cli", "-h", "127.0.0.1", "-p", "{port}", "get", "ready-check"], interval = "100ms", timeout = "3s" }}
stop_signal = "SIGTERM"
"#
            ),
            Service::Files => {
                "[process]\ncommand = [\"sleep\", \"infinity\"]\nstop_signal = \"SIGTERM\"\n"
                    .to_owned()
            }
        }
    }
}

/// Where Debian keeps the newest Postgres' programs; the empty path (so: `$PATH`) elsewhere.
#[must_use]
pub fn postgres_bin() -> std::path::PathBuf {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| "/usr/bin".into())
}
