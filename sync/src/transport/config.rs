//! What QUIC and TLS are told: who we are, whom to trust, and how near the peers are.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AckFrequencyConfig, EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustix::net::sockopt;
use rustls::crypto::CryptoProvider;

use super::identity::Identity;
use super::verify::Verifier;
use super::{EndpointOptions, TransportError};

/// The protocol's name in the handshake, with the number of its messages (`replicate::plan::PROTOCOL`).
/// Another version's cannot even be read, so whoever speaks one is told before the first.
const PROTOCOL: &[u8] = b"mainstay/3";
/// What may be under way to a peer, unacknowledged: a gigabit for half a second.
const SEND_WINDOW_BYTES: u64 = 64 << 20;
/// What a peer may have sent that we have not read; the bound of a slow reader's memory.
const RECEIVE_WINDOW_BYTES: u32 = 16 << 20;
/// The largest datagram that is tried. Networks between machines in one place often carry more than
/// the 1472 bytes of the plain Ethernet, and loopback does; fewer datagrams are less work for both
/// ends. Not more, as quinn hands the kernel ten at once, and what it hands over has to be below
/// 65,507 bytes, or is dropped without a word.
const DATAGRAM_BYTES_MAX: u16 = 6500;
/// What the kernel may keep of a burst while our threads wait for a core. It gives as much as its
/// own limit allows (`net.core.rmem_max`).
const SOCKET_BYTES: usize = 4 << 20;
/// Streams of one link. A session uses one.
const STREAMS_MAX: u32 = 4;

/// What all links of an endpoint have in common.
pub(super) fn endpoint() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config
        .max_udp_payload_size(DATAGRAM_BYTES_MAX)
        .expect("it is above the least that QUIC asks for");
    config
}

/// Lets the kernel keep more than its default, of which one burst overflows it: a lost datagram
/// halves what may be under way.
pub(super) fn widen(socket: &std::net::UdpSocket) {
    let widened = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BYTES)
        .and_then(|()| sockopt::set_socket_send_buffer_size(socket, SOCKET_BYTES));
    if let Err(error) = widened {
        tracing::debug!(%error, "the socket keeps the size that it has");
    }
}

/// What dials as `identity`, and has `verifier` judge who answers.
pub(super) fn client(
    identity: &Identity,
    verifier: Arc<Verifier>,
    provider: &Arc<CryptoProvider>,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ClientConfig, TransportError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .map_err(unusable)?;
    tls.alpn_protocols = vec![PROTOCOL.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    let crypto = QuicClientConfig::try_from(tls).map_err(unusable)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport.clone());
    Ok(config)
}

/// What answers as `identity`, and has `verifier` judge who calls.
pub(super) fn server(
    identity: &Identity,
    verifier: Arc<Verifier>,
    provider: &Arc<CryptoProvider>,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ServerConfig, TransportError> {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .map_err(unusable)?;
    tls.alpn_protocols = vec![PROTOCOL.to_vec()];
    tls.send_tls13_tickets = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(unusable)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport.clone());
    Ok(config)
}

/// Nodes are near each other and talk all the time: assume a short round trip until it is
/// measured, acknowledge early, keep the windows wide, use nothing but ordered streams.
pub(super) fn transport(options: &EndpointOptions) -> TransportConfig {
    let mut acks = AckFrequencyConfig::default();
    acks.max_ack_delay(Some(Duration::from_millis(5)));
    let idle = VarInt::try_from(options.idle_timeout.as_millis() as u64).unwrap_or(VarInt::MAX);
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM_BYTES_MAX);
    let mut config = TransportConfig::default();
    config
        .mtu_discovery_config(Some(mtu))
        .keep_alive_interval(Some(options.keep_alive))
        .max_idle_timeout(Some(idle.into()))
        .initial_rtt(Duration::from_millis(50))
        .ack_frequency_config(Some(acks))
        .send_window(SEND_WINDOW_BYTES)
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    config
}

fn unusable(error: impl std::fmt::Display) -> TransportError {
    TransportError::Certificate { what: error.to_string() }
}
