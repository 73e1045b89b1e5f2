//! Mainstay: one daemon per replica, joining election, volume and service.

pub mod config;
pub mod replica;
pub mod supervise;
