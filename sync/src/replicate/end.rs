//! How a session ends. None goes on for ever, so each end is an error that says why.

use crate::transport::{ChannelError, FrameKind, Goodbye, Receiving, Sending, TransportError};
use crate::wire::{self, WireError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::check::Unfit;
use super::ends::{SinkError, SourceError};
use super::plan::Refusal;

/// Why a session, on either side, is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error(transparent)]
    Link(#[from] TransportError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("a message from the peer: {0}")]
    Wire(#[from] WireError),
    #[error("the peer said {found} where {wanted} should have come")]
    Unexpected { wanted: &'static str, found: String },
    #[error("the peer contradicts itself: {0}")]
    Contradiction(String),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("the peer was silent for {seconds} s in the middle of the handshake")]
    Silent { seconds: u64 },
    #[error("a newer session of the same node took over")]
    Replaced,
    #[error(
        "the follower is {held} bytes of log behind and {limit} are held for one: it is told to \
         copy instead"
    )]
    Outrun { held: u64, limit: u64 },
    #[error("the volume is at another position now: coming back from there")]
    Reborn,
    #[error("following was stopped")]
    Stopped,
    #[error("a task of this process failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl End {
    /// The leader itself ended the session, or takes none: it does not lead.
    pub fn is_goodbye(&self) -> bool {
        matches!(self, End::Link(TransportError::NotLeading))
            || matches!(self, End::Channel(error) if error.is_goodbye())
    }

    /// What the peer is told.
    pub fn goodbye(&self) -> Goodbye {
        match self {
            End::Channel(error) if error.is_malformed() => Goodbye::Malformed,
            End::Wire(_) | End::Unexpected { .. } | End::Contradiction(_) | End::Unfit(_) => {
                Goodbye::Malformed
            }
            End::Refused(_) => Goodbye::NotWelcome,
            _ => Goodbye::Done,
        }
    }
}

/// Sends one message.
pub(super) async fn say<T: Serialize>(to: &mut Sending, message: &T) -> Result<(), End> {
    Ok(to.send(FrameKind::Message, wire::encode_message(message).into()).await?)
}

/// Waits for one message.
pub(super) async fn hear<T: DeserializeOwned>(from: &mut Receiving) -> Result<T, End> {
    let frame = from.next().await?;
    if frame.kind != FrameKind::Message {
        return Err(unexpected("a message", &frame.kind));
    }
    Ok(wire::decode_message(&frame.body)?)
}

/// What came is not what the protocol has here. Shows the beginning of it.
pub(super) fn unexpected(wanted: &'static str, found: &impl std::fmt::Debug) -> End {
    let found: String = format!("{found:?}").chars().take(80).collect();
    End::Unexpected { wanted, found }
}
