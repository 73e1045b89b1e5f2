//! Reads a header from the first bytes of a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Header, Parsed, SIGNATURE};

/// No header may be longer, bytes. (The v2 length field could say up to 64 KiB of extensions.)
pub const HEADER_MAX: usize = 4096;

const LINE_START: &[u8] = b"PROXY ";
/// By the specification, line end included.
const LINE_MAX: usize = 107;
const PREFIX: usize = 16;

/// Why bytes are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// They begin like neither version.
    #[error("the client sent no PROXY header: turn `proxy_in` off, or the sender's on")]
    Missing,
    /// A line that is too long, or not as specified.
    #[error("the PROXY v1 line is malformed: {0}")]
    Text(&'static str),
    /// A binary header that is not as specified.
    #[error("the PROXY v2 header is malformed: {0}")]
    Binary(&'static str),
}

/// Parses what has arrived so far. Bytes after the header are the client's own.
pub fn parse(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(&SIGNATURE) {
        binary(bytes)
    } else if begins(LINE_START) {
        text(bytes)
    } else {
        Err(HeaderError::Missing)
    }
}

fn text(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let window = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() == LINE_MAX {
            Err(HeaderError::Text("longer than 107 bytes"))
        } else {
            Ok(Parsed::Partial)
        };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(HeaderError::Text("no CR before LF"))?;
    let line = std::str::from_utf8(line).map_err(|_| HeaderError::Text("not ASCII"))?;
    let mut fields = line.split(' ').skip(1);
    let mut next = || fields.next().ok_or(HeaderError::Text("a field is missing"));
    let header = match next()? {
        // Whatever else the line says is to be ignored.
        "UNKNOWN" => return Ok(Parsed::Complete(Header::Unknown, end + 1)),
        "TCP4" => pair::<Ipv4Addr>(&mut next)?,
        "TCP6" => pair::<Ipv6Addr>(&mut next)?,
        _ => return Err(HeaderError::Text("the family is none of TCP4, TCP6, UNKNOWN")),
    };
    match fields.next() {
        Some(_) => Err(HeaderError::Text("more fields than specified")),
        None => Ok(Parsed::Complete(header, end + 1)),
    }
}

fn pair<'a, A: FromStr + Into<IpAddr>>(
    next: &mut impl FnMut() -> Result<&'a str, HeaderError>,
) -> Result<Header, HeaderError> {
    let mut address = || -> Result<IpAddr, HeaderError> {
        next()?.parse::<A>().map(Into::into).map_err(|_| HeaderError::Text("a bad address"))
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let field = next()?;
        // `parse` alone would take "+1" and "01".
        let plain = field.bytes().all(|byte| byte.is_ascii_digit())
            && (field == "0" || !field.starts_with('0'));
        field.parse::<u16>().ok().filter(|_| plain).ok_or(HeaderError::Text("a bad port"))
    };
    let (from, to) = (port()?, port()?);
    Ok(Header::Tcp(SocketAddr::new(source, from), SocketAddr::new(destination, to)))
}

fn binary(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    if bytes.len() < PREFIX {
        return Ok(Parsed::Partial);
    }
    let (command, family) = (bytes[12], bytes[13]);
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let end = PREFIX + length;
    if command >> 4 != 2 {
        return Err(HeaderError::Binary("the version is not 2"));
    }
    if end > HEADER_MAX {
        return Err(HeaderError::Binary("longer than 4096 bytes"));
    }
    let addresses = match (command & 0xf, family) {
        (0, _) => None, // LOCAL: the family is to be ignored
        (1, 0x00) => None,
        (1, 0x11) => Some(12),
        (1, 0x21) => Some(36),
        (1, 0x31 | 0x32 | 0x12 | 0x22) => {
            return Err(HeaderError::Binary("neither TCP nor unspecified"));
        }
        (1, _) => return Err(HeaderError::Binary("an unknown family")),
        _ => return Err(HeaderError::Binary("the command is neither LOCAL nor PROXY")),
    };
    if addresses.is_some_and(|size| length < size) {
        return Err(HeaderError::Binary("too short for its addresses"));
    }
    if bytes.len() < end {
        return Ok(Parsed::Partial);
    }
    let body = &bytes[PREFIX..end];
    let Some(size) = addresses else { return Ok(Parsed::Complete(Header::Unknown, end)) };
    extensions(&body[size..])?;
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let header = if size == 12 {
        let ip = |at: usize| Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]);
        Header::Tcp((ip(0), port(8)).into(), (ip(4), port(10)).into())
    } else {
        let ip = |at: usize| {
            let octets: [u8; 16] = body[at..at + 16].try_into().expect("16 bytes were asked for");
            Ipv6Addr::from(octets)
        };
        Header::Tcp((ip(0), port(32)).into(), (ip(16), port(34)).into())
    };
    Ok(Parsed::Complete(header, end))
}

/// Type, length, value, each to be skipped but whole. A checksum among them is not verified.
fn extensions(mut rest: &[u8]) -> Result<(), HeaderError> {
    while !rest.is_empty() {
        let cut = || HeaderError::Binary("an extension is cut short");
        let head = rest.get(..3).ok_or_else(cut)?;
        let size = usize::from(u16::from_be_bytes([head[1], head[2]]));
        rest = rest.get(3 + size..).ok_or_else(cut)?;
    }
    Ok(())
}
