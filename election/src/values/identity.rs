//! Ids: 16 random bytes, written as 32 hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadIdentity;
            fn try_from(text: String) -> Result<Self, BadIdentity> {
                text.parse()
            }
        }
        impl FromStr for $name {
            type Err = BadIdentity;
            fn from_str(text: &str) -> Result<Self, BadIdentity> {
                parse(text).map($name)
            }
        }
    };
}

identity! {
    /// One cluster: made when its first volume is, and never again.
    ClusterId
}
identity! {
    /// One copy of the volume on one disk.
    VolumeId
}
identity! {
    /// Made for one leadership of one process, and never again.
    Nonce
}

/// A text that is not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: 32 hexadecimal digits were expected")]
pub struct BadIdentity(String);

fn parse(text: &str) -> Result<[u8; 16], BadIdentity> {
    let bad = || BadIdentity(text.to_owned());
    // `from_str_radix` alone would take a sign for a digit.
    if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(bad());
    }
    u128::from_str_radix(text, 16).map(u128::to_be_bytes).map_err(|_| bad())
}
