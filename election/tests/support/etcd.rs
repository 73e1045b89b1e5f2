//! Real etcd members on loopback, dead when their handle is.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tempfile::TempDir;

use super::LONG;

/// Whether there is an etcd to test with; says so loudly if not.
pub fn installed(test: &str) -> bool {
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIPPED: {test}: there is no `etcd` in PATH");
    }
    found
}

/// How the members of a cluster are started.
#[derive(Clone, Default)]
pub struct Options {
    /// More arguments for each.
    pub arguments: Vec<String>,
    /// Clients speak TLS.
    pub tls: bool,
}

/// A cluster. Members are killed when it is dropped.
pub struct Cluster {
    members: Vec<Member>,
    options: Options,
    /// An address of 127/8 of its own: nobody's outgoing connection takes a port of it while a
    /// member is down.
    host: Ipv4Addr,
    directory: TempDir,
}

struct Member {
    name: String,
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Cluster {
    /// Starts `size` members with nothing in them; `options` may depend on the host.
    pub fn start(size: usize, options: impl Fn(Ipv4Addr) -> Options) -> Cluster {
        // A port that was free a moment ago may be taken: then everything once more.
        for _ in 0..5 {
            let host = Ipv4Addr::new(127, any(), any(), any());
            let members = (0..size)
                .map(|index| Member {
                    name: format!("m{index}"),
                    client_port: free_port(host),
                    peer_port: free_port(host),
                    process: None,
                })
                .collect();
            let directory = tempfile::tempdir().expect("a directory");
            let mut cluster = Cluster { members, options: options(host), host, directory };
            for index in 0..size {
                cluster.spawn(index);
            }
            if (0..size).all(|index| cluster.listens(index)) {
                return cluster;
            }
        }
        panic!("etcd does not start: see its output above");
    }

    /// The members, as in a coordination address: `host:port,host:port`.
    pub fn members(&self) -> String {
        let members: Vec<_> = (0..self.members.len()).map(|index| self.member(index)).collect();
        members.join(",")
    }

    /// One member, as `host:port`.
    pub fn member(&self, index: usize) -> String {
        format!("{}:{}", self.host, self.members[index].client_port)
    }

    /// SIGKILL, and wait for the end.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            process.kill().expect("a child of ours");
            process.wait().expect("a child of ours");
        }
    }

    /// Starts a member that was killed, with the data it had.
    pub fn restart(&mut self, index: usize) {
        self.spawn(index);
        assert!(self.listens(index), "etcd does not start again");
    }

    /// The member answers nothing any more, but its connections stay.
    pub fn pause(&self, index: usize) {
        self.signal(index, Signal::STOP);
    }

    /// It goes on.
    pub fn resume(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    fn signal(&self, index: usize, signal: Signal) {
        let process = self.members[index].process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("a child of ours");
    }

    fn spawn(&mut self, index: usize) {
        let host = self.host;
        let everybody: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}=http://{host}:{}", member.name, member.peer_port))
            .collect();
        let scheme = if self.options.tls { "https" } else { "http" };
        let directory = self.directory.path();
        let member = &mut self.members[index];
        let client = format!("{scheme}://{host}:{}", member.client_port);
        let peer = format!("http://{host}:{}", member.peer_port);
        let output = File::options()
            .create(true)
            .append(true)
            .open(directory.join(&member.name).with_extension("log"))
            .expect("a file for its output");
        let mut command = Command::new("etcd");
        command
            .args(["--name", &member.name, "--data-dir"])
            .arg(directory.join(&member.name))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &everybody.join(",")])
            .args(&self.options.arguments)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output);
        // SAFETY: between fork and exec this makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        member.process = Some(command.spawn().expect("etcd is installed"));
    }

    /// Waits until the member listens; no if it ends instead.
    fn listens(&mut self, index: usize) -> bool {
        let begun = Instant::now();
        let log = self.directory.path().join(&self.members[index].name).with_extension("log");
        let member = &mut self.members[index];
        let process = member.process.as_mut().expect("it was started");
        while begun.elapsed() < LONG {
            if process.try_wait().expect("a child of ours").is_some() {
                break;
            }
            if TcpStream::connect((self.host, member.client_port)).is_ok() {
                return true;
            }
            sleep(Duration::from_millis(20));
        }
        show_end(&log);
        false
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
    }
}

fn any() -> u8 {
    rand::random_range(1..=254)
}

fn free_port(host: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((host, 0)).expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}

fn show_end(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    eprintln!("{}:\n{}", log.display(), lines[lines.len().saturating_sub(20)..].join("\n"));
}
