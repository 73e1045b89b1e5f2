//! Who a node is: the cluster's certificate authority, and the certificate made at each start.
//!
//! Every node derives the same authority from the secret, so none has to be handed out. That also
//! means that any node can claim any name: a certificate says "this caller holds the secret and
//! calls itself so", and keeps strangers out, not members from lying. Membership (which name, with
//! which volume) is the caller's to check.
//!
//! Certificates carry no useful dates: a cluster must come up on machines whose clocks are wrong,
//! and what ends a certificate's life is the process that made it, or a new secret.

use std::fmt;
use std::str::FromStr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Secret, TransportError};

/// The DER that stands before the 32 bytes of an Ed25519 seed in a PKCS #8 v1 key (RFC 8410).
const ED25519_PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// What the authority's name begins with; its fingerprint follows.
const AUTHORITY_NAME: &str = "mainstay cluster ";
/// The scheme of the name that a node's certificate carries: `mainstay:<service>/<node>`.
const PEER_SCHEME: &str = "mainstay:";
/// The longest service or node name.
const NAME_BYTES_MAX: usize = 63;

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// The service that it replicates.
    pub service: String,
    /// The node's name.
    pub node: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.node)
    }
}

/// Eight hexadecimal digits that are equal where the secret is, and tell nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 4]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Fingerprint {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Fingerprint, Self::Err> {
        u32::from_str_radix(text, 16).map(|digits| Fingerprint(digits.to_be_bytes()))
    }
}

/// What signs the nodes' certificates: the same on each node that holds the secret.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    fingerprint: Fingerprint,
}

/// A node's own certificate and its key.
pub(super) struct Identity {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

impl Authority {
    /// The authority that `secret` stands for.
    ///
    /// # Errors
    /// [`TransportError::Certificate`], which no secret is known to cause.
    pub fn new(secret: &Secret) -> Result<Authority, TransportError> {
        let seed = secret.derive("mainstay cluster authority v1");
        let pkcs8 = [&ED25519_PKCS8_PREFIX[..], &seed].concat();
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(pkcs8),
            &rcgen::PKCS_ED25519,
        )
        .map_err(refused)?;
        let hash = blake3::hash(key.public_key_raw());
        let [a, b, c, d, ..] = *hash.as_bytes();
        let fingerprint = Fingerprint([a, b, c, d]);
        let mut params = undated();
        params.serial_number = Some(SerialNumber::from(1_u64));
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{AUTHORITY_NAME}{fingerprint}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(refused)?.der().clone();
        Ok(Authority { issuer: Issuer::new(params, key), certificate, fingerprint })
    }

    /// What to compare when two nodes refuse each other.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A new key, and a certificate for it that names `peer`.
    pub(super) fn identify(&self, peer: &Peer) -> Result<Identity, TransportError> {
        for name in [&peer.service, &peer.node] {
            if !is_name(name) {
                return Err(TransportError::BadName { name: name.clone() });
            }
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(refused)?;
        let mut params = undated();
        params.distinguished_name.push(DnType::CommonName, peer.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let name = format!("{PEER_SCHEME}{peer}").try_into().map_err(refused)?;
        params.subject_alt_names = vec![SanType::URI(name)];
        let certificate = params.signed_by(&key, &self.issuer).map_err(refused)?.der().clone();
        Ok(Identity { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() })
    }
}

/// Certificate parameters without a name, valid for as long as anybody may live.
fn undated() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params
}

fn refused(error: rcgen::Error) -> TransportError {
    TransportError::Certificate { what: error.to_string() }
}

/// Names end up in paths, keys and certificates: letters, digits, `-`, `_` and `.` only.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whom `certificate` names. Only its signature says whether that is so.
pub(super) fn peer_named_by(certificate: &CertificateDer<'_>) -> Result<Peer, TransportError> {
    let bad = |what: &str| TransportError::Certificate { what: what.to_owned() };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| bad("not X.509"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| bad("its names do not parse"))?
        .ok_or_else(|| bad("it names nobody"))?;
    for name in &names.value.general_names {
        let GeneralName::URI(uri) = name else { continue };
        let Some((service, node)) =
            uri.strip_prefix(PEER_SCHEME).and_then(|peer| peer.split_once('/'))
        else {
            continue;
        };
        if is_name(service) && is_name(node) {
            return Ok(Peer { service: service.to_owned(), node: node.to_owned() });
        }
    }
    Err(bad("it names no node of any service"))
}

/// The fingerprint of the authority that `certificate` says to be signed by: a hint for people,
/// believed by nothing.
pub(super) fn authority_named_by(certificate: &CertificateDer<'_>) -> Option<Fingerprint> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.issuer().iter_common_name().next()?.as_str().ok()?;
    name.strip_prefix(AUTHORITY_NAME)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node: &str) -> Peer {
        Peer { service: "orders-db".into(), node: node.into() }
    }

    #[test]
    fn one_secret_gives_every_node_the_same_authority() {
        let secret = Secret::generate();
        let (one, two) = (Authority::new(&secret).unwrap(), Authority::new(&secret).unwrap());
        assert_eq!(one.certificate(), two.certificate());
        assert_eq!(one.fingerprint(), two.fingerprint());
        let other = Authority::new(&Secret::generate()).unwrap();
        assert_ne!(one.fingerprint(), other.fingerprint());
    }

    #[test]
    fn a_certificate_names_its_node_and_its_authority() {
        let authority = Authority::new(&Secret::generate()).unwrap();
        let identity = authority.identify(&peer("node-b.example_1")).unwrap();
        assert_eq!(peer_named_by(&identity.certificate).unwrap(), peer("node-b.example_1"));
        assert_eq!(authority_named_by(&identity.certificate), Some(authority.fingerprint()));
        assert!(peer_named_by(authority.certificate()).is_err(), "the authority is no node");
    }

    #[test]
    fn a_name_that_could_be_taken_for_a_path_is_refused() {
        let authority = Authority::new(&Secret::generate()).unwrap();
        for name in ["", "a/b", "a b", "é", &"a".repeat(64)] {
            let error = authority.identify(&peer(name)).err().unwrap().to_string();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
    }
}
