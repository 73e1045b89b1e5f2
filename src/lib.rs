//! Mainstay: one daemon per replica, joining election, volume and service.

pub mod api;
pub mod cli;
pub mod config;
pub mod proxy;
pub mod replica;
pub mod status;
pub mod supervise;
pub mod switchover;
pub mod telemetry;
pub mod when;
