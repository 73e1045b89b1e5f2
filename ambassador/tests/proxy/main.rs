//! The proxy over real sockets, in this process.

#![allow(clippy::print_stderr, clippy::print_stdout)] // what was skipped, and children that report

mod cut;
mod forward;
mod hold;
mod peers;
mod proxy_protocol;
mod reload;
mod rig;
mod upstreams;
