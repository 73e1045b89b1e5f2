//! Redis, which rewrites its append-only file now and then.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::prove::{Killed, Points, ROWS, prove};
use crate::rig;

/// A server that ends when this is dropped.
struct Redis {
    _server: Killed,
    stream: UnixStream,
    _dir: tempfile::TempDir,
}

impl Redis {
    fn start(data: &Path) -> Result<Redis, String> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("redis.sock");
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            .args(["--aof-load-truncated", "yes", "--auto-aof-rewrite-percentage", "0"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut server = Killed(server);
        let begun = Instant::now();
        loop {
            if let Ok(Some(status)) = server.0.try_wait() {
                return Err(format!("redis ended: {status}"));
            }
            if let Ok(stream) = UnixStream::connect(&socket) {
                let mut redis = Redis { _server: server, stream, _dir: dir };
                while redis.ask("PING")?.starts_with("-LOADING") {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return Ok(redis);
            }
            if begun.elapsed() > rig::PATIENCE {
                return Err("redis does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One inline command with a one-line answer.
    fn ask(&mut self, command: &str) -> Result<String, String> {
        let failed = |error: std::io::Error| error.to_string();
        self.stream.write_all(format!("{command}\r\n").as_bytes()).map_err(failed)?;
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n") {
            self.stream.read_exact(&mut byte).map_err(failed)?;
            answer.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&answer).trim().to_owned())
    }
}

pub fn store(dir: &Path, said: impl Fn(u64)) {
    let mut redis = Redis::start(dir).unwrap();
    for row in 1..=ROWS {
        assert_eq!(redis.ask(&format!("RPUSH rows {row}")).unwrap(), format!(":{row}"));
        said(row);
        if row % 20 == 0 {
            redis.ask("BGREWRITEAOF").unwrap();
        }
    }
}

fn holds(dir: &Path) -> Result<u64, String> {
    let mut redis = Redis::start(dir)?;
    let length = redis.ask("LLEN rows")?;
    length.trim_start_matches(':').parse().map_err(|_| length)
}

#[test]
fn redis_recovers_at_any_op_also_while_it_rewrites() {
    if Command::new("redis-server").arg("--version").output().is_err() {
        rig::skipped("redis_recovers", "redis is not installed");
        return;
    }
    prove("redis", holds, Points::Every);
}
