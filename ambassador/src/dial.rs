//! Connects to a target, within a time.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use crate::address::Address;
use crate::config::Keepalive;
use crate::conn::{Conn, tune};
use crate::worker::within;

/// One attempt, names resolved anew.
pub(crate) async fn dial(
    to: &Address,
    timeout: Duration,
    keepalive: Keepalive,
) -> io::Result<Conn> {
    let connect = async {
        let tcp = match to {
            Address::Unix(path) => return UnixStream::connect(path).await.map(Conn::Unix),
            Address::Tcp(tcp) => TcpStream::connect(tcp).await?,
            Address::Host(host, port) => TcpStream::connect((host.as_str(), *port)).await?,
        };
        tune(&tcp, keepalive)?;
        Ok(Conn::Tcp(tcp))
    };
    within(timeout, connect).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}
