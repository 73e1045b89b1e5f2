//! Where the coordinator is: the text of the `coordination` setting, and the way from it to a
//! running [`Coordinator`].

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::coordinator::{Coordinator, CoordinatorError, Result};
use crate::etcd::EtcdCoordinator;
use crate::sqlite::SqliteCoordinator;
use crate::values::check_name;

/// etcd's port where an address names none.
const ETCD_PORT: u16 = 2379;

/// A parsed `coordination` setting.
///
/// `etcd://host:port,host:port` names every member of an etcd cluster, `etcds://` the same over
/// TLS, either with `user:password@` in front; `sqlite:///path` a file shared by the processes of
/// one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinationAddress {
    /// An etcd cluster.
    Etcd {
        /// Its members, as `host:port`.
        members: Vec<String>,
        /// Speak TLS.
        tls: bool,
        /// Who we are to it.
        login: Option<Login>,
    },
    /// A file on this machine.
    Sqlite {
        /// The file; absolute.
        path: PathBuf,
    },
}

/// A user and its password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:***", self.user)
    }
}

/// What an etcd cluster may want besides its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdOptions {
    /// The CA that signed the members' certificates, as a PEM file. `etcds://` needs it: the
    /// machine's own list of public CAs is not trusted to name who decides who leads.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, as PEM files, for a cluster that asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Who we are to it; goes before a login in the address.
    pub login: Option<Login>,
}

/// A `coordination` setting that cannot be understood. A password in it is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It begins with nothing known.
    #[error(
        "a coordination address begins with `etcd://`, `etcds://` or `sqlite:///`, not with {0:?}"
    )]
    Scheme(String),
    /// A member is no `host:port`.
    #[error("{member:?} is not an etcd member: {cause}; write `host:port`")]
    Member {
        /// The member.
        member: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// The part before `@` is no login.
    #[error("what stands before `@` in a coordination address must be `user:password`")]
    Login,
    /// The path is missing or relative.
    #[error("{0:?} is not an absolute path: write `sqlite:///path/to/file`, with three slashes")]
    Path(String),
}

impl FromStr for CoordinationAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> std::result::Result<Self, AddressError> {
        match text.split_once("://") {
            Some(("etcd", rest)) => etcd(rest, false),
            Some(("etcds", rest)) => etcd(rest, true),
            Some(("sqlite", path)) if path.len() > 1 && path.starts_with('/') => {
                Ok(CoordinationAddress::Sqlite { path: path.into() })
            }
            Some(("sqlite", path)) => Err(AddressError::Path(path.to_owned())),
            Some((scheme, _)) => Err(AddressError::Scheme(format!("{scheme}://"))),
            None => Err(AddressError::Scheme(text.chars().take(20).collect())),
        }
    }
}

/// As it is parsed, with `***` for a password.
impl fmt::Display for CoordinationAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoordinationAddress::Sqlite { path } => write!(f, "sqlite://{}", path.display()),
            CoordinationAddress::Etcd { members, tls, login } => {
                f.write_str(if *tls { "etcds://" } else { "etcd://" })?;
                if let Some(login) = login {
                    write!(f, "{login:?}@")?;
                }
                f.write_str(&members.join(","))
            }
        }
    }
}

fn etcd(rest: &str, tls: bool) -> std::result::Result<CoordinationAddress, AddressError> {
    // The last `@` and the first `:`, so that a password may hold both.
    let (login, members) = match rest.rsplit_once('@') {
        Some((login, members)) => (Some(parse_login(login)?), members),
        None => (None, rest),
    };
    let members = members
        .trim_end_matches('/')
        .split(',')
        .map(member)
        .collect::<std::result::Result<_, _>>()?;
    Ok(CoordinationAddress::Etcd { members, tls, login })
}

fn parse_login(text: &str) -> std::result::Result<Login, AddressError> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => {
            Ok(Login { user: user.to_owned(), password: password.to_owned() })
        }
        _ => Err(AddressError::Login),
    }
}

fn member(text: &str) -> std::result::Result<String, AddressError> {
    let bad = |cause| Err(AddressError::Member { member: text.to_owned(), cause });
    // An IPv6 address has colons of its own, inside brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(address) if address.parse::<std::net::Ipv6Addr>().is_err() => {
            return bad("what stands in brackets is no IPv6 address");
        }
        None if host.contains(':') => return bad("an IPv6 address goes in brackets"),
        _ => {}
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty() {
        return bad("the host is missing");
    }
    if bare.is_none() && !host.bytes().all(plain) {
        return bad("the host holds a character that no host name has");
    }
    match port.map(str::parse::<u16>) {
        None => Ok(format!("{host}:{ETCD_PORT}")),
        Some(Ok(port)) if port != 0 => Ok(format!("{host}:{port}")),
        Some(_) => bad("the port is not a number from 1 to 65535"),
    }
}

/// The coordinator at `address`, for the keys of `service`.
///
/// `ttl` is the leases' length that the caller is going to ask for: every call ends within a
/// quarter of it. etcd is not contacted yet, so that a node starts while etcd is down; a SQLite
/// file is opened, and created if it is missing.
///
/// # Errors
/// [`CoordinatorError::Invalid`] for a service that cannot be part of a key, a file that cannot
/// be read, or settings that contradict one another; [`CoordinatorError::Unreachable`] for a
/// SQLite file that cannot be opened.
pub async fn connect(
    address: &CoordinationAddress,
    options: &EtcdOptions,
    service: &str,
    ttl: Duration,
) -> Result<Arc<dyn Coordinator>> {
    check_name(service).map_err(|error| CoordinatorError::Invalid(error.to_string()))?;
    let root = format!("/mainstay/{service}/");
    let patience = ttl / 4;
    Ok(match address {
        CoordinationAddress::Etcd { members, tls, login } => {
            let mut options = options.clone();
            options.login = options.login.or_else(|| login.clone());
            Arc::new(EtcdCoordinator::new(members, *tls, &options, root, patience)?)
        }
        CoordinationAddress::Sqlite { path } => {
            Arc::new(SqliteCoordinator::open(path.clone(), root, patience).await?)
        }
    })
}

#[cfg(test)]
mod tests;
