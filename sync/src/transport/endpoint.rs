//! One UDP port that dials peers and answers them.
//!
//! A node has one endpoint for its whole life and leads only sometimes; so callers are answered
//! here at any time, and told at once to go elsewhere while nobody listens.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{ConnectionError, TokioRuntime, TransportConfig, VarInt};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::config;
use super::identity::{self, Authority, Identity, Peer};
use super::verify::Verifier;
use super::{Channel, Secret, TransportError};

/// TLS wants a name to ask for; nobody looks at it (see [`Verifier`]).
const ASKED_NAME: &str = "mainstay";
/// Handshakes in progress that others started; more are refused, and try again.
const HANDSHAKES_MAX: usize = 64;
/// Links answered and not yet taken by the listener.
const LINKS_WAITING_MAX: usize = 16;
/// The TLS alert for "no application protocol in common", as a QUIC error code (RFC 9001, 4.8).
const NO_COMMON_PROTOCOL: u64 = 0x100 + 120;

/// How patient the links of an endpoint are.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// How often a silent link is probed.
    pub keep_alive: Duration,
    /// A link on which nothing arrived for so long is lost. Several times `keep_alive`.
    pub idle_timeout: Duration,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        EndpointOptions {
            keep_alive: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(3),
        }
    }
}

/// Why a link was closed, as the code that the other side gets. Numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Goodbye {
    /// All is said.
    Done = 0,
    /// Nobody takes sessions here now.
    NotLeading = 1,
    /// The caller belongs to another service, or may not follow.
    NotWelcome = 2,
    /// What arrived breaks the protocol.
    Malformed = 3,
    /// The process ends.
    Leaving = 4,
}

/// One UDP port. A cheap handle; the port is given back when the last one is gone.
#[derive(Clone)]
pub struct Endpoint(Arc<Shared>);

struct Shared {
    quic: quinn::Endpoint,
    authority: Arc<Authority>,
    identity: Identity,
    name: Peer,
    transport: Arc<TransportConfig>,
    provider: Arc<CryptoProvider>,
    door: Arc<Door>,
    answering: JoinHandle<()>,
}

/// Where answered links go: to the newest listener.
#[derive(Default)]
struct Door(Mutex<Option<mpsc::Sender<Link>>>);

impl Endpoint {
    /// Takes `address` and answers there as `name`; port 0 takes any. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`TransportError::Bind`], or a name that cannot be in a certificate.
    pub fn bind(
        address: SocketAddr,
        secret: &Secret,
        name: Peer,
        options: &EndpointOptions,
    ) -> Result<Endpoint, TransportError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authority = Arc::new(Authority::new(secret)?);
        let identity = authority.identify(&name)?;
        let transport = Arc::new(config::transport(options));
        let verifier = Arc::new(Verifier::new(&authority, provider.clone())?);
        let server = config::server(&identity, verifier, &provider, &transport)?;
        let bind = |source| TransportError::Bind { address, source };
        let socket = std::net::UdpSocket::bind(address).map_err(bind)?;
        config::widen(&socket);
        let (endpoint, runtime) = (config::endpoint(), Arc::new(TokioRuntime));
        let quic = quinn::Endpoint::new(endpoint, Some(server), socket, runtime).map_err(bind)?;
        let door = Arc::new(Door::default());
        let answering = tokio::spawn(answer(quic.clone(), name.service.clone(), door.clone()));
        let shared =
            Shared { quic, authority, identity, name, transport, provider, door, answering };
        Ok(Endpoint(Arc::new(shared)))
    }

    /// The address taken, with its real port.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.0.quic.local_addr()
    }

    /// As whom this endpoint answers.
    #[must_use]
    pub fn name(&self) -> &Peer {
        &self.0.name
    }

    /// The authority of this endpoint's cluster.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.0.authority
    }

    /// Takes the links that peers open from now on. An earlier listener gets none any more.
    #[must_use]
    pub fn listen(&self) -> Listener {
        let (sender, links) = mpsc::channel(LINKS_WAITING_MAX);
        *self.0.door.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Listener(links)
    }

    /// Opens a link to `address`, where `node` of our own service should answer.
    ///
    /// # Errors
    /// Why there is none. Dropping the future gives up.
    pub async fn connect(&self, address: SocketAddr, node: &str) -> Result<Link, TransportError> {
        let shared = &self.0;
        let verifier = Arc::new(Verifier::new(&shared.authority, shared.provider.clone())?);
        let Shared { identity, provider, transport, .. } = &**shared;
        let config = config::client(identity, verifier.clone(), provider, transport)?;
        let connection = shared
            .quic
            .connect_with(config, address, ASKED_NAME)
            .map_err(|error| TransportError::Undialable { address, what: error.to_string() })?
            .await
            .map_err(|error| self.why_refused(address, &verifier, &error))?;
        let peer = peer_of(&connection)?;
        if peer.service != shared.name.service || peer.node != node {
            let expected = Peer { service: shared.name.service.clone(), node: node.to_owned() };
            close(&connection, Goodbye::NotWelcome, "another node was called");
            let (expected, found) = (expected.to_string(), peer.to_string());
            return Err(TransportError::OtherNode { address, expected, found });
        }
        Ok(Link { connection, peer })
    }

    /// Ends all links, telling the peers, and waits until they were told.
    pub async fn close(&self) {
        self.0.quic.close(VarInt::from_u32(Goodbye::Leaving as u32), b"the process ends");
        self.0.quic.wait_idle().await;
    }

    fn why_refused(
        &self,
        address: SocketAddr,
        verifier: &Verifier,
        error: &ConnectionError,
    ) -> TransportError {
        let ours = self.0.authority.fingerprint();
        if let Some(theirs) = verifier.take_stranger() {
            return TransportError::OtherSecret { address, ours, theirs };
        }
        match error {
            ConnectionError::TimedOut => TransportError::Unreachable { address },
            ConnectionError::VersionMismatch => TransportError::OtherProtocol { address },
            ConnectionError::TransportError(told) if u64::from(told.code) == NO_COMMON_PROTOCOL => {
                TransportError::OtherProtocol { address }
            }
            ConnectionError::ConnectionClosed(told)
                if u64::from(told.error_code) == NO_COMMON_PROTOCOL =>
            {
                TransportError::OtherProtocol { address }
            }
            ConnectionError::ConnectionClosed(told) => {
                TransportError::Rejected { address, ours, what: told.to_string() }
            }
            other => why_lost(other),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.answering.abort();
        self.quic.close(VarInt::from_u32(Goodbye::Leaving as u32), b"the process ends");
    }
}

