//! The access log: one line of JSON per finished connection, where it is asked for.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::address::Address;
use crate::route::Refusal;

/// Where finished connections are told of.
#[derive(Clone, Default)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// As `tracing` events at `INFO`, target `ambassador::access`, field `access` (JSON).
    Tracing,
    /// To this function, in the forwarding thread: it must not block.
    Callback(Arc<dyn Fn(&Access<'_>) + Send + Sync>),
}

impl AccessLog {
    pub(crate) fn tell(&self, access: &Access<'_>) {
        match self {
            AccessLog::Off => {}
            AccessLog::Tracing => {
                tracing::info!(target: "ambassador::access", access = access.to_json());
            }
            AccessLog::Callback(told) => told(access),
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AccessLog::Off => "Off",
            AccessLog::Tracing => "Tracing",
            AccessLog::Callback(_) => "Callback",
        })
    }
}

/// One finished connection.
#[derive(Clone, Debug, Serialize)]
pub struct Access<'a> {
    /// When it ended, by the wall clock, in milliseconds since 1970.
    pub ended_unix_ms: u64,
    /// The route's name.
    pub route: &'a str,
    /// Who connected: from the PROXY header where the route takes one. `None`: a Unix socket.
    pub client: Option<SocketAddr>,
    /// Where the client was forwarded to last.
    pub target: Option<&'a Address>,
    /// From arrival to the last forwarding or refusal.
    #[serde(rename = "held_ms", serialize_with = "millis")]
    pub held: Duration,
    /// How long the connect to the target took that succeeded.
    #[serde(rename = "connect_ms", serialize_with = "millis")]
    pub connect: Duration,
    /// From arrival to end.
    #[serde(rename = "total_ms", serialize_with = "millis")]
    pub total: Duration,
    /// From the client to the target.
    pub bytes_in: u64,
    /// From the target to the client.
    pub bytes_out: u64,
    /// How it ended.
    pub end: End,
}

impl Access<'_> {
    /// The line, without a newline.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers alone always serialise")
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Both sides finished.
    Closed,
    /// One side reset it or vanished.
    Broken,
    /// Its target is no leader any more, or doubted; or the proxy ended.
    Cut,
    /// No byte for the route's idle timeout.
    Idle,
    /// Turned away.
    Refused(Refusal),
    /// The client left while it was held.
    GaveUp,
    /// The client's PROXY header is missing, late or malformed.
    BadHeader,
}

fn millis<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}
