//! Postgres without Mainstay: on a plain directory, and with its own synchronous replication.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::cpu::Root;
use crate::live::process::Process;
use crate::live::service::postgres_bin;
use crate::live::{PATIENCE, Service, ports, until};
use crate::world::open_to_all;

/// A running Postgres.
pub struct Postgres {
    pub port: u16,
    data: PathBuf,
    process: Process,
}

/// A primary and the standbys that stream from it. Any one of them confirms a commit: what
/// `synchronous_standby_names = 'ANY 1 (…)'` of Postgres' manual says.
pub struct Replicated {
    pub primary: Postgres,
    standbys: Vec<Postgres>,
}

impl Postgres {
    /// A new one, in a directory `name` of `folder`.
    pub async fn start(folder: &Path, name: &str, more: &[&str]) -> Result<Postgres> {
        let data = Postgres::directory(folder, name)?;
        let initdb = postgres_bin().join("initdb");
        let directory = data.display().to_string();
        let options = ["--auth=trust", "--username=postgres", "--data-checksums", "-D", &directory];
        as_postgres(&initdb, &options)?;
        Postgres::run(data, folder, name, more).await
    }

    /// A copy of `primary` that streams from it.
    async fn standby(folder: &Path, name: &str, primary: &Postgres) -> Result<Postgres> {
        let data = Postgres::directory(folder, name)?;
        let from =
            format!("host=127.0.0.1 port={} user=postgres application_name={name}", primary.port);
        let directory = data.display().to_string();
        let copy = ["-D", &directory, "-d", &from, "--write-recovery-conf", "--checkpoint=fast"];
        as_postgres(&postgres_bin().join("pg_basebackup"), &copy)?;
        Postgres::run(data, folder, name, &["hot_standby=on"]).await
    }

    fn directory(folder: &Path, name: &str) -> Result<PathBuf> {
        open_to_all(folder)?;
        let data = folder.join(name);
        std::fs::create_dir(&data)?;
        let chown = Command::new("chown").arg("postgres").arg(&data).status()?;
        ensure!(chown.success(), "chown postgres {}: {chown}", data.display());
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&data, private)?;
        Ok(data)
    }

    async fn run(data: PathBuf, folder: &Path, name: &str, more: &[&str]) -> Result<Postgres> {
        let port = ports::free()?;
        let mut command = setpriv(&postgres_bin().join("postgres"));
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        let always =
            ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300"];
        for setting in always.iter().chain(more) {
            command.args(["-c", setting]);
        }
        let process = Process::start(name, &mut command, &folder.join(format!("{name}.log")))?;
        let step = Duration::from_millis(100);
        until(name, PATIENCE, step, async || {
            crate::workload::Client::connect(Service::Postgres, port).await.ok()
        })
        .await?;
        Ok(Postgres { port, data, process })
    }

    /// For counting its processor time.
    pub fn root(&self, part: &'static str) -> Root {
        Root { pid: self.process.pid(), part, all_as_one: true }
    }

    async fn ask(&self, sql: &str) -> Result<String> {
        let mut psql = tokio::process::Command::new(postgres_bin().join("psql"));
        psql.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()]);
        let output = psql.args(["-Atqc", sql]).output().await?;
        ensure!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

impl Replicated {
    /// A new primary and two standbys, streaming.
    pub async fn start(folder: &Path) -> Result<Replicated> {
        let primary = Postgres::start(folder, "primary", &["max_wal_senders=10"]).await?;
        let hba = primary.data.join("pg_hba.conf");
        let rules = std::fs::read_to_string(&hba)?;
        std::fs::write(&hba, format!("{rules}\nhost replication postgres 127.0.0.1/32 trust\n"))?;
        let mut standbys = Vec::new();
        for name in ["s1", "s2"] {
            standbys.push(Postgres::standby(folder, name, &primary).await?);
        }
        primary.ask("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (s1, s2)'").await?;
        primary.ask("SELECT pg_reload_conf()").await?;
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'";
        until("two synchronous standbys", PATIENCE, Duration::from_millis(100), async || {
            (primary.ask(sql).await.ok()? == "2").then_some(())
        })
        .await?;
        Ok(Replicated { primary, standbys })
    }

    /// For counting its processor time.
    pub fn roots(&self) -> Vec<Root> {
        let standbys = self.standbys.iter().map(|standby| standby.root("standbys"));
        standbys.chain([self.primary.root("postgres")]).collect()
    }
}

fn setpriv(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command.current_dir("/");
    command
}

fn as_postgres(program: &Path, options: &[&str]) -> Result<()> {
    let output = setpriv(program).args(options).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", program.display());
    Ok(())
}
