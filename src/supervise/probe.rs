//! Whether the service answers yet.

use std::process::Stdio;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// How to ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It needs no asking: running is ready.
    None,
    /// It takes connections at this `host:port`, or `unix:/path`.
    Tcp {
        /// Where.
        address: String,
        /// One attempt's time.
        timeout: Duration,
    },
    /// This command ends with success.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// One attempt's time; past it the command is killed.
        timeout: Duration,
    },
}

impl Probe {
    /// Asks once.
    ///
    /// # Errors
    /// Why it is not ready, for people.
    pub async fn ask(&self) -> Result<(), String> {
        match self {
            Probe::None => Ok(()),
            Probe::Tcp { address, timeout: limit } => {
                match timeout(*limit, connect(address)).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(format!("no connection to {address}: {error}")),
                    Err(_) => Err(format!("no connection to {address} within {limit:?}")),
                }
            }
            Probe::Command { command, timeout: limit } => {
                let (program, arguments) = command.split_first().ok_or("an empty command")?;
                let run = tokio::process::Command::new(program)
                    .args(arguments)
                    .stdin(Stdio::null())
                    .kill_on_drop(true)
                    .output();
                match timeout(*limit, run).await {
                    Ok(Ok(output)) if output.status.success() => Ok(()),
                    Ok(Ok(output)) => {
                        let said = String::from_utf8_lossy(&output.stderr);
                        Err(format!("{program}: {}: {}", output.status, said.trim()))
                    }
                    Ok(Err(error)) => Err(format!("{program} cannot be run: {error}")),
                    Err(_) => Err(format!("{program} did not end within {limit:?}")),
                }
            }
        }
    }
}

async fn connect(address: &str) -> std::io::Result<()> {
    match address.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).await.map(drop),
        None => TcpStream::connect(address).await.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_at_a_unix_socket_is_ready_when_it_connects() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("service");
        let address = format!("unix:{}", path.display());
        let probe = Probe::Tcp { address, timeout: Duration::from_secs(60) };
        let why = probe.ask().await.expect_err("nothing is there");
        assert!(why.starts_with("no connection to unix:/"), "{why}");
        let _service = tokio::net::UnixListener::bind(&path).unwrap();
        probe.ask().await.unwrap();
    }
}
