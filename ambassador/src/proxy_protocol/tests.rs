//! Headers that are right, cut short, and hostile.

use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Header, HeaderError, Parsed, ProxyVersion, parse, properties, write};

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn the_specification_s_examples_parse() {
    let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n";
    let tcp = Header::Tcp(socket("192.168.0.1:56324"), socket("192.168.0.11:443"));
    assert_eq!(parse(line), Ok(Parsed::Complete(tcp, 47)));
    let unknown = b"PROXY UNKNOWN ffff::1 whatever\r\n";
    assert_eq!(parse(unknown), Ok(Parsed::Complete(Header::Unknown, unknown.len())));
    // LOCAL, with an address family that is to be ignored.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x02xxrest";
    assert_eq!(parse(local), Ok(Parsed::Complete(Header::Unknown, 18)));
}

#[test]
fn what_is_written_parses_back_and_every_part_of_it_is_partial() {
    for (source, destination) in [
        ("10.1.2.3:4", "10.1.2.4:65535"),
        ("[2001:db8::1]:1", "[::1]:0"),
        ("10.0.0.1:9", "[::1]:8"),
    ] {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let header = write(version, Some(socket(source)), Some(socket(destination)));
            let Ok(Parsed::Complete(Header::Tcp(from, to), used)) = parse(&header) else {
                panic!("{version:?} {source}: {:?}", parse(&header));
            };
            assert_eq!(used, header.len());
            assert_eq!(from.ip().to_canonical(), socket(source).ip());
            assert_eq!(to, socket(destination));
            for short in 0..header.len() {
                assert_eq!(parse(&header[..short]), Ok(Parsed::Partial), "{short} of {header:?}");
            }
        }
    }
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let header = write(version, None, None);
        assert_eq!(parse(&header), Ok(Parsed::Complete(Header::Unknown, header.len())));
    }
}

#[test]
fn malformed_lines_are_refused() {
    for line in [
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
        "PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
        "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY \r\n",
    ] {
        parse(line.as_bytes()).expect_err(line);
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(parse(endless.as_bytes()), Err(HeaderError::Text("longer than 107 bytes")));
}

#[test]
fn malformed_binaries_are_refused() {
    let good = write(ProxyVersion::V2, Some(socket("1.1.1.1:1")), Some(socket("2.2.2.2:2")));
    for (at, byte) in [
        (12, 0x11), // version 1
        (12, 0x22), // an unknown command
        (13, 0x12), // UDP
        (13, 0x31), // Unix
        (13, 0x41), // an unknown family
        (13, 0x21), // TCP6 in 12 bytes
        (14, 0xff), // 64 KiB
        (15, 11),   // one byte short
        (0, b'x'),
    ] {
        let mut bad = good.clone();
        bad[at] = byte;
        parse(&bad).expect_err(&format!("byte {at} = {byte:#x}"));
    }
    let mut extended = good.clone();
    extended[15] += 4;
    extended.extend_from_slice(&[4, 0, 1, 9]);
    assert!(matches!(parse(&extended), Ok(Parsed::Complete(_, 32))));
    extended[30] = 2; // its value would lie outside of the header
    assert_eq!(parse(&extended), Err(HeaderError::Binary("an extension is cut short")));
}

/// The fuzz target's checks on seeded input: headers with random damage, with an honest length over
/// random content, and noise behind a signature.
#[test]
fn what_the_fuzz_target_checks_holds_of_damaged_headers() {
    let mut random = StdRng::seed_from_u64(0x7072_6f78);
    let addresses = [
        (Some(socket("10.1.2.3:4")), Some(socket("10.1.2.4:5"))),
        (Some(socket("[::2]:4")), Some(socket("[::3]:5"))),
        (Some(socket("[::ffff:10.0.0.1]:9")), Some(socket("[::1]:8"))),
        (None, None),
    ];
    for round in 0..60_000 {
        let (source, destination) = addresses[round % 4];
        let version = [ProxyVersion::V1, ProxyVersion::V2][round / 4 % 2];
        let mut bytes = write(version, source, destination);
        for _ in 0..random.random_range(0..4) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..5) {
                0 => bytes[at] = random.random(),
                1 => bytes[at] ^= 1 << random.random_range(0..8),
                2 => bytes.insert(at, random.random()),
                3 => bytes.extend((0..at).map(|_| random.random::<u8>())),
                _ => drop(bytes.remove(at)),
            }
        }
        properties::check(&bytes);
    }
    for _ in 0..20_000 {
        let mut bytes = write(ProxyVersion::V2, None, None);
        bytes[12] = 0x20 | random.random_range(0..3);
        bytes[13] = [0x00, 0x11, 0x21, 0x31][random.random_range(0..4)];
        let length: u8 = random.random_range(0..80);
        bytes[15] = length;
        bytes.extend((0..length).map(|_| random.random::<u8>()));
        properties::check(&bytes);
    }
}
