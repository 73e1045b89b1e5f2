//! Free TCP ports on loopback.

use std::collections::HashSet;
use std::net::{TcpListener, UdpSocket};
use std::sync::Mutex;

use anyhow::{Context, Result};

static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port that was free for TCP and UDP a moment ago, and that this process has not had before.
///
/// Taken from below the kernel's range for outgoing connections, so that no client's socket
/// lands on it before the server that it is for has bound it.
///
/// # Errors
/// None of many tries was free.
pub fn free() -> Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let taken = taken.get_or_insert_default();
    for _ in 0..2_000 {
        let port = rand::random_range(10_240..32_000);
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if is_free && taken.insert(port) {
            return Ok(port);
        }
    }
    None.context("no free port on loopback in 2,000 tries")
}
