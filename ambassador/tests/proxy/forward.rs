//! Bytes from clients to the leader and back.

use std::net::SocketAddr;
use std::time::Duration;

use mainstay_ambassador::{Address, Ambassador, RouteConfig, RouteState, Source, UpstreamsConfig};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;

use super::rig::*;

fn to_upstream(name: &str, at: impl Into<Address>) -> RouteConfig {
    let mut upstreams = UpstreamsConfig::new(vec![at.into()]);
    upstreams.check_interval = LONG; // one check at the start, then no more connections
    RouteConfig::new(name, any_port(), Source::Upstreams(upstreams))
}

/// By a leader, so that no health check connects to the service. The sender must be kept.
async fn to_leader(at: SocketAddr) -> (Ambassador, watch::Sender<RouteState>) {
    let (says, config) = following("db");
    let ambassador = start(vec![config]);
    says.send_replace(leads(1, at));
    heard(&ambassador, "db", 1).await;
    (ambassador, says)
}

#[tokio::test]
async fn a_client_that_is_done_still_gets_its_answer() {
    let service = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (ambassador, _says) = to_leader(service.local_addr().expect("bound")).await;
    let mut client = connect(door(&ambassador, "db")).await;
    client.write_all(b"question").await.expect("sent");
    client.shutdown().await.expect("half closed");
    let (mut served, _) = patiently("accepting", service.accept()).await.expect("forwarded");
    let mut question = Vec::new();
    patiently("the end of the question", served.read_to_end(&mut question)).await.expect("read");
    assert_eq!(question, b"question");
    served.write_all(b"answer").await.expect("the other direction is open");
    drop(served);
    let mut answer = Vec::new();
    patiently("the answer", client.read_to_end(&mut answer)).await.expect("a clean end");
    assert_eq!(answer, b"answer");
    until("the end", || route(&ambassador, "db").tally.open_now == 0).await;
    assert_eq!(route(&ambassador, "db").tally.broken, 0);
}

#[tokio::test]
async fn a_service_that_is_done_can_still_be_told() {
    let service = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (ambassador, _says) = to_leader(service.local_addr().expect("bound")).await;
    let mut client = connect(door(&ambassador, "db")).await;
    let (mut served, _) = patiently("accepting", service.accept()).await.expect("forwarded");
    served.write_all(b"bye").await.expect("sent");
    served.shutdown().await.expect("half closed");
    let mut said = Vec::new();
    patiently("the end", client.read_to_end(&mut said)).await.expect("a clean end");
    assert_eq!(said, b"bye");
    client.write_all(b"last words").await.expect("the other direction is open");
    drop(client);
    let mut words = Vec::new();
    patiently("the words", served.read_to_end(&mut words)).await.expect("a clean end");
    assert_eq!(words, b"last words");
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    let service = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (ambassador, _says) = to_leader(service.local_addr().expect("bound")).await;
    let mut client = connect(door(&ambassador, "db")).await;
    let (mut served, _) = patiently("accepting", service.accept()).await.expect("forwarded");
    // A reset before the proxy has seen the connection made would be a failed attempt, and tried
    // again.
    served.write_all(b"hi").await.expect("sent");
    expect(&mut client, "hi").await;
    served.set_zero_linger().expect("a TCP socket");
    drop(served);
    assert_eq!(failure(&mut client).await, std::io::ErrorKind::ConnectionReset);
    until("counting it", || route(&ambassador, "db").tally.broken == 1).await;
}

/// 48 MiB of seeded noise through slow and fast readers: copied, spliced, held back, unharmed.
#[tokio::test]
async fn bulk_arrives_whole_and_in_order() {
    const BYTES: usize = 48 << 20;
    let echo = Echo::start("").await;
    let (ambassador, _says) = to_leader(echo.at).await;
    let client = connect(door(&ambassador, "db")).await;
    let (mut from, mut to) = client.into_split();
    let mut sent = vec![0; BYTES];
    StdRng::seed_from_u64(48).fill_bytes(&mut sent);
    let expected = sent.clone();
    let sender = tokio::spawn(async move {
        // Odd sizes: full buffers, single bytes, and bulk in turns.
        let mut rest = &sent[..];
        for size in [1, 17, 70_000, 3, 5_000_000, 64 * 1024, 9].into_iter().cycle() {
            let (now, later) = rest.split_at(size.min(rest.len()));
            to.write_all(now).await.expect("sent");
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        to.shutdown().await.expect("half closed");
    });
    let mut got = Vec::with_capacity(BYTES);
    let mut buffer = vec![0; 300_000];
    loop {
        let read = patiently("bulk", from.read(&mut buffer)).await.expect("unbroken");
        if read == 0 {
            break;
        }
        got.extend_from_slice(&buffer[..read]);
        if got.len() % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await; // lets it pile up
        }
    }
    sender.await.expect("the sender");
    assert_eq!(got.len(), BYTES);
    assert!(got == expected, "the bytes came back changed");
    until("the end", || route(&ambassador, "db").tally.open_now == 0).await;
    let tally = route(&ambassador, "db").tally;
    assert_eq!((tally.bytes_in, tally.bytes_out), (BYTES as u64, BYTES as u64));
}

