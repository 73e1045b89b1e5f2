//! Clusters of real processes, workloads that remember, and what becomes of them in a failover.
//!
//! Used by the whole-system tests, the demo and the benchmarks. It runs the daemon as a binary and
//! knows of it only what a person at a shell could: its configuration file, its commands and the
//! signals that it takes. Only [`sim`] looks inside: it runs the pure machines, without a daemon.

#[macro_use]
extern crate mainstay_mutant;

pub mod demo;
pub mod judge;
pub mod live;
pub mod measure;
pub mod nemesis;
pub mod observe;
pub mod pgbench;
pub mod report;
pub mod run;
pub mod sim;
pub mod store;
pub mod switchover;
pub mod workload;
pub mod world;
