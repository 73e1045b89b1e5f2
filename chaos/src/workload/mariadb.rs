//! A connection to MariaDB: its own client program, fed line by line, so that what is tested is what
//! people use, and no crate comes for it. It never connects again by itself: one connection leads
//! to one run of the server or ends.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long the program tries to connect, in seconds: longer than the ambassador holds a client.
const CONNECT_TIMEOUT: &str = "--connect-timeout=40";

/// A connected client; the program ends with it.
#[derive(Debug)]
pub struct Connection {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// How many questions were asked.
    count: u64,
}

impl Connection {
    /// Connects, and waits until the server has answered once.
    ///
    /// # Errors
    /// The program is not installed, or its server refused it.
    pub async fn connect(address: SocketAddr) -> Result<Connection> {
        let mut child = Command::new("mariadb")
            .args(["--no-defaults", "--user=root", "--batch", "--skip-column-names"])
            .args(["--unbuffered", "--skip-reconnect", CONNECT_TIMEOUT])
            .arg(format!("--host={}", address.ip()))
            .arg(format!("--port={}", address.port()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("run mariadb: is mariadb-client installed?")?;
        let stdin = child.stdin.take().context("it is piped")?;
        let stdout = child.stdout.take().context("it is piped")?;
        let lines = BufReader::new(stdout).lines();
        let mut connection = Connection { child, stdin, lines, count: 0 };
        connection.ask("do 0").await?;
        Ok(connection)
    }

    /// The rows of a statement, fields apart by tabs, once the server has said that it is done. The
    /// program ends at the first statement that fails; then the connection is of no use any more.
    ///
    /// # Errors
    /// What the server said, or that it is gone.
    pub async fn ask(&mut self, statement: &str) -> Result<Vec<String>> {
        self.count += 1;
        // It sends this only once the statement before it was answered with success.
        let end = format!("end of {}", self.count);
        let text = format!("{statement};\nselect '{end}';\n");
        self.stdin.write_all(text.as_bytes()).await?;
        let mut rows = Vec::new();
        while let Some(line) = self.lines.next_line().await? {
            if line == end {
                return Ok(rows);
            }
            rows.push(line);
        }
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            stderr.read_to_string(&mut said).await?;
        }
        bail!("MariaDB: {}", said.trim())
    }
}
