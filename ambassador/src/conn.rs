//! One stream socket, TCP or Unix, as the forwarding code wants it.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Keepalive;

/// A connected stream socket.
#[derive(Debug)]
pub(crate) enum Conn {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Conn {
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(into);
        let polled = match self {
            Conn::Tcp(tcp) => Pin::new(tcp).poll_read(cx, &mut buffer),
            Conn::Unix(unix) => Pin::new(unix).poll_read(cx, &mut buffer),
        };
        polled.map_ok(|()| buffer.filled().len())
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Conn::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Conn::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
        }
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Conn::Tcp(tcp) => tcp.poll_read_ready(cx),
            Conn::Unix(unix) => unix.poll_read_ready(cx),
        }
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Conn::Tcp(tcp) => tcp.poll_write_ready(cx),
            Conn::Unix(unix) => unix.poll_write_ready(cx),
        }
    }

    pub(crate) fn try_io<R>(
        &self,
        interest: Interest,
        call: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        match self {
            Conn::Tcp(tcp) => tcp.try_io(interest, call),
            Conn::Unix(unix) => unix.try_io(interest, call),
        }
    }

    /// Tells the peer that no more comes, while reading goes on.
    pub(crate) fn finish_writing(&self) -> io::Result<()> {
        rustix::net::shutdown(self, rustix::net::Shutdown::Write)?;
        Ok(())
    }

    /// Closes with a reset: the peer sees `ECONNRESET` at once, and nothing still in the send
    /// buffer reaches it. (A Unix socket has no reset but when data is left unread.)
    pub(crate) fn reset(self) {
        if let Conn::Tcp(tcp) = &self {
            // Fails only on a socket that is disconnected already.
            let _ = tcp.set_zero_linger();
        }
    }

    /// Waits until the peer is certainly gone: a reset, or an end of stream before any byte.
    ///
    /// An end of stream *after* bytes may be a client that has sent its whole request and waits
    /// for the answer.
    pub(crate) async fn gone(&self) {
        // A read side that is closed counts as "priority"; plain data does not, so that a client
        // which has already sent its request costs nothing here.
        self.ready(Interest::PRIORITY).await;
        let mut byte = [MaybeUninit::<u8>::uninit()];
        match rustix::net::recv(self, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => {}
            Ok(_) | Err(rustix::io::Errno::AGAIN) => self.ready(Interest::ERROR).await,
            Err(_) => {}
        }
    }

    async fn ready(&self, interest: Interest) {
        let ready = match self {
            Conn::Tcp(tcp) => tcp.ready(interest).await,
            Conn::Unix(unix) => unix.ready(interest).await,
        };
        if ready.is_err() {
            // Only at the end of the event loop, which ends this task as well.
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Conn::Tcp(tcp) => tcp.peer_addr().ok(),
            Conn::Unix(_) => None,
        }
    }

    pub(crate) fn local(&self) -> Option<SocketAddr> {
        match self {
            Conn::Tcp(tcp) => tcp.local_addr().ok(),
            Conn::Unix(_) => None,
        }
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Conn::Tcp(tcp) => tcp.as_fd(),
            Conn::Unix(unix) => unix.as_fd(),
        }
    }
}

/// Nagle off and keepalive on. Sockets accepted from a tuned listener have both already.
pub(crate) fn tune(socket: &impl AsFd, keepalive: Keepalive) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.probes),
    )
}
