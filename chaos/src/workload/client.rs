//! One connection to a service, through whatever address, and its few verbs.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tokio_postgres::NoTls;

use super::mariadb;
use crate::live::Service;
use crate::store;

/// How long a connection may take to come about: longer than the ambassador holds one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(40);

/// How long a single answer may take before its outcome counts as unknown.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A connected client.
pub enum Client {
    /// Of Postgres.
    Postgres(tokio_postgres::Client),
    /// Of Redis.
    Redis(MultiplexedConnection),
    /// Of MariaDB.
    MariaDb(mariadb::Connection),
    /// Of the file store.
    Store(store::Client),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Client::Postgres(_) => "Postgres",
            Client::Redis(_) => "Redis",
            Client::MariaDb(_) => "MariaDb",
            Client::Store(_) => "Store",
        })
    }
}

impl Client {
    /// Connects to `service` at a port of loopback.
    ///
    /// # Errors
    /// Refused, cut, or not in time.
    pub async fn connect(service: Service, port: u16) -> Result<Client> {
        Client::connect_to(service, ([127, 0, 0, 1], port).into()).await
    }

    /// Connects to `service` at an address.
    ///
    /// # Errors
    /// Refused, cut, or not in time.
    pub async fn connect_to(service: Service, address: SocketAddr) -> Result<Client> {
        tokio::time::timeout(CONNECT_TIMEOUT, Self::connect_for_long(service, address))
            .await
            .context("no connection in time")?
    }

    async fn connect_for_long(service: Service, address: SocketAddr) -> Result<Client> {
        match service {
            Service::Postgres => Ok(Client::Postgres(connect_postgres(address).await?)),
            Service::Redis => {
                let client = redis::Client::open(format!("redis://{address}/"))?;
                let config = redis::AsyncConnectionConfig::new()
                    .set_response_timeout(Some(ANSWER_TIMEOUT))
                    .set_connection_timeout(Some(CONNECT_TIMEOUT));
                let connection =
                    client.get_multiplexed_async_connection_with_config(&config).await?;
                Ok(Client::Redis(connection))
            }
            Service::MariaDb => Ok(Client::MariaDb(mariadb::Connection::connect(address).await?)),
            Service::Store => Ok(Client::Store(store::Client::connect(address).await?)),
            Service::Files => bail!("the files service has no clients"),
        }
    }

    /// Makes what the writes go to, if it is not there.
    ///
    /// # Errors
    /// What the service said.
    pub async fn prepare(&mut self) -> Result<()> {
        let table = "(client bigint, number bigint, primary key (client, number))";
        match self {
            Client::Postgres(client) => {
                let create = format!("create table if not exists writes {table}");
                client.batch_execute(&create).await?;
            }
            Client::MariaDb(connection) => {
                connection.ask("create database if not exists chaos").await?;
                let create = format!("create table if not exists chaos.writes {table}");
                connection.ask(&create).await?;
                let create = "create table if not exists chaos.registers \
                              (name bigint primary key, value bigint)";
                connection.ask(create).await?;
            }
            Client::Redis(_) | Client::Store(_) => {}
        }
        Ok(())
    }

    /// Writes one value durably, in a transaction of its own.
    ///
    /// # Errors
    /// Anything but the service's word that it is done.
    pub async fn write(&mut self, client: u32, number: u64) -> Result<()> {
        tokio::time::timeout(ANSWER_TIMEOUT, self.write_for_long(client, number))
            .await
            .context("no answer in time")?
    }

    async fn write_for_long(&mut self, client: u32, number: u64) -> Result<()> {
        match self {
            Client::Postgres(connection) => {
                let insert = "insert into writes values ($1, $2)";
                let values = (i64::from(client), i64::try_from(number)?);
                connection.execute(insert, &[&values.0, &values.1]).await?;
            }
            Client::Redis(connection) => {
                let _: u64 = connection.rpush(format!("writes:{client}"), number).await?;
            }
            Client::MariaDb(connection) => {
                let insert = format!("insert into chaos.writes values ({client}, {number})");
                connection.ask(&insert).await?;
            }
            Client::Store(connection) => connection.append(client, number).await?,
        }
        Ok(())
    }

