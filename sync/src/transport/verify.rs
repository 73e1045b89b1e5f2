//! Lets in who holds the cluster's secret, and says clearly why it kept out who does not.
//!
//! Called by rustls in the middle of a handshake. The chain's mathematics are webpki's; this only
//! gives them the one authority and a fixed time (certificates here end with their process, not
//! with a date, so a wrong clock is never a reason), and remembers why a chain failed, which a
//! TLS alert cannot carry.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::TransportError;
use super::identity::{self, Authority, Fingerprint};

/// The time at which all chains are judged: 2024-01-01, inside every certificate's dates.
const JUDGED_AT: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_704_067_200));

/// Judges both sides' certificates against one authority.
pub(super) struct Verifier {
    roots: RootCertStore,
    clients: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
    ours: Fingerprint,
    /// The last chain that another authority signed.
    stranger: Mutex<Option<Fingerprint>>,
}

impl Verifier {
    pub fn new(
        authority: &Authority,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, TransportError> {
        let wrong = |what: String| TransportError::Certificate { what };
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).map_err(|error| wrong(error.to_string()))?;
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone())
                .build()
                .map_err(|error| wrong(error.to_string()))?;
        let ours = authority.fingerprint();
        Ok(Verifier { roots, clients, provider, ours, stranger: Mutex::default() })
    }

    /// The authority of the last chain that was refused for it, once.
    pub fn take_stranger(&self) -> Option<Fingerprint> {
        self.stranger.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes what a refused chain says of its authority.
    fn explain(&self, certificate: &CertificateDer<'_>, error: Error) -> Error {
        let foreign = matches!(
            error,
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature
            )
        );
        if foreign && let Some(theirs) = identity::authority_named_by(certificate) {
            *self.stranger.lock().unwrap_or_else(PoisonError::into_inner) = Some(theirs);
        }
        error
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.ours)
    }
}

impl ServerCertVerifier for Verifier {
    /// The name asked for is not looked at: the endpoint compares the node once the handshake is
    /// through, and can then say whom it found.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            JUDGED_AT,
            self.provider.signature_verification_algorithms.all,
        )
        .map(|()| ServerCertVerified::assertion())
        .map_err(|error| self.explain(end_entity, error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.clients
            .verify_client_cert(end_entity, intermediates, JUDGED_AT)
            .map_err(|error| self.explain(end_entity, error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}
