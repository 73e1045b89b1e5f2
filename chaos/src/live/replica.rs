//! One node: its folder, its configuration, and its daemon when it runs.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::disk::SmallDisk;
use super::place::Place;
use super::process::{Process, unmount};
use super::service::Service;
use crate::world::image::Image;

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
    service: Service,
    place: Place,
    process: Option<Process>,
    disk: Option<SmallDisk>,
    image: Option<Image>,
}

/// A node's disk on a host, in MiB; the file behind it is sparse.
const DISK_MIB: u64 = 2048;

/// What all nodes of a cluster share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub binary: PathBuf,
    pub service: Service,
    pub coordination: String,
    pub secret_file: PathBuf,
    pub ttl: String,
    pub durability: String,
    pub disks_can_fail: bool,
    pub extra: String,
}

impl Replica {
    /// Lays out a node's folder; nothing runs yet.
    pub(super) fn create(
        folder: PathBuf,
        node: &str,
        place: Place,
        shared: &Shared,
    ) -> Result<Replica> {
        std::fs::create_dir_all(folder.join("mount"))?;
        let image = match &place {
            Place::Loopback => None,
            Place::Host(_) => {
                let (file, point) = (folder.join("image"), folder.join("disk"));
                Some(Image::mount(&file, &point, DISK_MIB, shared.disks_can_fail)?)
            }
        };
        let address = place.address();
        let service_port = place.port(shared.service.usual_port())?;
        let (api_port, peer_port) = (place.port(7480)?, place.port(7400)?);
        let mut text = String::new();
        write!(
            text,
            r#"service = "chaos"
node = "{node}"
state_dir = "{state}"
mount = "{mount}"
coordination = "{coordination}"
secret_file = "{secret}"
durability = "{durability}"
ttl = "{ttl}"
{extra}
[peer]
listen = "{address}:{peer_port}"
advertise = "{address}:{peer_port}"
[api]
listen = "{address}:{api_port}"
{process}"#,
            state = state(&folder, image.as_ref()).display(),
            durability = shared.durability,
            mount = folder.join("mount").display(),
            coordination = shared.coordination,
            secret = shared.secret_file.display(),
            ttl = shared.ttl,
            extra = shared.extra,
            process = shared.service.process_table(
                &shared.binary,
                &folder.join("mount"),
                address,
                service_port
            ),
        )?;
        std::fs::write(folder.join("config.toml"), text)?;
        Ok(Replica {
            node: node.to_owned(),
            folder,
            service_port,
            api_port,
            binary: shared.binary.clone(),
            service: shared.service,
            place,
            process: None,
            disk: None,
            image,
        })
    }

    /// Where its processes run.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.place.address()
    }

    /// Where its API answers.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        (self.address(), self.api_port).into()
    }

    /// Its own disk, if it is on a host.
    #[must_use]
    pub fn image(&self) -> Option<&Image> {
        self.image.as_ref()
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// The binary cannot be run.
    pub fn start(&mut self) -> Result<()> {
        // What is left of the last one goes first, not after the new one came to the same place.
        self.process = None;
        let mut command = self.place.command(&self.binary);
        command.arg("run").arg("--config").arg(self.config());
        // Where the tests are run from must not decide what a service can reach.
        command.current_dir("/");
        if std::env::var_os("MAINSTAY_LOG").is_none() {
            command.env("MAINSTAY_LOG", "info");
        }
        self.process = Some(Process::start_at(&self.place, &self.node, &mut command, &self.log())?);
        Ok(())
    }

    /// The daemon's process, if it was started and not killed.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// The daemon's pid, if it was started.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
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

    /// A command of `mainstay` with these arguments and this node's configuration.
    #[must_use]
    pub fn mainstay(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    /// The service's processes here, by pid; none while it does not lead.
    #[must_use]
    pub fn service_pids(&self) -> Vec<i32> {
        let here = match (self.place.host(), &self.process) {
            (Some(host), _) => host.pids(),
            (None, Some(process)) => super::process::tree(process.pid()),
            (None, None) => Vec::new(),
        };
        let program = self.service.program();
        let is_service = |pid: &i32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == program
        };
        here.into_iter().filter(is_service).collect()
    }

    /// What `mainstay` says to these arguments and this node's configuration.
    ///
    /// # Errors
    /// It could not be run, or failed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.mainstay(arguments).output()?;
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
        state(&self.folder, self.image.as_ref())
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

    /// What lost here and was set aside, as the manifests say it.
    ///
    /// # Errors
    /// A manifest cannot be read.
    pub fn set_aside(&self) -> Result<Vec<serde_json::Value>> {
        let folder = self.state().join("quarantine");
        let mut manifests = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path().join("manifest.json");
            if path.exists() {
                manifests.push(serde_json::from_slice(&std::fs::read(&path)?)?);
            }
        }
        Ok(manifests)
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

fn state(folder: &Path, image: Option<&Image>) -> PathBuf {
    image.map_or(folder, Image::point).join("state")
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.process = None;
        unmount(&self.mount());
    }
}
