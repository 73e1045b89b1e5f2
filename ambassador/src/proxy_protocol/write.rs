//! Composes a header.

use std::net::{IpAddr, SocketAddr};

use super::{ProxyVersion, SIGNATURE};

/// The header for a client at `source` that connected to `destination`; unknown if either is.
///
/// Of a pair of both families (a dual-stack listener reports mapped addresses), both are written
/// as IPv6.
pub fn write(
    version: ProxyVersion,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
) -> Vec<u8> {
    let pair = source.zip(destination).map(|(source, destination)| one_family(source, destination));
    match version {
        ProxyVersion::V1 => text(pair),
        ProxyVersion::V2 => binary(pair),
    }
}

fn one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (source, destination) = (plain(source), plain(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let wide = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (wide(source), wide(destination))
}

fn text(pair: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((source, destination)) = pair else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

fn binary(pair: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(36);
    let mut family = 0x00; // unspecified
    if let Some((source, destination)) = pair {
        for ip in [source.ip(), destination.ip()] {
            match ip {
                IpAddr::V4(v4) => addresses.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => addresses.extend_from_slice(&v6.octets()),
            }
        }
        addresses.extend_from_slice(&source.port().to_be_bytes());
        addresses.extend_from_slice(&destination.port().to_be_bytes());
        family = if source.is_ipv4() { 0x11 } else { 0x21 };
    }
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[0x21, family, 0, addresses.len() as u8]);
    header.extend_from_slice(&addresses);
    header
}
