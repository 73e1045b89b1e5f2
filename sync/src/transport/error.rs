//! What can go wrong between two nodes, in words that say what to do about it.

use std::io;
use std::net::SocketAddr;

use super::Fingerprint;

/// Why an endpoint could not be opened or a peer not be reached.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The UDP port could not be taken.
    #[error(
        "cannot listen on UDP {address}: {source}; another process may hold the port, or the \
         address is not one of this machine's"
    )]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody answered.
    #[error(
        "no answer from {address} (UDP): the node is down, or a firewall drops UDP between here \
         and there"
    )]
    Unreachable {
        /// Who was dialled.
        address: SocketAddr,
    },
    /// The address cannot be dialled from here at all.
    #[error("cannot dial {address}: {what}")]
    Undialable {
        /// Who was dialled.
        address: SocketAddr,
        /// What is wrong with it.
        what: String,
    },
    /// The other side holds another cluster's secret.
    #[error(
        "{address} has another cluster secret: ours has the fingerprint {ours}, theirs {theirs}; \
         give both nodes the same secret"
    )]
    OtherSecret {
        /// Who was dialled.
        address: SocketAddr,
        /// Ours.
        ours: Fingerprint,
        /// What the other side's certificate says.
        theirs: Fingerprint,
    },
    /// The other side did not let us in.
    #[error(
        "{address} refused this node's certificate (our secret's fingerprint is {ours}): {what}"
    )]
    Rejected {
        /// Who was dialled.
        address: SocketAddr,
        /// Ours.
        ours: Fingerprint,
        /// What it said.
        what: String,
    },
    /// Another node answered.
    #[error("{address} is {found}, not {expected}: an address was reused or mistyped")]
    OtherNode {
        /// Who was dialled.
        address: SocketAddr,
        /// Who should have answered, as `service/node`.
        expected: String,
        /// Who did.
        found: String,
    },
    /// No common protocol version.
    #[error(
        "{address} speaks no version of the protocol that this one does: upgrade the older node"
    )]
    OtherProtocol {
        /// Who was dialled.
        address: SocketAddr,
    },
    /// The other side is up and takes no sessions now: it does not lead.
    #[error("the node there takes no sessions: it does not lead now")]
    NotLeading,
    /// The link ended.
    #[error("the link ended: {what}")]
    Lost {
        /// How.
        what: String,
    },
    /// A name that cannot be in a certificate.
    #[error(
        "{name:?} cannot name a node or a service: 1 to 63 letters, digits, `-`, `_` and `.` are \
         allowed"
    )]
    BadName {
        /// Which.
        name: String,
    },
    /// A certificate could not be made or read.
    #[error("a certificate is unusable: {what}")]
    Certificate {
        /// Why.
        what: String,
    },
}
