//! What the tests here share: a service that greets, and an ambassador with its successors.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use mainstay_chaos::live::{PATIENCE, until};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::binary;

/// Greets with its name and then echoes, and counts who came.
pub struct Greeter {
    pub at: SocketAddr,
    pub greeted: Arc<AtomicUsize>,
}

impl Greeter {
    pub async fn start(at: &str, name: &'static str) -> Greeter {
        let listener = TcpListener::bind(at).await.expect("a port");
        let at = listener.local_addr().expect("bound");
        let greeted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&greeted);
        tokio::spawn(async move {
            while let Ok((mut conn, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    let _ = conn.write_all(name.as_bytes()).await;
                    let (mut from, mut to) = conn.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Greeter { at, greeted }
    }
}

/// Reads exactly this, or says what came in its place.
pub async fn hears(conn: &mut (impl AsyncReadExt + Unpin), text: &str) -> Result<(), String> {
    let mut read = vec![0; text.len()];
    let reading = tokio::time::timeout(PATIENCE, conn.read_exact(&mut read)).await;
    reading.map_err(|_| "nothing".to_owned())?.map_err(|error| error.to_string())?;
    match String::from_utf8_lossy(&read) {
        heard if heard == text => Ok(()),
        heard => Err(format!("{heard:?}")),
    }
}

pub async fn echoes(conn: &mut TcpStream) {
    conn.write_all(b"still there?").await.expect("a living connection");
    hears(conn, "still there?").await.expect("an echo");
}

/// Waits for what should be so within seconds.
pub async fn patiently<T>(what: &str, is_so: impl AsyncFnMut() -> Option<T>) -> T {
    until(what, PATIENCE, Duration::from_millis(20), is_so)
        .await
        .unwrap_or_else(|error| panic!("{error:#}"))
}

/// An ambassador and all who succeed it: they all end with this.
pub struct Ambassador {
    pub child: Child,
    pub config: PathBuf,
    log: PathBuf,
    /// In the environment of each of them.
    mark: String,
}

impl Ambassador {
    /// `before`: a command that runs it, such as one that enters a namespace.
    pub fn start(folder: &Path, before: &[String], config: &str) -> Ambassador {
        let (path, log) = (folder.join("ambassador.toml"), folder.join("ambassador.log"));
        std::fs::write(&path, config).expect("written");
        let mark = format!("{:032x}", rand::random::<u128>());
        let words: Vec<_> =
            before.iter().map(Into::into).chain([binary().into_os_string()]).collect();
        let output = std::fs::File::create(&log).expect("a log");
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["ambassador", "--config"])
            .arg(&path)
            .env("TEST_MARK", &mark)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a copy"))
            .stderr(output)
            // Not to be ended with the terminal's group in place of by us.
            .process_group(0)
            .spawn()
            .expect("it starts");
        Ambassador { child, config: path, log, mark }
    }

    pub fn signal(&self, signal: Signal) {
        send(i32::try_from(self.child.id()).expect("a pid"), signal);
    }

    /// Waits until it has said so, and returns that line.
    pub async fn says(&self, words: &str) -> String {
        let found = async || {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            text.lines().find(|line| line.contains(words)).map(str::to_owned)
        };
        until(words, PATIENCE, Duration::from_millis(20), found)
            .await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.words()))
    }

    pub fn words(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Those that run, of this and its successors.
    pub fn running(&self) -> Vec<i32> {
        let entries = std::fs::read_dir("/proc").expect("proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let mark = format!("TEST_MARK={}", self.mark);
        pids.filter(|pid| {
            let all = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            all.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
        })
        .collect()
    }
}

impl Drop for Ambassador {
    fn drop(&mut self) {
        for pid in self.running() {
            send(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

pub fn send(pid: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid).expect("a pid"), signal);
}
