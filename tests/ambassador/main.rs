//! The ambassador as a process of its own: restarted and reloaded under clients, cut off from the
//! coordinator, and before a cluster whose leader dies.

mod cut_off;
mod failover;
mod proxy;
mod restart;

#[path = "../support/mod.rs"]
mod support;
