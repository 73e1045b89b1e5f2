//! The one secret that all nodes of a cluster share, and what is derived from it.
//!
//! Whoever holds it is a node of the cluster: it makes the key that signs node certificates, and
//! the token that changes things through the API. Nothing here is ever logged; people compare
//! secrets by the eight digits of [`super::Authority::fingerprint`].

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What every secret's text begins with: the format's name and version.
const PREFIX: &str = "ms1-";
/// Bytes of checksum after the 32 bytes of the secret.
const CHECKSUM_BYTES: usize = 4;

/// 32 random bytes. As text `ms1-` and 72 hexadecimal digits, of which the last eight are a
/// checksum, so that a mistyped secret is found where it is read and not as a refused peer.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

/// Why a secret could not be read. The secret itself is never part of the message.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Not in the format at all.
    #[error(
        "the secret has {length} characters and should have 76: `ms1-` and 72 hexadecimal \
         digits; copy it again, or make one with `mainstay secret`"
    )]
    Malformed {
        /// Characters that there were, without white space around them.
        length: usize,
    },
    /// The format is right and a digit is not.
    #[error("the secret's checksum is wrong: a digit was mistyped or cut off; copy it again")]
    Mistyped,
    /// The file could not be read.
    #[error("cannot read the secret from {path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Secret {
    /// A new one from the system's random source.
    #[must_use]
    pub fn generate() -> Secret {
        Secret(rand::random())
    }

    /// Reads the secret in the file `path`; white space around it is ignored. Warns in the log
    /// when everybody on the machine may read the file.
    ///
    /// # Errors
    /// The file cannot be read or holds no secret.
    pub fn load(path: &Path) -> Result<Secret, SecretError> {
        let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & 0o004 != 0 {
            tracing::warn!(
                path = %path.display(),
                mode = format!("{mode:04o}"),
                "every user of this machine can read the cluster secret; run `chmod 0600` on it"
            );
        }
        text.parse()
    }

    /// A key for one `purpose` only; knowing it says nothing of the secret or of other keys.
    pub(super) fn derive(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.0)
    }

    /// The token that API calls which change something must carry.
    #[must_use]
    pub fn api_token(&self) -> ApiToken {
        ApiToken(blake3::Hash::from_bytes(self.derive("mainstay api token v1")))
    }

    /// The secret as people copy it. Deliberately not `Display`: it should not slip into a log.
    #[must_use]
    pub fn reveal(&self) -> String {
        let sum = checksum(&self.0);
        let digits: String = self.0.iter().chain(&sum).map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}{digits}")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Secret, SecretError> {
        let text = text.trim();
        let malformed = || SecretError::Malformed { length: text.chars().count() };
        let digits = text.strip_prefix(PREFIX).ok_or_else(malformed)?;
        let mut bytes = [0; 32 + CHECKSUM_BYTES];
        if digits.len() != 2 * bytes.len() || !digits.bytes().all(|d| d.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| malformed())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        let (secret, sum) = bytes.split_at(32);
        let secret: [u8; 32] = secret.try_into().map_err(|_| malformed())?;
        if sum != checksum(&secret) { Err(SecretError::Mistyped) } else { Ok(Secret(secret)) }
    }
}

fn checksum(secret: &[u8; 32]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("mainstay secret checksum v1", secret);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// What an API call that changes something must show.
#[derive(Clone)]
pub struct ApiToken(blake3::Hash);

impl ApiToken {
    /// Whether `text` is this token; takes the same time wherever it differs.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        blake3::Hash::from_hex(text.trim()).is_ok_and(|hash| hash == self.0)
    }

    /// The token as a caller sends it.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.0.to_hex().to_string()
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_being_copied() {
        let secret = Secret::generate();
        let text = secret.reveal();
        assert_eq!(text.len(), 76);
        assert_eq!(format!("  {text}\n").parse::<Secret>().unwrap(), secret);
        assert_eq!(format!("{secret:?}{:?}", secret.api_token()), "Secret(..)ApiToken(..)");
    }

    #[test]
    fn every_mistyped_digit_is_found_and_never_shown() {
        let text = Secret([7; 32]).reveal();
        for at in PREFIX.len()..text.len() {
            let digit = if &text[at..=at] == "0" { "1" } else { "0" };
            let typo = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
            let error = typo.parse::<Secret>().unwrap_err();
            assert!(matches!(error, SecretError::Mistyped), "digit {at}");
            assert!(!error.to_string().contains(&typo[at..]));
        }
        for cut in ["", "ms1-", &text[1..], &text[..75], "ms1-+1"] {
            assert!(matches!(cut.parse::<Secret>(), Err(SecretError::Malformed { .. })), "{cut}");
        }
    }

    #[test]
    fn a_file_is_read_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let missing = Secret::load(&path).unwrap_err().to_string();
        assert!(missing.contains(path.to_str().unwrap()), "{missing}");
        let secret = Secret::generate();
        std::fs::write(&path, format!("{}\n", secret.reveal())).unwrap();
        assert_eq!(Secret::load(&path).unwrap(), secret);
    }

    #[test]
    fn the_token_is_the_same_on_every_node_and_opens_nothing_else() {
        let (one, other) = (Secret([1; 32]), Secret([2; 32]));
        assert!(one.api_token().matches(&one.clone().api_token().reveal()));
        assert!(!one.api_token().matches(&other.api_token().reveal()));
        assert!(!one.api_token().matches(""));
        assert_ne!(one.derive("a"), one.derive("b"));
    }
}
