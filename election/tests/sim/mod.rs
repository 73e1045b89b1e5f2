//! A world for election machines: one model coordinator, nodes with disks and clocks of their own,
//! and a network that delays and loses. Nothing in it depends on real time or real chance.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod beats;
pub mod checks;
pub mod model;
pub mod node;
pub mod world;
