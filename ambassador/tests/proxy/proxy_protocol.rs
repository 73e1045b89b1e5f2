//! PROXY headers, in and out.

use mainstay_ambassador::ProxyVersion;
use mainstay_ambassador::proxy_protocol::{HEADER_MAX, Header, Parsed, parse, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::rig::*;

/// The header comes first, says who the client is, and the client's bytes follow untouched.
#[tokio::test]
async fn the_service_learns_who_the_client_is() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let service = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (says, mut config) = following("db");
        config.proxy_out = Some(version);
        let ambassador = start(vec![config]);
        says.send_replace(leads(1, service.local_addr().expect("bound")));
        let mut client = connect(door(&ambassador, "db")).await;
        client.write_all(b"hello").await.expect("sent");
        client.shutdown().await.expect("half closed");
        let (mut served, _) = patiently("accepting", service.accept()).await.expect("forwarded");
        let mut said = Vec::new();
        patiently("reading", served.read_to_end(&mut said)).await.expect("read");
        let expected = Header::Tcp(client.local_addr().expect("bound"), door(&ambassador, "db"));
        let Ok(Parsed::Complete(header, used)) = parse(&said) else { panic!("{said:?}") };
        assert_eq!((header, &said[used..]), (expected, &b"hello"[..]));
    }
}

/// Two proxies in a row, the second trusting the first: the address goes all the way through.
#[tokio::test]
async fn an_address_passes_through_two_proxies() {
    let service = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (inner_says, mut inner) = following("inner");
    inner.proxy_in = true;
    inner.proxy_out = Some(ProxyVersion::V1);
    let inner = start(vec![inner]);
    inner_says.send_replace(leads(1, service.local_addr().expect("bound")));
    let (outer_says, mut outer) = following("outer");
    outer.proxy_out = Some(ProxyVersion::V2);
    let outer = start(vec![outer]);
    outer_says.send_replace(leads(1, door(&inner, "inner")));
    let mut client = connect(door(&outer, "outer")).await;
    client.write_all(b"hello").await.expect("sent");
    client.shutdown().await.expect("half closed");
    let (mut served, _) = patiently("accepting", service.accept()).await.expect("forwarded");
    let mut said = String::new();
    patiently("reading", served.read_to_string(&mut said)).await.expect("read");
    let (from, to) = (client.local_addr().expect("bound"), door(&outer, "outer"));
    let ports = format!("{} {}", from.port(), to.port());
    assert_eq!(said, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {ports}\r\nhello"));
}

#[tokio::test]
async fn a_header_in_pieces_is_read_and_a_wrong_one_refused() {
    let service = Echo::start("").await;
    let (says, mut config) = following("db");
    config.proxy_in = true;
    let ambassador = start(vec![config]);
    says.send_replace(leads(1, service.at));
    let address = "10.1.1.1:5".parse().ok();
    let mut client = connect(door(&ambassador, "db")).await;
    client.set_nodelay(true).expect("a TCP socket");
    for byte in write(ProxyVersion::V2, address, address) {
        client.write_all(&[byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    echo(&mut client, "hello").await;
    for wrong in [
        "GET / HTTP/1.0\r\n\r\n".into(),
        "PROXY TCP4 me you 1 2\r\n".into(),
        "x".repeat(HEADER_MAX),
    ] {
        let mut client = connect(door(&ambassador, "db")).await;
        client.write_all(wrong.as_bytes()).await.expect("sent");
        assert_eq!(failure(&mut client).await, std::io::ErrorKind::ConnectionReset);
    }
    until("counting", || route(&ambassador, "db").tally.bad_headers == 3).await;
}
