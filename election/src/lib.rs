//! Who leads: coordinators, the election machine and its runner.

mod address;
pub mod coordinator;
mod etcd;
mod request;
mod sqlite;
pub mod machine;
pub mod runner;
pub mod values;
pub mod view;

pub use address::{AddressError, CoordinationAddress, EtcdOptions, Login, connect};
