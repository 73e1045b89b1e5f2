//! Authenticated links between the nodes of a cluster: QUIC with both sides' certificates checked.
//!
//! Called by [`crate::replicate`]; knows nothing of volumes. An [`Endpoint`] is one UDP port that
//! both dials and answers. A [`Link`] is a connection to a named [`Peer`]; a [`Channel`] is one
//! ordered stream of frames on it. The hazard here is trust: a peer that is let in holds the
//! cluster's secret and may still be broken or hostile, so frames are bounded and whoever reads
//! them checks what they say.

mod channel;
mod config;
mod endpoint;
mod error;
mod identity;
mod secret;
mod verify;

pub use channel::{Channel, ChannelError, FRAME_BYTES_MAX, Frame, FrameKind, Receiving, Sending};
pub use endpoint::{Endpoint, EndpointOptions, Goodbye, Link, Listener};
pub use error::TransportError;
pub use identity::{Authority, Fingerprint, Peer};
pub use secret::{ApiToken, Secret, SecretError};
