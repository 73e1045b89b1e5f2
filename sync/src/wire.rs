//! How records and messages become bytes: the only file that knows the encoding.
//!
//! The log, the transport and the vow call it. A record is encoded once, where it is made, and
//! those bytes go to the disk and to every follower as they are:
//!
//! ```text
//! head length, u32 little endian | head (bincode) | payload
//! ```
//!
//! Hazard: what is decoded may come from a broken disk or a hostile peer. Every length is checked
//! against a limit before anything is allocated for it, and left-over bytes are an error. The
//! encoding itself is pinned by `tests/golden/wire.txt`: a change there is a new wire version.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::op::{Head, Record};

/// Bytes that one encoded record may have. The kernel's largest write is 1 MiB.
pub const RECORD_BYTES_MAX: usize = 8 << 20;
/// Bytes that a record's encoded head may have.
pub const HEAD_BYTES_MAX: usize = 1 << 20;
/// Bytes that one encoded message may have.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

const HEAD_LENGTH_BYTES: usize = 4;

type Varints<const MAX: usize> = Configuration<LittleEndian, Varint, Limit<MAX>>;

fn varints<const MAX: usize>() -> Varints<MAX> {
    // Spelt out in full, so that a new release's idea of "standard" cannot change the wire.
    bincode::config::standard()
        .with_little_endian()
        .with_variable_int_encoding()
        .with_limit::<MAX>()
}

/// Bytes that are not what they were said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The input ends before the value does.
    #[error("{found} bytes are too few for a record: at least {needed} were expected")]
    Short {
        /// Bytes that there were.
        found: usize,
        /// Bytes that there should have been.
        needed: usize,
    },
    /// Above one of this module's limits.
    #[error("{found} bytes are too many: the limit is {limit}")]
    TooLarge {
        /// Bytes that there were, or were announced.
        found: usize,
        /// Bytes that there may be.
        limit: usize,
    },
    /// The value does not decode.
    #[error("bytes do not decode: {0}; is the other side of another version?")]
    Malformed(String),
    /// The value ends before the input does.
    #[error("{0} bytes are left over after the value; is the other side of another version?")]
    LeftOver(usize),
    /// The payload is not as long as the record's writes say.
    #[error("the record's writes call for {said} payload bytes and {found} follow")]
    Payload {
        /// Bytes that the changes call for.
        said: u64,
        /// Bytes that follow the head.
        found: u64,
    },
}

/// The bytes of `record`, for disk and wire.
///
/// Does not check the limits: the log refuses what is too large before it takes it.
#[must_use]
pub fn encode_record(record: &Record) -> Bytes {
    let mut bytes = BytesMut::with_capacity(256 + record.payload.len());
    bytes.put_u32_le(0);
    bincode::serde::encode_into_std_write(
        &record.head,
        &mut (&mut bytes).writer(),
        varints::<HEAD_BYTES_MAX>(),
    )
    .expect("a head is plain data and memory takes every byte");
    let head_length = u32::try_from(bytes.len() - HEAD_LENGTH_BYTES)
        .expect("a head of 4 GiB does not come from one filesystem request");
    bytes[..HEAD_LENGTH_BYTES].copy_from_slice(&head_length.to_le_bytes());
    bytes.extend_from_slice(&record.payload);
    bytes.freeze()
}

/// The record that `bytes` are. Its payload is a slice of `bytes`, not a copy.
///
/// # Errors
/// `bytes` are not exactly one record within the limits.
pub fn decode_record(bytes: Bytes) -> Result<Record, WireError> {
    let (head, payload_at) = decode_head(&bytes)?;
    Ok(Record { head, payload: bytes.slice(payload_at..) })
}

/// The head of an encoded record, and where its payload begins. Checks as [`decode_record`] does.
///
/// # Errors
/// As [`decode_record`].
pub fn decode_head(bytes: &[u8]) -> Result<(Head, usize), WireError> {
    at_most(bytes.len(), RECORD_BYTES_MAX)?;
    let short = |needed| WireError::Short { found: bytes.len(), needed };
    let (length, rest) =
        bytes.split_first_chunk::<HEAD_LENGTH_BYTES>().ok_or_else(|| short(HEAD_LENGTH_BYTES))?;
    let head_length = u32::from_le_bytes(*length) as usize;
    at_most(head_length, HEAD_BYTES_MAX)?;
    let payload_at = HEAD_LENGTH_BYTES + head_length;
    let head = rest.get(..head_length).ok_or_else(|| short(payload_at))?;
    let head: Head = decode::<_, HEAD_BYTES_MAX>(head)?;
    let found = (bytes.len() - payload_at) as u64;
    let said = head.payload_length();
    if said != found {
        return Err(WireError::Payload { said, found });
    }
    Ok((head, payload_at))
}

/// Checks an encoded record against the limits, as [`decode_record`] would elsewhere.
///
/// # Errors
/// Nobody would decode it.
pub fn check_record_size(bytes: &[u8]) -> Result<(), WireError> {
    at_most(bytes.len(), RECORD_BYTES_MAX)?;
    let head_length = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    at_most(head_length as usize, HEAD_BYTES_MAX)
}

/// The bytes of a message: anything but a record.
#[must_use]
pub fn encode_message<T: Serialize>(message: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(message, varints::<MESSAGE_BYTES_MAX>())
        .expect("messages are plain data whose collections know their lengths")
}

/// The message that `bytes` are.
///
/// # Errors
/// `bytes` are not exactly one `T` within [`MESSAGE_BYTES_MAX`].
pub fn decode_message<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    at_most(bytes.len(), MESSAGE_BYTES_MAX)?;
    decode::<T, MESSAGE_BYTES_MAX>(bytes)
}

/// What stands first in `bytes`, whatever follows: a version, by which the rest is to be read.
pub(crate) fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    bincode::serde::decode_from_slice(bytes, varints::<MESSAGE_BYTES_MAX>())
        .map(|(value, _)| value)
        .map_err(|error| WireError::Malformed(error.to_string()))
}

fn decode<T: DeserializeOwned, const MAX: usize>(bytes: &[u8]) -> Result<T, WireError> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, varints::<MAX>())
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(WireError::LeftOver(left)),
    }
}

fn at_most(found: usize, limit: usize) -> Result<(), WireError> {
    if found > limit { Err(WireError::TooLarge { found, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
