//! Feeds the PROXY header parser, the one thing here that reads what strangers compose.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_ambassador::proxy_protocol::{Header, Parsed, ProxyVersion, parse, write};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    if let Ok(Parsed::Complete(header, used)) = whole {
        assert!(used <= bytes.len());
        // Nothing that comes later changes what a header says.
        assert_eq!(parse(&bytes[..used]), whole);
        if let Header::Tcp(source, destination) = header {
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let again = write(version, Some(source), Some(destination));
                assert!(matches!(parse(&again), Ok(Parsed::Complete(Header::Tcp(..), n)) if n == again.len()));
            }
        }
    }
    for end in 0..bytes.len().min(256) {
        match parse(&bytes[..end]) {
            Ok(Parsed::Partial) => {}
            decided => assert_eq!(decided, whole),
        }
    }
});
