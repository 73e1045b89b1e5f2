//! The PROXY protocol: who the client is, told by one proxy to the next.
//!
//! Text (v1) and binary (v2) as in haproxy's `doc/proxy-protocol.txt`. The parser is strict: what
//! it does not know exactly it refuses, because a header that two programs read differently lets
//! a client choose its own address. Hazard: whoever may connect may claim any address, so headers
//! are taken only on routes that only trusted proxies can reach.

mod parse;
#[doc(hidden)]
pub mod properties;
mod write;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use parse::{HEADER_MAX, HeaderError, parse};
pub use write::write;

/// First bytes of every v2 header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Which form to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The client at the first address connected to the second. Both are of one family.
    Tcp(SocketAddr, SocketAddr),
    /// No TCP address: the proxy's own connection, a Unix socket, or unknown.
    Unknown,
}

/// How far parsing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// All of it is right so far, but more is needed.
    Partial,
    /// A header, and how many bytes it took.
    Complete(Header, usize),
}
