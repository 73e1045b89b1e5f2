//! The simulator: the real machines in a hostile world that one number decides.
//!
//! Election ([`mainstay_election::machine`]), commit ([`mainstay_sync::commit::Tally`]), catch-up
//! planning ([`mainstay_sync::replicate::plan`]) and routing ([`mainstay_ambassador::route`]) run as
//! they are shipped. Around them is a thin shell that does what the daemon's IO does, each file
//! naming what it mirrors, over model disks, a model coordinator and a model network. The fault
//! model is in [`plan`], what must hold in [`checks`].
//!
//! Hazard: a shell that is kinder than the daemon proves nothing. The mutation check
//! ([`mutants`]) breaks one rule at a time and demands that a run finds it.

mod boot;
#[path = "../../../src/replica/bound.rs"]
mod bound;
mod calls;
pub mod checks;
mod clock;
pub mod command;
mod convert;
mod coordinator;
mod delta;
mod disk;
mod election;
mod faults;
mod follow;
mod heirs;
mod lead;
mod look;
pub mod mutants;
mod node;
mod operator;
pub mod plan;
mod proxy;
mod rng;
mod run;
pub mod scenes;
mod serve;
mod session;
pub mod shrink;
mod terms;
mod volume;
mod wire;
mod world;

pub use run::{Outcome, run};
