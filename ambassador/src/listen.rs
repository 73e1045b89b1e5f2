//! Listening sockets: binding, accepting, and letting go of them without losing a client.
//!
//! Every forwarding thread has a TCP listener of its own (`SO_REUSEPORT`), so that the kernel
//! spreads clients over them. Hazards:
//! - a client sits in the queue of *one* listener and is reset when that closes: a listener that
//!   goes accepts what it has first; a restart hands the listeners over, so that none closes;
//! - out of descriptors, `accept` fails at once and for ever: it pauses then.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};

use crate::address::Address;
use crate::config::Keepalive;
use crate::conn::{Conn, tune};

/// The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Until a descriptor may have come free.
const PAUSE: Duration = Duration::from_millis(100);
/// A Unix socket's owner and group may connect, whatever the umask.
const UNIX_MODE: u32 = 0o660;

/// Listening sockets taken over from an ambassador that is about to end.
///
/// Carry them by inheritance or `SCM_RIGHTS`; [`crate::Ambassador::listeners`] gives them out.
#[derive(Debug, Default)]
pub struct Inherited {
    by_address: HashMap<Address, Vec<OwnedFd>>,
}

impl Inherited {
    /// Adds one listening socket of `listen`, as it stood in the route's configuration.
    pub fn add(&mut self, listen: Address, socket: OwnedFd) {
        self.by_address.entry(listen).or_default().push(socket);
    }

    fn take(&mut self, listen: &Address) -> Vec<OwnedFd> {
        self.by_address.remove(listen).unwrap_or_default()
    }
}

/// All sockets of one address, not yet accepting.
#[derive(Debug)]
pub(crate) struct Bound {
    /// With the port that was really taken.
    pub(crate) address: Address,
    pub(crate) sockets: Vec<OwnedFd>,
}

/// Binds `listen` once per thread (a Unix socket: once), or takes over what was inherited.
pub(crate) fn bind(
    listen: &Address,
    threads: usize,
    keepalive: Keepalive,
    inherited: &mut Inherited,
) -> io::Result<Bound> {
    let mut sockets = inherited.take(listen);
    let mut address = listen.clone();
    match listen {
        Address::Unix(path) => {
            if sockets.is_empty() {
                sockets.push(bind_unix(path)?);
            }
        }
        Address::Tcp(tcp) => bind_tcp(*tcp, threads, &mut sockets, &mut address)?,
        Address::Host(host, port) => {
            let resolved = std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), *port))?;
            let first = resolved.into_iter().next().ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "the name has no address")
            })?;
            bind_tcp(first, threads, &mut sockets, &mut address)?;
        }
    }
    for socket in sockets.iter().filter(|_| !matches!(listen, Address::Unix(_))) {
        tune(socket, keepalive)?; // accepted sockets inherit both
    }
    Ok(Bound { address, sockets })
}

fn bind_tcp(
    wanted: SocketAddr,
    threads: usize,
    sockets: &mut Vec<OwnedFd>,
    address: &mut Address,
) -> io::Result<()> {
    let local = |socket: &Socket| -> io::Result<SocketAddr> {
        socket.local_addr()?.as_socket().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "the inherited socket is not TCP")
        })
    };
    let mut at = wanted;
    if let Some(first) = sockets.first() {
        at = local(&Socket::from(first.try_clone()?))?;
    }
    while sockets.len() < threads {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SockAddr::from(at))?;
        socket.listen(BACKLOG)?;
        at = local(&socket)?;
        sockets.push(socket.into());
    }
    *address = Address::Tcp(at);
    Ok(())
}

/// A socket file whose listener is gone is replaced; a living one is an error.
fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    if path.symlink_metadata().is_ok() {
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let listener = StdUnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(UNIX_MODE))?;
    Ok(listener.into())
}

/// One socket that accepts, in its thread's event loop; whether it is a Unix socket.
pub(crate) struct Door(AsyncFd<OwnedFd>, bool);

impl Door {
    /// Must be called within the event loop (see `Worker::enter`).
    pub(crate) fn open(socket: OwnedFd, unix: bool) -> io::Result<Door> {
        rustix::io::ioctl_fionbio(socket.as_fd(), true)?;
        // SAFETY: an `OwnedFd` is the same open descriptor from its first to its last moment.
        let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Door(watched?, unix))
    }

    /// A client that is in the queue already, if any.
    ///
    /// Asks the kernel itself: the event loop may not have heard of the newest yet.
    pub(crate) fn accept_queued(&self) -> Option<Arrived> {
        loop {
            match self.try_accept() {
                Ok(arrived) => return Some(arrived),
                Err(error) if is_the_clients(&error) => {}
                Err(_) => return None,
            }
        }
    }

    /// The next client, however long it takes. A failure to accept is waited out, and counted.
    pub(crate) async fn accept(&self, paused: &Arc<AtomicU64>) -> Arrived {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(arrived) => return arrived,
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    // The clients stay in the queue; closing them would need a descriptor too.
                    if paused.fetch_add(1, Relaxed).is_power_of_two() {
                        tracing::warn!(%error, "cannot accept, pausing; raise the file limit");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Arrived>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match ready.try_io(|_| self.try_accept()) {
                Ok(accepted) => return Poll::Ready(accepted),
                Err(_would_block) => {}
            }
        }
    }

    fn try_accept(&self) -> io::Result<Arrived> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(Arrived { socket: accept_with(&self.0, flags)?, unix: self.1 })
    }
}

/// A client that no event loop watches yet: the thread that will serve it opens it.
pub(crate) struct Arrived {
    socket: OwnedFd,
    unix: bool,
}

impl Arrived {
    /// Must be called within the event loop that serves the client.
    pub(crate) fn open(self) -> io::Result<Conn> {
        if self.unix {
            UnixStream::from_std(self.socket.into()).map(Conn::Unix)
        } else {
            TcpStream::from_std(self.socket.into()).map(Conn::Tcp)
        }
    }
}

/// Network errors of the one client at the queue's head (see `accept(2)`, "Error handling"); the
/// next one may well be accepted.
fn is_the_clients(error: &io::Error) -> bool {
    const OF_A_CLIENT: [Errno; 11] = [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::PROTO,
        Errno::NETDOWN,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::TIMEDOUT,
        Errno::PERM, // a firewall's word
    ];
    OF_A_CLIENT.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
