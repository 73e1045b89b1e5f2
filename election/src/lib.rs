//! Who leads: coordinators, the election machine and its runner.

#[macro_use]
extern crate mainstay_mutant;

mod address;
pub mod coordinator;
mod etcd;
pub mod machine;
mod request;
pub mod runner;
mod sqlite;
pub mod values;
pub mod view;

pub use address::{AddressError, CoordinationAddress, EtcdOptions, Login, connect};
