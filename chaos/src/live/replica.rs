//! One node: its folder, its configuration, and its daemon when it runs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::disk::SmallDisk;
use super::process::{Process, unmount};
use super::service::Service;

/// A node of the cluster, running or not.
#[derive(Debug)]
pub struct Replica {
    /// Its name.
    pub node: String,
    /// Everything of it is below here.
    pub folder: PathBuf,
    /// Where its service listens when it leads.
    pub service_port: u16,
    /// Where its API listens.
    pub api_port: u16,
    binary: PathBuf,
    process: Option<Process>,
    disk: Option<SmallDisk>,
}

/// What all nodes of a cluster share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub binary: PathBuf,
    pub service: Service,
    pub coordination: String,
    pub secret_file: PathBuf,
    pub ttl: String,
    pub extra: String,
}

impl Replica {
    /// Lays out a node's folder; nothing runs yet.
    pub(super) fn create(folder: PathBuf, node: &str, shared: &Shared) -> Result<Replica> {
        std::fs::create_dir_all(folder.join("mount"))?;
        let (service_port, api_port) = (super::ports::free()?, super::ports::free()?);
        let peer_port = super::ports::free()?;
        let mut text = String::new();
        write!(
            text,
            r#"service = "chaos"
node = "{node}"
state_dir = "{state}"
mount = "{mount}"
coordination = "{coordination}"
secret_file = "{secret}"
durability = "async"
ttl = "{ttl}"
{extra}
[peer]
listen = "127.0.0.1:{peer_port}"
advertise = "127.0.0.1:{peer_port}"
[api]
listen = "127.0.0.1:{api_port}"
{process}"#,
            state = folder.join("state").display(),
            mount = folder.join("mount").display(),
            coordination = shared.coordination,
            secret = shared.secret_file.display(),
            ttl = shared.ttl,
            extra = shared.extra,
            process = shared.service.process_table(&folder.join("mount"), service_port),
        )?;
        std::fs::write(folder.join("config.toml"), text)?;
        Ok(Replica {
            node: node.to_owned(),
            folder,
            service_port,
            api_port,
            binary: shared.binary.clone(),
            process: None,
            disk: None,
        })
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// The binary cannot be run.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.arg("run").arg("--config").arg(self.config());
        // Where the tests are run from must not decide what a service can reach.
        command.current_dir("/");
        if std::env::var_os("MAINSTAY_LOG").is_none() {
            command.env("MAINSTAY_LOG", "info");
        }
        self.process = Some(Process::start(&self.node, &mut command, &self.log())?);
        Ok(())
    }

    /// The daemon's process, if it was started and not killed.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Whether a daemon was started here and not ended by the harness since.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// SIGKILLs the daemon, its service and all else of the node, as a lost machine would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and waits until the daemon has ended.
    ///
    /// # Errors
    /// It did not end in time, or not with success.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.stop(super::PATIENCE).await?;
            anyhow::ensure!(status.success(), "{} ended with {status}", self.node);
        }
        Ok(())
    }

    /// Deletes the node's disk: its next start is a blank one's.
    ///
    /// # Errors
    /// Its state directory cannot be removed.
    pub fn wipe(&mut self) -> Result<()> {
        self.kill();
        unmount(&self.mount());
        match std::fs::remove_dir_all(self.state()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Gives the state directory a disk of its own, of this size, before the first start; again:
    /// changes the size.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn limit_disk(&mut self, mib: u64) -> Result<()> {
        match &self.disk {
            Some(disk) => disk.resize(mib)?,
            None => self.disk = Some(SmallDisk::mount(&self.state(), mib)?),
        }
        Ok(())
    }

    /// What `mainstay` says to these arguments and this node's configuration.
    ///
    /// # Errors
    /// It could not be run, or failed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{arguments:?} of {}: {said}", self.node);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// Its state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Where its service's data is mounted when it leads.
    #[must_use]
    pub fn mount(&self) -> PathBuf {
        self.folder.join("mount")
    }

    /// The daemon's and its service's output.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Writes the volume's plain files to `target`. The daemon must be down.
    ///
    /// # Errors
    /// What the command said.
    pub fn export(&self, target: &Path) -> Result<()> {
        let output = Command::new(&self.binary)
            .args(["export", "--config"])
            .arg(self.config())
            .arg(target)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "export of {}: {said}", self.node);
        Ok(())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.process = None;
        unmount(&self.mount());
    }
}
