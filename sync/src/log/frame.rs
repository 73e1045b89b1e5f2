//! One record as the log and the senders hand it round: decoded head, encoded bytes.

use std::sync::Arc;

use bytes::Bytes;

use crate::op::{Head, Record};
use crate::position::{Position, Seq};
use crate::wire::{self, WireError};

/// A record encoded once. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the record says.
    pub head: Arc<Head>,
    /// The encoded record, as on disk and wire.
    pub bytes: Bytes,
}

impl Frame {
    /// Encodes `record`.
    #[must_use]
    pub fn encode(record: &Record) -> Frame {
        Frame { head: Arc::new(record.head.clone()), bytes: wire::encode_record(record) }
    }

    /// Takes the bytes of a record as they came from a peer or the disk.
    ///
    /// # Errors
    /// They are not exactly one record.
    pub fn decode(bytes: Bytes) -> Result<Frame, WireError> {
        let (head, _) = wire::decode_head(&bytes)?;
        Ok(Frame { head: Arc::new(head), bytes })
    }

    /// The whole record; its payload is a slice of [`Frame::bytes`].
    #[must_use]
    pub fn record(&self) -> Record {
        let payload_bytes = usize::try_from(self.head.payload_length())
            .expect("a frame's payload is part of its bytes");
        let payload = self.bytes.slice(self.bytes.len() - payload_bytes..);
        Record { head: Head::clone(&self.head), payload }
    }

    /// The record's place.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.head.seq
    }

    /// Where a log stands that ends with this record.
    #[must_use]
    pub fn position(&self) -> Position {
        self.head.position()
    }
}
