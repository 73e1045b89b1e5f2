//! A restart without a closed door: the running ambassador starts its successor and gives it copies
//! of its listening sockets, over a socket pair that is the successor's standard input. When the
//! successor says that it accepts, the old one stops accepting and lets its clients finish. If the
//! successor does not come up, the old one goes on as if nothing had been asked.
//!
//! One message per socket (`SOCK_SEQPACKET`): its use in words, and the descriptor (`SCM_RIGHTS`).
//! The last one carries none. Then one message comes back.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mainstay_ambassador::{Address, Inherited};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

/// The flag that makes an ambassador a successor.
pub const FLAG: &str = "--take-over";

/// The successor reads its configuration and listens within this, or has failed.
const PATIENCE: Duration = Duration::from_secs(60);
const MESSAGE_BYTES_MAX: usize = 4096;
const LISTENS: &str = "listens ";
const API: &str = "api";
const END: &str = "end";
const READY: &str = "ready";

/// How this process was started, as its successor is to be.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Launch {
    /// To be read at the start: the program's file may be another one later, and is meant to be.
    pub(super) fn of_this_process() -> io::Result<Launch> {
        let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
        if !arguments.iter().any(|argument| argument == FLAG) {
            arguments.push(FLAG.into());
        }
        Ok(Launch { program: std::env::current_exe()?, arguments })
    }

    /// Starts a successor, gives it the sockets, and waits until it accepts. Blocks.
    ///
    /// # Errors
    /// It did not come up; it is gone then.
    pub(super) fn succeed(
        &self,
        listeners: Vec<(Address, OwnedFd)>,
        api: Option<OwnedFd>,
    ) -> io::Result<u32> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(|error| of(&self.program, error))?;
        let introduced = introduce(&ours, &listeners, api.as_ref());
        match introduced {
            Ok(()) => Ok(child.id()),
            Err(error) => {
                end(&mut child);
                Err(of(&self.program, error))
            }
        }
    }
}

fn of(program: &Path, error: io::Error) -> io::Error {
    let what = format!("{}: {error}; see its messages above", program.display());
    io::Error::new(error.kind(), what)
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn introduce(
    ours: &OwnedFd,
    listeners: &[(Address, OwnedFd)],
    api: Option<&OwnedFd>,
) -> io::Result<()> {
    set_socket_timeout(ours, Timeout::Send, Some(PATIENCE))?;
    set_socket_timeout(ours, Timeout::Recv, Some(PATIENCE))?;
    for (address, socket) in listeners {
        send(ours, &format!("{LISTENS}{address}"), Some(socket.as_fd()))?;
    }
    if let Some(api) = api {
        send(ours, API, Some(api.as_fd()))?;
    }
    send(ours, END, None)?;
    match receive(ours)? {
        Some((word, _)) if word == READY => Ok(()),
        Some((word, _)) => Err(io::Error::other(format!("the successor says {word:?}"))),
        None => Err(io::Error::other("the successor ended before it accepted clients")),
    }
}

/// What a successor got.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    pub listeners: Inherited,
    pub api: Option<OwnedFd>,
}

/// Takes over what the predecessor gives on standard input. Blocks.
///
/// # Errors
/// Standard input is no predecessor.
pub(super) fn take_over() -> io::Result<Legacy> {
    let mut legacy = Legacy::default();
    let from = rustix::stdio::stdin();
    loop {
        let Some((word, socket)) = receive(from)? else {
            return Err(io::Error::other("the predecessor has ended"));
        };
        match (word.strip_prefix(LISTENS), socket) {
            (Some(address), Some(socket)) => {
                let address = address.parse::<Address>().map_err(io::Error::other)?;
                legacy.listeners.add(address, socket);
            }
            (None, Some(socket)) if word == API => legacy.api = Some(socket),
            (None, None) if word == END => return Ok(legacy),
            // A newer predecessor's: closed, as if it had not been given.
            _ => tracing::warn!(word, "the predecessor gives something unknown"),
        }
    }
}

/// Tells the predecessor that clients are accepted here, and lets go of it.
///
/// # Errors
/// It is gone: then nobody else accepts, and that is as well.
pub(super) fn accepting() -> io::Result<()> {
    let sent = send(rustix::stdio::stdin(), READY, None);
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    sent
}

fn send(to: impl AsFd, word: &str, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<_> = socket.into_iter().collect();
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("one descriptor does not fit"));
    }
    sendmsg(to, &[IoSlice::new(word.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message; none after the peer's end.
fn receive(from: impl AsFd) -> io::Result<Option<(String, Option<OwnedFd>)>> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg(from, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a message of the other process is too long"));
    }
    let mut socket = None;
    for control in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = control {
            socket = sockets.last();
        }
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    let word = String::from_utf8_lossy(&bytes[..message.bytes]).into_owned();
    Ok(Some((word, socket)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_socket_is_the_same_one_after_it_was_given() {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (ours, theirs) = socketpair(kind.0, kind.1, kind.2, None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        send(&ours, "listens here", Some(listener.as_fd())).unwrap();
        send(&ours, END, None).unwrap();
        drop(ours);
        drop(listener);
        let (word, socket) = receive(&theirs).unwrap().expect("a message");
        assert_eq!(word, "listens here");
        let again = TcpListener::from(socket.expect("a socket"));
        assert_eq!(again.local_addr().unwrap(), address);
        let (word, socket) = receive(&theirs).unwrap().expect("a message");
        assert!(word == END && socket.is_none());
        assert!(receive(&theirs).unwrap().is_none());
    }
}