/// Hands out the links that peers open.
pub struct Listener(mpsc::Receiver<Link>);

impl Listener {
    /// The next one; `None` once the endpoint is gone or a newer listener took over.
    pub async fn next(&mut self) -> Option<Link> {
        self.0.recv().await
    }
}

/// A connection to a peer that holds the cluster's secret. A cheap handle.
#[derive(Clone, Debug)]
pub struct Link {
    connection: quinn::Connection,
    peer: Peer,
}

impl Link {
    /// Who is there, by its own word (see [`super::identity`] for what that is worth).
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Where it is now.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// The current estimate of the time to there and back.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Opens a channel; the peer sees it once something is sent.
    ///
    /// # Errors
    /// The link is lost.
    pub async fn open(&self) -> Result<Channel, TransportError> {
        self.connection.open_bi().await.map(Channel::new).map_err(|error| why_lost(&error))
    }

    /// The next channel that the peer opens.
    ///
    /// # Errors
    /// The link is lost.
    pub async fn accept(&self) -> Result<Channel, TransportError> {
        self.connection.accept_bi().await.map(Channel::new).map_err(|error| why_lost(&error))
    }

    /// Ends the link, and every channel on it, at once.
    pub fn close(&self, code: Goodbye, why: &str) {
        close(&self.connection, code, why);
    }

    /// Returns when the link has ended, and says how.
    pub async fn closed(&self) -> TransportError {
        why_lost(&self.connection.closed().await)
    }
}

async fn answer(quic: quinn::Endpoint, service: String, door: Arc<Door>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = quic.accept().await {
        let Ok(place) = places.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let (service, door) = (service.clone(), door.clone());
        tokio::spawn(async move {
            let address = incoming.remote_address();
            if let Err(error) = admit(incoming, &service, &door).await {
                tracing::warn!(%address, %error, "a caller was not let in");
            }
            drop(place);
        });
    }
}

async fn admit(
    incoming: quinn::Incoming,
    service: &str,
    door: &Door,
) -> Result<(), TransportError> {
    let connection = incoming.await.map_err(|error| why_lost(&error))?;
    let peer = peer_of(&connection)?;
    if peer.service != service {
        close(&connection, Goodbye::NotWelcome, "this node replicates another service");
        let (address, found) = (connection.remote_address(), peer.to_string());
        return Err(TransportError::OtherNode { address, expected: format!("{service}/*"), found });
    }
    let listener = door.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let link = Link { connection, peer };
    let refused = match listener {
        Some(listener) => listener.try_send(link).err().map(|error| match error {
            mpsc::error::TrySendError::Full(link) | mpsc::error::TrySendError::Closed(link) => link,
        }),
        None => Some(link),
    };
    if let Some(link) = refused {
        link.close(Goodbye::NotLeading, "this node takes no sessions now");
    }
    Ok(())
}

fn close(connection: &quinn::Connection, code: Goodbye, why: &str) {
    connection.close(VarInt::from_u32(code as u32), why.as_bytes());
}

fn peer_of(connection: &quinn::Connection) -> Result<Peer, TransportError> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let certificate = chain.as_ref().and_then(|chain| chain.first());
    let missing = || TransportError::Certificate { what: "the peer showed none".to_owned() };
    identity::peer_named_by(certificate.ok_or_else(missing)?)
}

pub(super) fn why_lost(error: &ConnectionError) -> TransportError {
    match error {
        ConnectionError::ApplicationClosed(told)
            if told.error_code == VarInt::from_u32(Goodbye::NotLeading as u32) =>
        {
            TransportError::NotLeading
        }
        other => TransportError::Lost { what: other.to_string() },
    }
}
