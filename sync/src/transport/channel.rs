//! One ordered stream of frames: `[length: u32, little-endian][kind: u8][body]`.
//!
//! Payload bytes are not copied on the way out, and once on the way in. A length is checked
//! before a byte of its body is kept, and memory grows only with what really arrived.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::TransportError;
use super::endpoint::why_lost;

/// The longest body of a frame.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Length and kind.
const HEADER_BYTES: usize = 5;
/// What one read may take from the stream.
const READ_BYTES: usize = 1 << 20;

/// What a frame's body is. Numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A message of the session.
    Message = 0,
    /// A record, as the log keeps it.
    Record = 1,
    /// Bytes of a file.
    Data = 2,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What `body` is.
    pub kind: FrameKind,
    /// At most [`FRAME_BYTES_MAX`] bytes.
    pub body: Bytes,
}

/// Why a channel gives or takes no more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The link beneath is lost, or the peer gave the channel up.
    #[error(transparent)]
    Link(#[from] TransportError),
    /// The peer ended the channel in order.
    #[error("the peer ended the session")]
    Ended,
    /// The peer stopped in the middle of a frame.
    #[error("the stream ends inside a frame")]
    CutOff,
    /// A frame of a kind that this version does not know.
    #[error("there is no frame of kind {kind}")]
    UnknownKind {
        /// The number.
        kind: u8,
    },
    /// A frame longer than any can be.
    #[error("a frame of {bytes} bytes is longer than the {FRAME_BYTES_MAX} that are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl ChannelError {
    /// Whether the peer said that it takes no sessions, or no longer.
    #[must_use]
    pub fn is_goodbye(&self) -> bool {
        matches!(self, ChannelError::Link(TransportError::NotLeading))
    }

    /// Whether the peer broke the protocol (and not merely went away).
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        !matches!(self, ChannelError::Link(_) | ChannelError::Ended)
    }
}

/// Both directions of a channel.
pub struct Channel {
    /// To the peer.
    pub sending: Sending,
    /// From the peer.
    pub receiving: Receiving,
}

impl Channel {
    pub(super) fn new((send, receive): (quinn::SendStream, quinn::RecvStream)) -> Channel {
        let sending = Sending { stream: send, chunks: Vec::new() };
        let receiving = Receiving { stream: receive, buffer: BytesMut::new() };
        Channel { sending, receiving }
    }
}

/// The half that sends.
pub struct Sending {
    stream: quinn::SendStream,
    chunks: Vec<Bytes>,
}

impl Sending {
    /// Puts a frame behind those queued; nothing is sent before [`Sending::flush`].
    ///
    /// # Errors
    /// [`ChannelError::TooLong`]; it was not queued.
    pub fn queue(&mut self, kind: FrameKind, body: Bytes) -> Result<(), ChannelError> {
        if body.len() > FRAME_BYTES_MAX {
            return Err(ChannelError::TooLong { bytes: body.len() });
        }
        let mut header = BytesMut::with_capacity(HEADER_BYTES);
        header.put_u32_le(u32::try_from(body.len()).expect("FRAME_BYTES_MAX is below 4 GiB"));
        header.put_u8(kind as u8);
        self.chunks.push(header.freeze());
        self.chunks.push(body);
        Ok(())
    }

    /// Hands what is queued to the link; waits while its window is full. When dropped before it
    /// is done, the channel is broken and must be given up.
    ///
    /// # Errors
    /// The link is lost, or the peer reads no more.
    pub async fn flush(&mut self) -> Result<(), ChannelError> {
        let mut chunks = std::mem::take(&mut self.chunks);
        self.stream.write_all_chunks(&mut chunks).await.map_err(|error| match error {
            quinn::WriteError::ConnectionLost(error) => why_lost(&error),
            other => TransportError::Lost { what: other.to_string() },
        })?;
        Ok(())
    }

    /// Sends one frame (and all queued before it).
    ///
    /// # Errors
    /// As [`Sending::queue`] and [`Sending::flush`].
    pub async fn send(&mut self, kind: FrameKind, body: Bytes) -> Result<(), ChannelError> {
        self.queue(kind, body)?;
        self.flush().await
    }

    /// Ends this direction in order and waits until the peer has everything.
    ///
    /// # Errors
    /// The link is lost first.
    pub async fn finish(&mut self) -> Result<(), ChannelError> {
        let lost = |what: String| ChannelError::Link(TransportError::Lost { what });
        self.stream.finish().map_err(|error| lost(error.to_string()))?;
        self.stream.stopped().await.map_err(|error| lost(error.to_string()))?;
        Ok(())
    }
}

/// The half that receives.
pub struct Receiving {
    stream: quinn::RecvStream,
    buffer: BytesMut,
}

impl Receiving {
    /// The next frame, waiting for it. May be dropped and called again: nothing is lost.
    ///
    /// # Errors
    /// The channel has ended, or the peer broke the format.
    pub async fn next(&mut self) -> Result<Frame, ChannelError> {
        loop {
            if let Some(frame) = self.next_here()? {
                return Ok(frame);
            }
            let chunk = self.stream.read_chunk(READ_BYTES, true).await;
            match chunk.map_err(|error| match error {
                quinn::ReadError::ConnectionLost(error) => why_lost(&error),
                other => TransportError::Lost { what: other.to_string() },
            })? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if self.buffer.is_empty() => return Err(ChannelError::Ended),
                None => return Err(ChannelError::CutOff),
            }
        }
    }

    /// The next frame, if all of it is here already.
    ///
    /// # Errors
    /// The peer broke the format.
    pub fn next_here(&mut self) -> Result<Option<Frame>, ChannelError> {
        take_frame(&mut self.buffer)
    }
}

fn take_frame(buffer: &mut BytesMut) -> Result<Option<Frame>, ChannelError> {
    if buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let length = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
    let kind = match buffer[4] {
        0 => FrameKind::Message,
        1 => FrameKind::Record,
        2 => FrameKind::Data,
        kind => return Err(ChannelError::UnknownKind { kind }),
    };
    if length > FRAME_BYTES_MAX {
        return Err(ChannelError::TooLong { bytes: length });
    }
    if buffer.len() < HEADER_BYTES + length {
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    Ok(Some(Frame { kind, body: buffer.split_to(length).freeze() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_when_all_of_it_is_there() {
        let bytes = [3, 0, 0, 0, 1, b'a', b'b', b'c', 0, 0, 0, 0, 2, 9];
        for cut in 0..8 {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            assert_eq!(take_frame(&mut buffer).unwrap(), None, "{cut} bytes");
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        let frame = take_frame(&mut buffer).unwrap().unwrap();
        assert_eq!(frame, Frame { kind: FrameKind::Record, body: Bytes::from_static(b"abc") });
        let frame = take_frame(&mut buffer).unwrap().unwrap();
        assert_eq!(frame, Frame { kind: FrameKind::Data, body: Bytes::new() });
        assert_eq!(take_frame(&mut buffer).unwrap(), None);
    }

    #[test]
    fn a_header_is_judged_before_its_body_arrives() {
        let mut long = BytesMut::from(&[1, 0, 0, 1, 0][..]);
        assert!(matches!(take_frame(&mut long), Err(ChannelError::TooLong { bytes: 0x0100_0001 })));
        let mut odd = BytesMut::from(&[0, 0, 0, 0, 7][..]);
        assert!(matches!(take_frame(&mut odd), Err(ChannelError::UnknownKind { kind: 7 })));
    }
}
