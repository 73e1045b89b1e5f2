//! Where to listen and where a service is: TCP by number or name, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `10.0.0.1:5432`, `[::1]:5432`, `db.internal:5432`, or `unix:/run/db.sock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// A TCP socket by number.
    Tcp(SocketAddr),
    /// A TCP socket by name; resolved anew at every connect.
    Host(String, u16),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// The text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address: write HOST:PORT, [IPV6]:PORT or unix:/PATH")]
pub struct AddressError {
    text: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let error = || AddressError { text: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix:") {
            let absolute = path.starts_with('/') && !path.contains('\0');
            return absolute.then(|| Address::Unix(PathBuf::from(path))).ok_or_else(error);
        }
        if let Ok(tcp) = text.parse() {
            return Ok(Address::Tcp(tcp));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let named = !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        match port.parse() {
            Ok(port) if named => Ok(Address::Host(host.to_owned(), port)),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(tcp) => tcp.fmt(f),
            Address::Host(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(tcp: SocketAddr) -> Address {
        Address::Tcp(tcp)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Address, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["10.0.0.1:5432", "[::1]:1", "etcd-1.internal:2379", "unix:/run/db.sock"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        for text in ["", ":1", "host", "host:", "host:70000", "a b:1", "::1:5", "unix:db.sock"] {
            text.parse::<Address>().expect_err(text);
        }
    }
}
