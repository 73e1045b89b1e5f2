//! The ambassador: a TCP proxy that always forwards to the service's leader.
//!
//! Its caller, the daemon or a stand-alone ambassador, feeds every route with what it knows of
//! the leader ([`RouteState`]); this crate knows nothing of elections. Per route:
//!
//! - *forward* clients to the leader while it is ready and trusted,
//! - *hold* new clients, bounded in number and time, while there is none,
//! - *cut* (reset) what is connected to a former leader, at once.
//!
//! A route may have static upstreams with health checks in place of a leader.
//!
//! The decisions are one pure state machine, [`route::Route`]; everything else here is sockets.
//! Hazard to keep in mind: a client forwarded to a former leader may be told that a write is
//! kept which is then lost. So a route is trusted only up to a moment in time, and each doubt is
//! answered by cutting and holding.

#[macro_use]
extern crate mainstay_mutant;

mod access;
mod address;
mod ambassador;
mod config;
mod conn;
mod dial;
mod forward;
mod front;
mod health;
mod listen;
mod moment;
mod page;
mod prometheus;
pub mod proxy_protocol;
pub mod route;
mod router;
mod session;
mod stats;
mod worker;

pub use access::{Access, AccessLog, End};
pub use address::{Address, AddressError};
pub use ambassador::{Ambassador, Drained, Standing};
pub use config::{Hold, Keepalive, RouteConfig, Settings, Source, StartError, UpstreamsConfig};
pub use listen::Inherited;
pub use moment::Moment;
pub use page::status_page;
pub use prometheus::prometheus_text;
pub use proxy_protocol::ProxyVersion;
pub use route::{Attested, Order, Refusal, RouteState};
pub use stats::{Histogram, RouteStats, RouteTarget, Stats, Tally, UpstreamStats};
