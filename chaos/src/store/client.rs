//! The store's client.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection to a store.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Refused or cut.
    pub async fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Stores a value durably.
    ///
    /// # Errors
    /// Anything but the store's word that it is done.
    pub async fn append(&mut self, client: u32, number: u64) -> Result<()> {
        let answer = self.ask(&format!("append {client} {number}\n")).await?;
        ensure!(answer == "ok", "the store said {answer:?}");
        Ok(())
    }

    /// Names this run of the store's process.
    ///
    /// # Errors
    /// No answer came.
    pub async fn run(&mut self) -> Result<String> {
        self.ask("run\n").await
    }

    /// Everything that is stored.
    ///
    /// # Errors
    /// No answer came, or not all of it.
    pub async fn all(&mut self) -> Result<Vec<(u32, u64)>> {
        let mut line = self.ask("all\n").await?;
        let mut all = Vec::new();
        while !line.is_empty() {
            let (client, number) = line.split_once(' ').context("a value is two numbers")?;
            all.push((client.parse()?, number.parse()?));
            line = self.line().await?;
        }
        Ok(all)
    }

    async fn ask(&mut self, request: &str) -> Result<String> {
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        self.line().await
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line).await? > 0, "the store hung up");
        ensure!(line.ends_with('\n'), "the store hung up amid an answer");
        line.pop();
        Ok(line)
    }
}
