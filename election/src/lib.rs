//! Who leads: coordinators, the election machine and its runner.

pub mod coordinator;
pub mod machine;
pub mod runner;
pub mod values;
pub mod view;
