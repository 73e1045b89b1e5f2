//! Mainstay: one daemon per replica, joining election, volume and service.

pub mod supervise;
