//! Carries out what the machine wants, against a real coordinator and the real boot clock.

mod gate;

pub use gate::{LeaseGate, boot_now};
