//! The services that the harness can put under Mainstay, as lines of a configuration.

use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

/// Which service a cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Postgres, with data checksums.
    Postgres,
    /// Redis with an append-only file synced at each write.
    Redis,
    /// MariaDB, with what it does by default: each commit is synced.
    MariaDb,
    /// A file store of the harness' own: a journal and snapshots ([`crate::store`]).
    Store,
    /// No server: the harness itself works on the leader's mount.
    Files,
}

impl FromStr for Service {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "postgres" => Ok(Service::Postgres),
            "redis" => Ok(Service::Redis),
            "mariadb" => Ok(Service::MariaDb),
            "files" => Ok(Service::Store),
            _ => Err(format!("unknown service {text:?}: postgres, redis, mariadb or files")),
        }
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Service::Postgres => "postgres",
            Service::Redis => "redis",
            Service::MariaDb => "mariadb",
            Service::Store => "files",
            Service::Files => "mount",
        })
    }
}

impl Service {
    /// What its processes are called.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Service::Postgres => "postgres",
            Service::Redis => "redis-server",
            Service::MariaDb => "mariadbd",
            Service::Store => "chaos",
            Service::Files => "sleep",
        }
    }

    /// Where it listens when it has an address of its own.
    #[must_use]
    pub fn usual_port(self) -> u16 {
        match self {
            Service::Postgres | Service::Files => 5432,
            Service::Redis => 6379,
            Service::MariaDb => 3306,
            Service::Store => 7000,
        }
    }

    /// The `[process]` table for a service that listens there and keeps its data in `mount`;
    /// `binary` is the daemon's, beside which the harness' own is.
    #[must_use]
    pub fn process_table(
        self,
        binary: &Path,
        mount: &Path,
        address: Ipv4Addr,
        port: u16,
    ) -> String {
        let mount = mount.display();
        match self {
            Service::Postgres => {
                let bin = postgres_bin();
                let bin = bin.display();
                format!(
                    r#"[process]
command = ["{bin}/postgres", "-D", "{mount}", "-p", "{port}", "-c", "listen_addresses={address}", "-c", "unix_socket_directories=", "-c", "max_connections=300", "-c", "restart_after_crash=off"]
init = ["sh", "-c", "{bin}/initdb -D {mount} --auth=trust --username=postgres --encoding=UTF8 --locale=C --data-checksums && echo host all all samenet trust >> {mount}/pg_hba.conf"]
user = "postgres"
address = "{address}:{port}"
ready = {{ command = ["{bin}/pg_isready", "-q", "-h", "{address}", "-p", "{port}"], interval = "100ms", timeout = "3s" }}
stop_signal = "SIGINT"
stop_grace = "30s"
"#
                )
            }
            Service::Redis => format!(
                r#"[process]
command = ["redis-server", "--dir", "{mount}", "--port", "{port}", "--bind", "{address}", "--protected-mode", "no", "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
address = "{address}:{port}"
ready = {{ command = ["redis-cli", "-h", "{address}", "-p", "{port}", "get", "ready-check"], interval = "100ms", timeout = "3s" }}
stop_signal = "SIGTERM"
"#
            ),
            // Nobody outside of this world gets here, so there are no accounts. Each run of the server
            // has a name that no other had; the client asks for it as `@@report_host`.
            Service::MariaDb => format!(
                r#"[process]
command = ["sh", "-c", "exec mariadbd --no-defaults --datadir={mount} --bind-address={address} --port={port} --socket= --skip-grant-tables --skip-networking=0 --skip-name-resolve --max-connections=300 --max-connect-errors=1000000000 --innodb-log-file-size=16M --innodb-buffer-pool-size=64M --report-host=$(cat /proc/sys/kernel/random/uuid)"]
init = ["mariadb-install-db", "--no-defaults", "--datadir={mount}", "--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=16M"]
user = "mysql"
address = "{address}:{port}"
ready = {{ command = ["mariadb-admin", "--no-defaults", "--host={address}", "--port={port}", "--user=root", "ping"], interval = "200ms", timeout = "3s" }}
stop_signal = "SIGTERM"
stop_grace = "30s"
"#
            ),
            Service::Store => {
                let store = binary.with_file_name("chaos");
                let store = store.display();
                format!(
                    r#"[process]
command = ["{store}", "store", "--folder", "{mount}", "--listen", "{address}:{port}"]
address = "{address}:{port}"
ready = {{ tcp = true, interval = "100ms" }}
stop_signal = "SIGTERM"
"#
                )
            }
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