/// A reader that stops reading stops the writer; nobody buffers without end for it. Once it reads
/// on, it gets every byte, those too that were read for it but could not be written.
#[tokio::test]
async fn a_slow_reader_holds_its_writer_back() {
    const BYTES_MAX: usize = 256 << 20;
    let service = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (ambassador, _says) = to_leader(service.local_addr().expect("bound")).await;
    let mut client = connect(door(&ambassador, "db")).await;
    let (mut served, _) = patiently("accepting", service.accept()).await.expect("forwarded");
    // Pieces too small to be taken for bulk, each told apart from the next.
    let mut noise = vec![0; 20_000];
    StdRng::seed_from_u64(7).fill_bytes(&mut noise);
    let mut written = 0;
    loop {
        assert!(written < BYTES_MAX, "{written} bytes were taken for a reader that reads nothing");
        let piece = &noise[written % noise.len()..];
        match tokio::time::timeout(Duration::from_secs(1), client.write(piece)).await {
            Ok(done) => written += done.expect("unbroken"),
            Err(_) => break,
        }
        tokio::task::yield_now().await;
    }
    client.shutdown().await.expect("half closed");
    let mut got = Vec::with_capacity(written);
    patiently("reading on", served.read_to_end(&mut got)).await.expect("unbroken");
    assert_eq!(got.len(), written);
    let whole = got.chunks(noise.len()).all(|chunk| *chunk == noise[..chunk.len()]);
    assert!(whole, "the bytes arrived changed");
}

#[tokio::test]
async fn unix_sockets_on_both_sides() {
    let folder = tempfile::tempdir().expect("a folder");
    let (front, back) = (folder.path().join("front"), folder.path().join("back"));
    let service = UnixListener::bind(&back).expect("bound");
    let mut config = to_upstream("unix", Address::Unix(back));
    config.listen = Address::Unix(front.clone());
    // What a killed predecessor left behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(&front).expect("bound"));
    let ambassador = start(vec![config.clone()]);
    let mut twice = config.clone();
    twice.name = "again".into();
    Ambassador::start(settings(), vec![twice])
        .map(drop)
        .expect_err("a living socket is not replaced");
    let mut client = patiently("connecting", UnixStream::connect(&front)).await.expect("connected");
    client.write_all(b"ping").await.expect("sent");
    client.shutdown().await.expect("half closed");
    // The first to connect may be the health check, which says nothing.
    let answered = patiently("forwarding", async {
        loop {
            let (mut served, _) = service.accept().await.expect("accepting");
            let mut said = Vec::new();
            served.read_to_end(&mut said).await.expect("read");
            if !said.is_empty() {
                served.write_all(b"pong").await.expect("sent");
                return said;
            }
        }
    });
    assert_eq!(answered.await, b"ping");
    expect(&mut client, "pong").await;
    drop(client);
    // Removed and added again at once: what ends late must not take the new name away.
    ambassador.reload(Vec::new()).expect("removed");
    assert!(!front.exists(), "the socket's file outlives its route");
    ambassador.reload(vec![config]).expect("added");
    until("the old one's end", || ambassador.stats().routes.iter().all(|route| !route.retired))
        .await;
    patiently("connecting", UnixStream::connect(&front)).await.expect("connected");
    ambassador.shutdown(Duration::ZERO).await; // nobody answers the last client
    assert!(!front.exists(), "the socket's file stays behind");
}

#[tokio::test]
async fn idle_connections_end_where_that_is_asked_for() {
    let service = Echo::start("").await;
    let (says, mut config) = following("db");
    config.idle_timeout = Some(Duration::from_millis(300));
    let ambassador = start(vec![config]);
    says.send_replace(leads(1, service.at));
    assert_eq!(refused(door(&ambassador, "db")).await, std::io::ErrorKind::ConnectionReset);
    until("counting it", || route(&ambassador, "db").tally.idled == 1).await;
}
