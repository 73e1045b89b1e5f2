//! Connections to a former leader, and their end.

use std::io::ErrorKind::ConnectionReset;
use std::time::Duration;

use mainstay_ambassador::{Attested, Moment};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::rig::*;

/// The service never answers, the query is under way, and the client learns at once.
#[tokio::test]
async fn a_new_epoch_resets_clients_in_the_middle_of_a_query() {
    let (old, new) = (Echo::start("old").await, Echo::start("new").await);
    let (says, config) = following("db");
    let ambassador = start(vec![config]);
    says.send_replace(leads(1, old.at));
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = connect(door(&ambassador, "db")).await;
        expect(&mut client, "old").await;
        clients.push(client);
    }
    says.send_replace(leads(2, new.at));
    for client in &mut clients {
        assert_eq!(failure(client).await, ConnectionReset);
    }
    let mut client = connect(door(&ambassador, "db")).await;
    expect(&mut client, "new").await;
    until("counting", || route(&ambassador, "db").tally.cut == 20).await;
}

#[tokio::test]
async fn the_former_leader_s_side_is_reset_too() {
    let service = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (says, config) = following("db");
    let ambassador = start(vec![config]);
    says.send_replace(leads(1, service.local_addr().expect("bound")));
    let mut client = connect(door(&ambassador, "db")).await;
    let (mut served, _) = patiently("accepting", service.accept()).await.expect("forwarded");
    // A cut before the proxy has seen the connection made would hold the client.
    served.write_all(b"hi").await.expect("sent");
    expect(&mut client, "hi").await;
    says.send_modify(|state| state.leader = None);
    assert_eq!(failure(&mut client).await, ConnectionReset);
    assert_eq!(failure(&mut served).await, ConnectionReset);
}

/// Nobody says anything more: trust runs out by itself, and comes back with the next contact.
#[tokio::test]
async fn silence_of_the_coordinator_cuts_and_holds() {
    let service = Echo::start("hi").await;
    let (says, config) = following("db");
    let ambassador = start(vec![config]);
    let mut state = leads(1, service.at);
    says.send_replace(state.clone());
    let mut client = connect(door(&ambassador, "db")).await;
    expect(&mut client, "hi").await;
    state.trusted_until = Moment::now() + Duration::from_millis(200);
    says.send_replace(state.clone());
    assert_eq!(failure(&mut client).await, ConnectionReset);
    let mut held = connect(door(&ambassador, "db")).await;
    until("holding", || route(&ambassador, "db").tally.held_now == 1).await;
    // The coordinator is still away, but the leader attests itself.
    state.attested = Some(Attested { epoch: 1, until: Moment::now() + LONG });
    says.send_replace(state);
    expect(&mut held, "hi").await;
}

/// Trust is renewed again and again: nobody notices anything.
#[tokio::test]
async fn fresh_contact_cuts_nobody() {
    let service = Echo::start("hi").await;
    let (says, config) = following("db");
    let ambassador = start(vec![config]);
    says.send_replace(leads(1, service.at));
    let mut client = connect(door(&ambassador, "db")).await;
    expect(&mut client, "hi").await;
    for round in 0..50 {
        says.send_modify(|state| {
            state.trusted_until = Moment::now() + LONG;
            state.ready = round % 2 == 0; // a planned pause holds new clients only
        });
        echo(&mut client, "still there?").await;
    }
    assert_eq!(route(&ambassador, "db").tally.cut, 0);
}
