//! Mainstay: one daemon per replica, joining election, volume and service.

pub mod api;
pub mod cli;
pub mod config;
<<<<<<< HEAD
pub mod coordination;
pub mod proxy;
pub mod replica;
=======
pub mod status;
>>>>>>> 611a0c3 (Answer the operator from the command line: who leads, what is safe, what is wrong and its fix)
pub mod supervise;
pub mod telemetry;
