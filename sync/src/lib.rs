//! One replica's volume: capture, log, objects, and their replication.
//!
//! A service's writes are captured by a FUSE mount as [`op::Record`]s, made durable in the log,
//! streamed to the followers, and only then applied to plain files, the objects. Leader and
//! follower keep the same two things, a log and the objects, and use the same applier.

#[macro_use]
extern crate mainstay_mutant;

pub mod capture;
pub mod commit;
pub mod export;
pub mod fsck;
pub mod image;
pub mod import;
pub mod journal;
pub mod log;
pub mod namespace;
pub mod op;
pub mod position;
pub mod quarantine;
pub mod replicate;
pub mod store;
pub mod transport;
pub mod volume;
pub mod vow;
pub mod wire;
