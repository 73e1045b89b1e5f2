//! Links between real endpoints over loopback: who gets in, and what the others are told.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use mainstay_sync::transport::{
    Authority, ChannelError, Endpoint, EndpointOptions, FrameKind, Goodbye, Peer, Secret,
    TransportError,
};

const LOOPBACK: &str = "127.0.0.1:0";

fn options() -> EndpointOptions {
    EndpointOptions { idle_timeout: Duration::from_secs(30), ..EndpointOptions::default() }
}

fn endpoint(secret: &Secret, service: &str, node: &str) -> Endpoint {
    let name = Peer { service: service.into(), node: node.into() };
    Endpoint::bind(LOOPBACK.parse().unwrap(), secret, name, &options()).unwrap()
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    endpoint.local_address().unwrap()
}

#[tokio::test]
async fn both_sides_know_each_other_and_frames_arrive_in_order() {
    let secret = Secret::generate();
    let (a, b) = (endpoint(&secret, "db", "node-a"), endpoint(&secret, "db", "node-b"));
    let mut listener = a.listen();
    let link = b.connect(address(&a), "node-a").await.unwrap();
    assert_eq!(link.peer().node, "node-a");
    let mut dialled = link.open().await.unwrap();
    let large = Bytes::from(vec![7; 3 << 20]);
    let sent = large.clone();
    let sending = tokio::spawn(async move {
        dialled.sending.queue(FrameKind::Message, Bytes::from_static(b"hello")).unwrap();
        dialled.sending.send(FrameKind::Data, sent).await.unwrap();
        dialled.sending.finish().await.unwrap();
    });
    let answered = listener.next().await.unwrap();
    assert_eq!(answered.peer().to_string(), "db/node-b");
    let mut channel = answered.accept().await.unwrap();
    let first = channel.receiving.next().await.unwrap();
    assert_eq!((first.kind, &first.body[..]), (FrameKind::Message, &b"hello"[..]));
    let second = channel.receiving.next().await.unwrap();
    assert_eq!((second.kind, second.body), (FrameKind::Data, large));
    assert!(matches!(channel.receiving.next().await, Err(ChannelError::Ended)));
    sending.await.unwrap();
    answered.close(Goodbye::Done, "");
    assert!(matches!(link.closed().await, TransportError::Lost { .. }));
}

#[tokio::test]
async fn another_secret_is_named_by_its_fingerprint() {
    let (ours, theirs) = (Secret::generate(), Secret::generate());
    let (a, b) = (endpoint(&theirs, "db", "node-a"), endpoint(&ours, "db", "node-b"));
    let mut listener = a.listen();
    let error = b.connect(address(&a), "node-a").await.unwrap_err();
    let text = error.to_string();
    for secret in [&ours, &theirs] {
        let fingerprint = Authority::new(secret).unwrap().fingerprint().to_string();
        assert_eq!(fingerprint.len(), 8);
        assert!(text.contains(&fingerprint), "{text}");
    }
    a.close().await;
    drop(a);
    assert!(listener.next().await.is_none(), "a stranger reached the listener");
}

#[tokio::test]
async fn another_node_or_service_at_the_address_is_told_apart() {
    let secret = Secret::generate();
    let a = endpoint(&secret, "db", "node-a");
    let mut listener = a.listen();
    let b = endpoint(&secret, "db", "node-b");
    let error = b.connect(address(&a), "node-c").await.unwrap_err().to_string();
    assert!(error.contains("db/node-a") && error.contains("db/node-c"), "{error}");
    let cache = endpoint(&secret, "cache", "node-b");
    let error = cache.connect(address(&a), "node-a").await.unwrap_err().to_string();
    assert!(error.contains("db/node-a") && error.contains("cache/node-a"), "{error}");
    // The caller that took node-a for node-c was let in before it hung up; the one of another
    // service never was.
    let link = listener.next().await.unwrap();
    assert_eq!(link.peer().service, "db");
    link.closed().await;
}

#[tokio::test]
async fn a_node_that_takes_no_sessions_says_so_at_once() {
    let secret = Secret::generate();
    let (a, b) = (endpoint(&secret, "db", "node-a"), endpoint(&secret, "db", "node-b"));
    let link = b.connect(address(&a), "node-a").await.unwrap();
    assert!(matches!(link.closed().await, TransportError::NotLeading));
    drop(a.listen());
    let link = b.connect(address(&a), "node-a").await.unwrap();
    assert!(matches!(link.closed().await, TransportError::NotLeading), "the listener was dropped");
}

#[tokio::test]
async fn a_port_in_use_and_a_silent_address_are_named() {
    let secret = Secret::generate();
    let a = endpoint(&secret, "db", "node-a");
    let name = Peer { service: "db".into(), node: "node-b".into() };
    let taken = Endpoint::bind(address(&a), &secret, name.clone(), &options()).err().unwrap();
    assert!(taken.to_string().contains(&address(&a).to_string()), "{taken}");
    // A bound socket that never answers: no other process can take the port meanwhile.
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let hasty = EndpointOptions { idle_timeout: Duration::from_millis(300), ..options() };
    let b = Endpoint::bind(LOOPBACK.parse().unwrap(), &secret, name, &hasty).unwrap();
    let error = b.connect(silent.local_addr().unwrap(), "node-a").await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { .. }), "{error}");
    let unusable = "127.0.0.1:0".parse().unwrap();
    let error = b.connect(unusable, "node-a").await.unwrap_err();
    assert!(matches!(error, TransportError::Undialable { .. }), "{error}");
}