    /// Puts a value into a register.
    ///
    /// # Errors
    /// Anything but the service's word that it is done.
    pub async fn set(&mut self, register: u32, value: u64) -> Result<()> {
        tokio::time::timeout(ANSWER_TIMEOUT, async {
            match self {
                Client::Redis(connection) => {
                    let _: () = connection.set(format!("register:{register}"), value).await?;
                }
                Client::MariaDb(connection) => {
                    let put = format!(
                        "insert into chaos.registers values ({register}, {value}) \
                         on duplicate key update value = {value}"
                    );
                    connection.ask(&put).await?;
                }
                Client::Postgres(_) | Client::Store(_) => bail!("{self:?} has no registers"),
            }
            Ok(())
        })
        .await
        .context("no answer in time")?
    }

    /// What a register holds; nothing was put there if it is 0.
    ///
    /// # Errors
    /// What the service said.
    pub async fn get(&mut self, register: u32) -> Result<u64> {
        tokio::time::timeout(ANSWER_TIMEOUT, async {
            match self {
                Client::Redis(connection) => {
                    let value: Option<u64> = connection.get(format!("register:{register}")).await?;
                    Ok(value.unwrap_or(0))
                }
                Client::MariaDb(connection) => {
                    let read = format!("select value from chaos.registers where name = {register}");
                    let rows = connection.ask(&read).await?;
                    Ok(rows.first().map_or(Ok(0), |value| value.parse())?)
                }
                Client::Postgres(_) | Client::Store(_) => bail!("{self:?} has no registers"),
            }
        })
        .await
        .context("no answer in time")?
    }

    /// Names the run of the server's process that this leads to: no two runs have the same.
    ///
    /// # Errors
    /// What the service said.
    pub async fn server(&mut self) -> Result<String> {
        tokio::time::timeout(ANSWER_TIMEOUT, async {
            match self {
                Client::Postgres(connection) => postgres_server(connection).await,
                Client::Redis(connection) => {
                    let said: String =
                        redis::cmd("INFO").arg("server").query_async(connection).await?;
                    let mut lines = said.lines();
                    let run = lines.find_map(|line| line.strip_prefix("run_id:"));
                    Ok(run.context("no run_id in Redis' answer")?.to_owned())
                }
                Client::MariaDb(connection) => {
                    let rows = connection.ask("select @@report_host").await?;
                    rows.into_iter().next().context("MariaDB has no name")
                }
                Client::Store(connection) => connection.run().await,
            }
        })
        .await
        .context("no answer in time")?
    }

    /// Everything that is there.
    ///
    /// # Errors
    /// What the service said.
    pub async fn read_all(&mut self) -> Result<Vec<(u32, u64)>> {
        match self {
            Client::Postgres(connection) => {
                let rows = connection.query("select client, number from writes", &[]).await?;
                rows.iter()
                    .map(|row| {
                        let client = u32::try_from(row.get::<_, i64>(0))?;
                        Ok((client, u64::try_from(row.get::<_, i64>(1))?))
                    })
                    .collect()
            }
            Client::Redis(connection) => {
                let keys: Vec<String> = connection.keys("writes:*").await?;
                let mut all = Vec::new();
                for key in keys {
                    let client = key.trim_start_matches("writes:").parse()?;
                    let numbers: Vec<u64> = connection.lrange(&key, 0, -1).await?;
                    all.extend(numbers.into_iter().map(|number| (client, number)));
                }
                Ok(all)
            }
            Client::MariaDb(connection) => {
                let rows = connection.ask("select client, number from chaos.writes").await?;
                let rows = rows.iter().map(|row| {
                    let (client, number) = row.split_once('\t').context("a row of two fields")?;
                    Ok((client.parse()?, number.parse()?))
                });
                rows.collect()
            }
            Client::Store(connection) => connection.all().await,
        }
    }
}

/// Connects to Postgres, without a bound of its own on time.
pub(crate) async fn connect_postgres(address: SocketAddr) -> Result<tokio_postgres::Client> {
    let (host, port) = (address.ip(), address.port());
    let parameters = format!("host={host} port={port} user=postgres");
    let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The server's own address, which no ambassador changes, and when its process was started.
pub(super) async fn postgres_server(client: &tokio_postgres::Client) -> Result<String> {
    let asked = "select host(inet_server_addr()) || ' since ' || pg_postmaster_start_time()";
    Ok(client.query_one(asked, &[]).await?.get(0))
}
