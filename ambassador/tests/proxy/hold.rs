//! Clients that wait while nobody leads.

use std::io::ErrorKind::ConnectionReset;
use std::time::Duration;

use mainstay_ambassador::{RouteState, Source};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use super::rig::*;

#[tokio::test]
async fn two_hundred_held_clients_all_get_through() {
    let service = Echo::start("hi").await;
    let (says, config) = following("db");
    let ambassador = start(vec![config]);
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = connect(door(&ambassador, "db")).await;
        client.write_all(b"sent early").await.expect("kept in the socket");
        clients.push(client);
    }
    until("all are held", || route(&ambassador, "db").tally.held_now == 200).await;
    says.send_replace(leads(1, service.at));
    for client in &mut clients {
        expect(client, "hisent early").await;
    }
    let stats = route(&ambassador, "db");
    assert_eq!((stats.tally.held, stats.tally.refused), (200, 0));
    assert_eq!(stats.hold_time.count, 200);
}

#[tokio::test]
async fn one_more_than_may_wait_is_refused_at_once() {
    let (says, mut config) = following("db");
    config.hold.max = 2;
    config.hold.timeout = LONG;
    let ambassador = start(vec![config]);
    let mut waiting =
        [connect(door(&ambassador, "db")).await, connect(door(&ambassador, "db")).await];
    until("both are held", || route(&ambassador, "db").tally.held_now == 2).await;
    assert_eq!(refused(door(&ambassador, "db")).await, ConnectionReset);
    until("counting it", || route(&ambassador, "db").tally.refused == 1).await;
    let service = Echo::start("hi").await;
    says.send_replace(leads(1, service.at));
    for client in &mut waiting {
        expect(client, "hi").await;
    }
}

#[tokio::test]
async fn holding_ends_with_its_time() {
    let (_says, mut config) = following("db");
    config.hold.timeout = Duration::from_millis(200);
    let ambassador = start(vec![config]);
    assert_eq!(refused(door(&ambassador, "db")).await, ConnectionReset);
    until("counting it", || route(&ambassador, "db").tally.refused == 1).await;
}

/// Who gives up makes room; who half-closes after a request is still waiting for its answer.
#[tokio::test]
async fn a_held_client_that_leaves_makes_room() {
    let (says, mut config) = following("db");
    config.hold.max = 3;
    config.hold.timeout = LONG;
    let ambassador = start(vec![config]);
    let quiet = connect(door(&ambassador, "db")).await;
    let resetting = connect(door(&ambassador, "db")).await;
    let mut asking = connect(door(&ambassador, "db")).await;
    asking.write_all(b"request").await.expect("sent");
    asking.shutdown().await.expect("half closed");
    until("all are held", || route(&ambassador, "db").tally.held_now == 3).await;
    drop(quiet);
    resetting.set_zero_linger().expect("a TCP socket");
    drop(resetting);
    until("two have left", || route(&ambassador, "db").tally.gave_up == 2).await;
    assert_eq!(route(&ambassador, "db").tally.held_now, 1);
    let service = Echo::start("").await;
    says.send_replace(leads(1, service.at));
    expect(&mut asking, "request").await;
}

/// What a planned hand-over waits for: every route acts by the word that nobody is to be forwarded
/// any more, and those who were are gone.
#[tokio::test]
async fn a_standing_says_by_which_word_a_route_acts() {
    let service = Echo::start("hi").await;
    let (says, config) = following("db");
    let Source::Leader(source) = &config.source else { panic!("it follows a leader") };
    let source = source.clone();
    let ambassador = start(vec![config]);
    says.send_replace(RouteState { version: 7, ..leads(1, service.at) });
    let mut client = connect(door(&ambassador, "db")).await;
    expect(&mut client, "hi").await;
    let standing = ambassador.standing(&source);
    assert_eq!((standing.version, standing.forwards, standing.open), (7, true, 1));
    says.send_replace(RouteState { version: 8, ready: false, ..leads(1, service.at) });
    until("hearing of it", || ambassador.standing(&source).version == 8).await;
    let standing = ambassador.standing(&source);
    assert_eq!((standing.forwards, standing.open), (false, 1));
    // Also those of a route that was removed count, as long as they are there.
    ambassador.reload(Vec::new()).expect("removed");
    assert_eq!(ambassador.standing(&source).open, 1);
    drop(client);
    until("its end", || ambassador.standing(&source).open == 0).await;
    assert!(!ambassador.standing(&source).forwards);
}

/// The leader says that it is ready a little before its service listens.
#[tokio::test]
async fn a_leader_that_refuses_at_first_is_tried_again() {
    // A port that is taken but not listened on refuses, and nobody else can get it.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let at = socket.local_addr().expect("bound");
    let (says, config) = following("db");
    let ambassador = start(vec![config]);
    says.send_replace(leads(1, at));
    let mut client = connect(door(&ambassador, "db")).await;
    until("failing to connect", || route(&ambassador, "db").tally.unreached >= 2).await;
    let _service = Echo::on(socket.listen(64).expect("listening"), "hi");
    expect(&mut client, "hi").await;
}

/// A connect that hangs is given up when somebody else leads; the client never notices.
#[tokio::test]
async fn a_client_under_way_to_a_former_leader_goes_to_the_next() {
    let full = Full::new();
    let (says, mut config) = following("db");
    config.connect_timeout = LONG;
    let ambassador = start(vec![config]);
    says.send_replace(leads(1, full.at));
    let mut client = connect(door(&ambassador, "db")).await;
    until("connecting", || route(&ambassador, "db").tally.open_now == 1).await;
    let service = Echo::start("hi").await;
    says.send_replace(leads(2, service.at));
    expect(&mut client, "hi").await;
    assert_eq!(route(&ambassador, "db").tally.cut, 0);
}

/// A listener whose queue is full and never accepted from: connects to it hang.
struct Full {
    at: std::net::SocketAddr,
    _listener: socket2::Socket,
    _queued: Vec<socket2::Socket>,
}

impl Full {
    fn new() -> Full {
        use socket2::{Domain, Socket, Type};
        let new = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let listener = new();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
        listener.bind(&any.into()).expect("a port");
        listener.listen(0).expect("listening");
        let at = listener.local_addr().expect("bound");
        let queued = (0..4)
            .map(|_| {
                let socket = new();
                socket.set_nonblocking(true).expect("nonblocking");
                let _ = socket.connect(&at); // in progress; for most of them for ever
                socket
            })
            .collect();
        Full { at: at.as_socket().expect("IPv4"), _listener: listener, _queued: queued }
    }
}
