//! Stand-ins for clients and services.

use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::rig::*;

/// A service that accepts and never answers, and clients that dribble, cost others nothing.
#[tokio::test]
async fn silent_services_and_dribbling_clients_leave_others_alone() {
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let service = Echo::start("").await;
    let (mute_says, mute_config) = following("mute");
    let (says, mut config) = following("db");
    config.proxy_in = true;
    let ambassador = start(vec![mute_config, config]);
    mute_says.send_replace(leads(1, mute.local_addr().expect("bound")));
    says.send_replace(leads(1, service.at));
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut client = connect(door(&ambassador, "mute")).await;
        client.write_all(b"are you there?").await.expect("sent");
        // Its header never ends.
        let mut dribbling = connect(door(&ambassador, "db")).await;
        dribbling.write_all(b"PRO").await.expect("sent");
        waiting.push((client, dribbling));
    }
    for _ in 0..100 {
        let mut client = connect(door(&ambassador, "db")).await;
        client.write_all(b"PROXY UNKNOWN\r\n").await.expect("sent");
        echo(&mut client, "hello").await;
    }
    until("the mute's clients", || route(&ambassador, "mute").tally.open_now == 100).await;
    for (_, dribbling) in &mut waiting {
        assert_eq!(failure(dribbling).await, std::io::ErrorKind::ConnectionReset);
    }
    until("counting", || route(&ambassador, "db").tally.bad_headers == 100).await;
}

/// A client whose machine lost its power says nothing; probes find it out.
#[tokio::test]
async fn a_peer_that_vanished_is_found() {
    let service = Echo::start("hi").await;
    let (says, mut config) = following("db");
    config.keepalive.idle = Duration::from_secs(1);
    config.keepalive.interval = Duration::from_secs(1);
    let ambassador = start(vec![config]);
    says.send_replace(leads(1, service.at));
    let mut client = connect(door(&ambassador, "db")).await;
    expect(&mut client, "hi").await;
    if !vanish(client) {
        eprintln!("SKIPPED: a_peer_that_vanished_is_found: TCP_REPAIR needs CAP_NET_ADMIN");
        return;
    }
    until("finding out", || {
        let tally = route(&ambassador, "db").tally;
        tally.broken == 1 && tally.open_now == 0
    })
    .await;
}

/// Closes without a word to the peer, as a machine that stops does. False: not permitted to.
fn vanish(client: TcpStream) -> bool {
    let client = client.into_std().expect("a socket");
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the option's value is an int that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            client.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            std::ptr::from_ref(&on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    drop(client);
    done == 0
}
