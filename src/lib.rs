//! Mainstay: one daemon per replica, joining election, volume and service.

pub mod config;
pub mod coordination;
pub mod proxy;
pub mod replica;
pub mod supervise;
