//! A real etcd of one or more members.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::place::Place;
use super::process::Process;
use super::{PATIENCE, until};

/// The members, some of them perhaps down.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    initial: String,
}

#[derive(Debug)]
struct Member {
    name: String,
    folder: PathBuf,
    place: Place,
    client: u16,
    peer: u16,
    process: Option<Process>,
}

impl Member {
    fn url(&self, port: u16) -> String {
        format!("http://{}:{port}", self.place.address())
    }
}

impl Etcd {
    /// Starts one member at each of `places`, with their data below `folder` and waits until they answer.
    ///
    /// # Errors
    /// etcd is not installed, or did not answer.
    pub async fn start(folder: &Path, places: &[Place]) -> Result<Etcd> {
        let members = places
            .iter()
            .enumerate()
            .map(|(index, place)| {
                let name = format!("etcd{index}");
                let folder = folder.join(&name);
                std::fs::create_dir_all(&folder)?;
                Ok(Member {
                    name,
                    folder,
                    place: place.clone(),
                    client: place.port(2379)?,
                    peer: place.port(2380)?,
                    process: None,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let initial = members
            .iter()
            .map(|member| format!("{}={}", member.name, member.url(member.peer)))
            .collect::<Vec<_>>()
            .join(",");
        let mut etcd = Etcd { members, initial };
        for index in 0..etcd.members.len() {
            etcd.start_member(index)?;
        }
        etcd.answers().await?;
        Ok(etcd)
    }

    /// What goes into a configuration's `coordination`.
    #[must_use]
    pub fn address(&self) -> String {
        let members: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}:{}", member.place.address(), member.client))
            .collect();
        format!("etcd://{}", members.join(","))
    }

    /// Starts a member that is down, on its old data.
    ///
    /// # Errors
    /// etcd is not installed.
    pub fn start_member(&mut self, index: usize) -> Result<()> {
        let initial = self.initial.clone();
        let member = &mut self.members[index];
        let client = member.url(member.client);
        let peer = member.url(member.peer);
        let mut command = member.place.command(Path::new("etcd"));
        command.args(["--name", &member.name, "--logger", "zap"]);
        command.arg("--data-dir").arg(member.folder.join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &initial, "--initial-cluster-state", "new"]);
        command.args(["--heartbeat-interval", "100", "--election-timeout", "1000"]);
        let log = member.folder.join("log");
        member.process = Some(
            Process::start_at(&member.place, &member.name, &mut command, &log)
                .context("is etcd installed?")?,
        );
        Ok(())
    }

    /// SIGKILLs a member.
    pub fn kill_member(&mut self, index: usize) {
        self.members[index].process = None;
    }

    /// SIGKILLs all of them.
    pub fn kill_all(&mut self) {
        for member in &mut self.members {
            member.process = None;
        }
    }

    /// Stops or continues (SIGSTOP, SIGCONT) a member.
    pub fn signal_member(&self, index: usize, signal: Signal) {
        if let Some(process) = &self.members[index].process {
            process.signal(signal);
        }
    }

    /// Which member leads, by its index.
    pub async fn leader(&self) -> Option<usize> {
        for (index, member) in self.members.iter().enumerate() {
            let endpoint = member.url(member.client);
            let output = tokio::process::Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &endpoint, "endpoint", "status", "-w", "json"])
                .output()
                .await
                .ok()?;
            let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
                continue;
            };
            let status = &status[0]["Status"];
            if status["leader"].is_u64() && status["leader"] == status["header"]["member_id"] {
                return Some(index);
            }
        }
        None
    }

    /// Waits until some member leads.
    ///
    /// # Errors
    /// None did.
    pub async fn answers(&self) -> Result<()> {
        let step = Duration::from_millis(100);
        until("etcd to have a leader", PATIENCE, step, async || self.leader().await).await?;
        Ok(())
    }

    /// Deletes what the members hold; all must be down.
    ///
    /// # Errors
    /// A folder cannot be removed.
    pub fn wipe(&self) -> Result<()> {
        for member in &self.members {
            std::fs::remove_dir_all(member.folder.join("data"))?;
        }
        Ok(())
    }

    /// Whether a member was started and not killed since.
    #[must_use]
    pub fn is_started(&self, index: usize) -> bool {
        self.members[index].process.is_some()
    }

    /// How many members there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }
}
