//! Whether the service answers yet.

use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// How to ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It needs no asking: running is ready.
    None,
    /// It takes TCP connections at this `host:port`.
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
                match timeout(*limit, TcpStream::connect(address)).await {
                    Ok(Ok(_)) => Ok(()),
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
