//! What must hold of the parser for any bytes whatever. The fuzz target feeds it what a fuzzer
//! finds, the tests what a seed makes: the same function, so that neither checks less.

use super::{Header, Parsed, ProxyVersion, parse, write};

/// Longer inputs than this have no further beginnings looked at.
const BEGINNINGS_MAX: usize = 256;

/// Checks them all on `bytes`.
///
/// # Panics
/// One of them does not hold.
pub fn check(bytes: &[u8]) {
    let whole = parse(bytes);
    if let Ok(Parsed::Complete(header, used)) = whole {
        assert!(used <= bytes.len(), "more taken than given: {bytes:?}");
        assert_eq!(parse(&bytes[..used]), whole, "what comes later changes the header: {bytes:?}");
        if let Header::Tcp(source, destination) = header {
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let again = write(version, Some(source), Some(destination));
                let Ok(Parsed::Complete(Header::Tcp(from, to), used)) = parse(&again) else {
                    panic!("{header:?} is not read back from {again:?}");
                };
                assert_eq!(used, again.len(), "{again:?}");
                // An IPv4 address in IPv6's clothes may come back plain, and is the same.
                let plain =
                    |address: std::net::SocketAddr| (address.ip().to_canonical(), address.port());
                assert_eq!((plain(from), plain(to)), (plain(source), plain(destination)));
            }
        }
    }
    for end in 0..bytes.len().min(BEGINNINGS_MAX) {
        match parse(&bytes[..end]) {
            Ok(Parsed::Partial) => {}
            decided => assert_eq!(decided, whole, "a verdict changes after {end} of {bytes:?}"),
        }
    }
}
