//! Replicas, their coordinator and an ambassador, put together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::etcd::Etcd;
use super::place::Place;
use super::process::Process;
use super::replica::{Replica, Shared};
use super::service::Service;
use super::status::Status;
use super::{PATIENCE, until};
use crate::world::clock::ClockLibrary;
use crate::world::{PREFIX, World, open_to_all};

/// The host of the clients and of their ambassador, in a world.
pub const CLIENT: &str = "client";

/// Through what the replicas agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordination {
    /// The embedded one, a file.
    Sqlite,
    /// A real etcd of so many members.
    Etcd(usize),
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `mainstay` binary.
    pub binary: PathBuf,
    /// What it wraps.
    pub service: Service,
    /// How many replicas: `a`, `b`, `c` …
    pub replicas: usize,
    /// Through what they agree.
    pub coordination: Coordination,
    /// The lease, as in the configuration.
    pub ttl: String,
    /// `sync` or `async`.
    pub durability: String,
    /// On hosts: whether the disks can be made to fail and to be slow.
    pub disks_can_fail: bool,
    /// On hosts: whether the nodes' clocks can be set.
    pub clocks_can_jump: bool,
    /// More top-level lines of every node's configuration.
    pub extra: String,
}

impl Plan {
    /// Three replicas of `service`, on the embedded coordinator, at the default ttl.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, service: Service) -> Plan {
        Plan {
            binary: binary.into(),
            service,
            replicas: 3,
            coordination: Coordination::Sqlite,
            ttl: "5s".to_owned(),
            durability: "async".to_owned(),
            disks_can_fail: false,
            clocks_can_jump: false,
            extra: String::new(),
        }
    }

    /// A world with a host for each node, each member of etcd, and the clients.
    ///
    /// # Errors
    /// See [`World::create`].
    pub fn world(&self) -> Result<World> {
        let members = match self.coordination {
            Coordination::Sqlite => 0,
            Coordination::Etcd(members) => members,
        };
        let nodes = ('a'..='z').take(self.replicas).map(String::from);
        let etcd = (0..members).map(|member| format!("etcd{member}"));
        let names: Vec<_> = nodes.chain(etcd).chain([CLIENT.to_owned()]).collect();
        World::create(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// A cluster; all of it ends when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, in order of their names.
    pub replicas: Vec<Replica>,
    /// The ambassador's port.
    pub port: u16,
    /// The etcd, if that is the coordinator.
    pub etcd: Option<Etcd>,
    ambassador: Option<Process>,
    entrance: Place,
    shared: Shared,
    folder: PathBuf,
    // What everything above lives in goes last.
    world: Option<World>,
    _folder: Option<TempDir>,
}

impl Cluster {
    /// Lays the cluster out and starts its coordinator; no replica runs yet.
    ///
    /// # Errors
    /// A program is missing, or a folder cannot be made.
    pub async fn create(plan: &Plan) -> Result<Cluster> {
        // Named so that a sweep finds what is left if this process is killed.
        let prefix = format!("{PREFIX}{}-loopback-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        // The service's user must get through to its mount.
        open_to_all(folder.path())?;
        let path = folder.path().to_owned();
        Cluster::lay_out(plan, path, None, Some(folder)).await
    }

    /// The same on the hosts of [`Plan::world`]. The calling threads must be on the clients' host.
    ///
    /// # Errors
    /// A program is missing, or a folder cannot be made.
    pub async fn create_in(world: World, plan: &Plan) -> Result<Cluster> {
        let folder = world.folder().to_owned();
        Cluster::lay_out(plan, folder, Some(world), None).await
    }

    async fn lay_out(
        plan: &Plan,
        folder: PathBuf,
        world: Option<World>,
        temporary: Option<TempDir>,
    ) -> Result<Cluster> {
        let place = |name: &str| match &world {
            None => Ok(Place::Loopback),
            Some(world) => world.host(name).map(|host| Place::Host(host.clone())),
        };
        let (etcd, coordination) = match plan.coordination {
            Coordination::Sqlite => {
                (None, format!("sqlite://{}", folder.join("coord.db").display()))
            }
            Coordination::Etcd(members) => {
                let places = (0..members).map(|member| place(&format!("etcd{member}")));
                let places = places.collect::<Result<Vec<_>>>()?;
                let etcd = Etcd::start(&folder, &places).await?;
                let address = etcd.address();
                (Some(etcd), address)
            }
        };
        let secret_file = folder.join("secret");
        let secret = Command::new(&plan.binary)
            .args(["secret", "new"])
            .output()
            .with_context(|| format!("run {}", plan.binary.display()))?;
        write_private(&secret_file, &secret.stdout)?;
        let shared = Shared {
            binary: plan.binary.clone(),
            service: plan.service,
            coordination,
            secret_file,
            ttl: plan.ttl.clone(),
            durability: plan.durability.clone(),
            disks_can_fail: plan.disks_can_fail,
            extra: plan.extra.clone(),
        };
        let entrance = place(CLIENT)?;
        if let Some(world) = world.as_ref().filter(|_| plan.clocks_can_jump) {
            let library = ClockLibrary::build(&folder)?;
            for name in ('a'..='z').take(plan.replicas) {
                world.host(&name.to_string())?.give_clock(&library)?;
            }
        }
        let mut cluster = Cluster {
            replicas: Vec::new(),
            port: entrance.port(6432)?,
            etcd,
            ambassador: None,
            entrance,
            shared,
            folder,
            world,
            _folder: temporary,
        };
        for name in ('a'..='z').take(plan.replicas) {
            cluster.add(&name.to_string())?;
        }
        Ok(cluster)
    }

    /// [`Cluster::create`], then everything started and serving.
    ///
    /// # Errors
    /// Something did not come up.
    pub async fn start(plan: &Plan) -> Result<Cluster> {
        Cluster::create(plan).await?.start_all(plan.service).await
    }

    /// Starts everything and waits until it serves.
    ///
    /// # Errors
    /// Something did not come up.
    pub async fn start_all(mut self, service: Service) -> Result<Cluster> {
        self.launch(service)?;
        self.serving().await?;
        Ok(self)
    }

    /// Starts everything, and waits for nothing.
    ///
    /// # Errors
    /// The binary cannot be run.
    pub fn launch(&mut self, service: Service) -> Result<()> {
        for replica in &mut self.replicas {
            replica.start()?;
        }
        if service != Service::Files {
            self.start_ambassador()?;
        }
        Ok(())
    }

    /// Adds one more node, not started.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub fn add(&mut self, node: &str) -> Result<&mut Replica> {
        let place = match &self.world {
            None => Place::Loopback,
            Some(world) => Place::Host(world.host(node)?.clone()),
        };
        let folder = self.folder.join(node);
        std::fs::create_dir_all(&folder)?;
        open_to_all(&folder)?;
        self.replicas.push(Replica::create(folder, node, place, &self.shared)?);
        Ok(self.replicas.last_mut().expect("one was just added"))
    }

    /// Starts the ambassador on [`Cluster::port`].
    ///
    /// # Errors
    /// The binary cannot be run.
    pub fn start_ambassador(&mut self) -> Result<()> {
        let config = self.folder.join("ambassador.toml");
        let text = format!(
            "service = \"chaos\"\ncoordination = \"{}\"\nttl = \"{}\"\n\
             [ambassador]\nlisten = \"{}\"\n",
            self.shared.coordination,
            self.shared.ttl,
            self.entrance()
        );
        std::fs::write(&config, text)?;
        let mut command = self.entrance.command(&self.shared.binary);
        command.arg("ambassador").arg("--config").arg(&config).current_dir("/");
        let log = self.folder.join("ambassador.log");
        self.ambassador =
            Some(Process::start_at(&self.entrance, "ambassador", &mut command, &log)?);
        Ok(())
    }

    /// The running daemons, by node or as `ambassador`, each the root of its processes.
    #[must_use]
    pub fn pids(&self) -> Vec<(&str, i32)> {
        let replicas = self.replicas.iter();
        let mut pids: Vec<_> =
            replicas.filter_map(|replica| Some((replica.node.as_str(), replica.pid()?))).collect();
        pids.extend(self.ambassador.iter().map(|process| ("ambassador", process.pid())));
        pids
    }

    /// Where everything of this cluster is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The world that it lives in, if it is not on loopback.
    #[must_use]
    pub fn world(&self) -> Option<&World> {
        self.world.as_ref()
    }

    /// Where clients connect: the ambassador.
    #[must_use]
    pub fn entrance(&self) -> SocketAddr {
        (self.entrance.address(), self.port).into()
    }

    /// The cluster's state, as any node's configuration finds it.
    ///
    /// # Errors
    /// The coordinator cannot be read.
    pub async fn status(&self) -> Result<Status> {
        Status::read(&self.shared.binary, &self.replicas[0].config()).await
    }

    /// Waits until a leader's service is ready, and says what the cluster then looks like.
    ///
    /// # Errors
    /// None was in time; what the daemons last said is in the error.
    pub async fn serving(&self) -> Result<Status> {
        self.reaches("a ready leader", |status| status.ready).await
    }

    /// Waits until every running node leads or follows.
    ///
    /// # Errors
    /// They did not in time.
    pub async fn whole(&self) -> Result<Status> {
        let nodes = self.started();
        self.reaches("every node in its role", |status| status.is_whole(&nodes)).await
    }

    /// Waits until every running node follows or leads with nothing outstanding. Not to be asked
    /// for while somebody writes.
    ///
    /// # Errors
    /// They did not in time.
    pub async fn quiet(&self) -> Result<Status> {
        let nodes = self.started();
        self.reaches("all replicas equal", |status| status.is_quiet(&nodes)).await
    }

    fn started(&self) -> Vec<&str> {
        let started = self.replicas.iter().filter(|replica| replica.is_started());
        started.map(|replica| replica.node.as_str()).collect()
    }

    /// Waits until `is_so` holds of the status.
    ///
    /// # Errors
    /// It did not in time; what the daemons last said is in the error.
    pub async fn reaches(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Result<Status> {
        let step = Duration::from_millis(100);
        let mut last = Status::default();
        let found = until(what, PATIENCE, step, async || {
            last = self.status().await.ok()?;
            is_so(&last).then(|| last.clone())
        })
        .await;
        found.with_context(|| format!("last status: {last:?}\n{}", self.last_words()))
    }

    /// The node that leads now.
    ///
    /// # Errors
    /// None came to lead in time.
    pub async fn leader(&mut self) -> Result<&mut Replica> {
        let status = self.serving().await?;
        let leader = status.leader.context("a ready leader has a name")?;
        self.node(&leader)
    }

    /// The node of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&mut self, name: &str) -> Result<&mut Replica> {
        self.replicas
            .iter_mut()
            .find(|replica| replica.node == name)
            .with_context(|| format!("no replica is called {name}"))
    }

    /// The last lines of every daemon, for a failure's message.
    #[must_use]
    pub fn last_words(&self) -> String {
        let mut all = String::new();
        let logs =
            self.replicas.iter().map(Replica::log).chain([self.folder.join("ambassador.log")]);
        for log in logs {
            let text = std::fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<_> = text.lines().collect();
            all.push_str(&format!("--- {}\n", log.display()));
            for line in &lines[lines.len().saturating_sub(40)..] {
                all.push_str(line);
                all.push('\n');
            }
        }
        all
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)?;
    Ok(())
}
