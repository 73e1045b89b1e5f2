//! Keeps followers' logs and volumes equal to the leader's.
//!
//! Called by the replica's leader and follower scopes; knows volumes only through [`Source`] and
//! [`Sink`], and peers only through [`crate::transport`]. A follower dials its leader, says where
//! it stands ([`plan`]), is brought to a common ancestor, and then takes the leader's records in
//! order and says what is durable.
//!
//! The hazards: an acknowledgement that does not mean what the leader takes it for (so each
//! carries its epoch and counts only in the session that matched the two lineages), a copy that
//! looks whole before it is (so a builder is at its old position until the last record it needs
//! is durable), and a peer that holds the secret and sends nonsense ([`check`]).

pub mod check;
mod clock;
mod copy;
mod delta;
mod end;
mod ends;
mod follower;
mod intake;
mod leader;
pub mod message;
mod pace;
pub mod plan;
mod serve_copy;
mod serve_delta;
mod serve_verify;
mod session;
mod table;
mod verify;
mod volume;

pub use ends::{Builder, Changes, Delta, Records, Sink, SinkError, Snapshot, Source, SourceError};
pub use follower::{Follower, FollowerOptions, LeaderAddress, Phase, Status, Verifying};
pub use leader::{Admit, Event, Leader, LeaderOptions};
pub use message::{Mismatch, Outcome, Stamp, Verified};
pub use plan::{Refusal, Standing, Verdict, Why};
pub use table::{CopyProgress, FollowerStatus};
