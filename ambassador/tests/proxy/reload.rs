//! A new configuration under running connections.

use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_ambassador::{
    AccessLog, Address, Ambassador, Drained, Inherited, Settings, StartError,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::rig::*;

#[tokio::test]
async fn a_reload_keeps_what_it_does_not_change() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let (kept_says, kept) = following("kept");
    let (changed_says, changed) = following("changed");
    let (removed_says, removed) = following("removed");
    let ambassador = start(vec![kept.clone(), changed.clone(), removed]);
    let mut clients = Vec::new();
    for (says, name) in
        [(&kept_says, "kept"), (&changed_says, "changed"), (&removed_says, "removed")]
    {
        says.send_replace(leads(1, one.at));
        let mut client = connect(door(&ambassador, name)).await;
        expect(&mut client, "one").await;
        clients.push(client);
    }
    let doors = ["kept", "changed", "removed"].map(|name| door(&ambassador, name));
    let (new_says, mut new_source) = following("changed");
    new_source.hold.max = 7;
    new_says.send_replace(leads(1, two.at));
    let (added_says, added) = following("added");
    added_says.send_replace(leads(1, two.at));
    ambassador.reload(vec![kept.clone(), new_source, added]).expect("reloaded");

    assert_eq!([doors[0], doors[1]], ["kept", "changed"].map(|name| door(&ambassador, name)));
    for client in &mut clients {
        echo(client, "still here").await;
    }
    expect(&mut connect(doors[0]).await, "one").await;
    expect(&mut connect(doors[1]).await, "two").await;
    expect(&mut connect(door(&ambassador, "added")).await, "two").await;
    patiently("closing the removed door", async {
        while TcpStream::connect(doors[2]).await.map_err(|e| e.kind()).err()
            != Some(ConnectionRefused)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // The counts of a route go on, and those who came in before it changed are among them.
    until("only the old one's client is there", || {
        let changed = route(&ambassador, "changed").tally;
        (changed.arrived, changed.open_now) == (2, 1)
    })
    .await;
    let stats = ambassador.stats();
    assert!(stats.routes.iter().any(|route| route.name == "removed" && route.retired));
    assert!(stats.total.arrived >= 6 && stats.total.open_now >= 3, "{:?}", stats.total);
    // Who came in by the old configuration is still cut when its leader goes.
    changed_says.send_replace(leads(2, two.at));
    removed_says.send_replace(leads(2, two.at));
    assert_eq!(failure(&mut clients[1]).await, ConnectionReset);
    assert_eq!(failure(&mut clients[2]).await, ConnectionReset);
    echo(&mut clients[0], "and still").await;
    until("the retired are gone", || ambassador.stats().routes.iter().all(|route| !route.retired))
        .await;
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let service = Echo::start("hi").await;
    let (says, config) = following("db");
    let ambassador = start(vec![config.clone()]);
    says.send_replace(leads(1, service.at));
    let (_other_says, mut other) = following("other");
    other.listen = Address::Tcp(service.at); // taken, and not by a proxy
    let error = ambassador.reload(vec![config.clone(), other]).expect_err("the port is taken");
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
    let error = ambassador.reload(vec![config.clone(), config]).expect_err("twice");
    assert_eq!(error.to_string(), "two routes are named `db`: give each a name of its own");
    expect(&mut connect(door(&ambassador, "db")).await, "hi").await;
}

#[tokio::test]
async fn a_shutdown_waits_for_who_is_there() {
    let service = Echo::start("hi").await;
    let (says, config) = following("db");
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = told.clone();
    let log = AccessLog::Callback(Arc::new(move |access| {
        tells.lock().expect("no panic").push(access.to_json());
    }));
    let ambassador = Ambassador::start(Settings { access_log: log, ..settings() }, vec![config]);
    let ambassador = ambassador.expect("the proxy starts");
    let at = door(&ambassador, "db");
    says.send_replace(leads(1, service.at));
    let mut client = connect(door(&ambassador, "db")).await;
    expect(&mut client, "hi").await;
    let ending = tokio::spawn(async move { ambassador.shutdown(PATIENCE).await });
    patiently("closing the door", async {
        while TcpStream::connect(at).await.map_err(|e| e.kind()).err() != Some(ConnectionRefused) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    echo(&mut client, "one more").await;
    drop(client);
    assert_eq!(patiently("ending", ending).await.expect("no panic"), Drained { cut: 0 });
    let told = told.lock().expect("no panic");
    let line = told.iter().find(|line| line.contains("\"bytes_in\":8")).expect("the client's line");
    for part in ["\"route\":\"db\"", "\"bytes_out\":10", "\"end\":\"closed\""] {
        assert!(line.contains(part), "no {part} in {line}");
    }
}

#[tokio::test]
async fn a_shutdown_resets_who_does_not_finish() {
    let service = Echo::start("hi").await;
    let (says, config) = following("db");
    let ambassador = start(vec![config]);
    says.send_replace(leads(1, service.at));
    let mut client = connect(door(&ambassador, "db")).await;
    expect(&mut client, "hi").await;
    let drained = patiently("ending", ambassador.shutdown(Duration::ZERO)).await;
    assert_eq!(drained, Drained { cut: 1 });
    assert_eq!(failure(&mut client).await, ConnectionReset);
}

/// A new proxy takes over the listeners while clients keep coming: every one is served.
#[tokio::test]
async fn a_restart_loses_no_client() {
    let service = Echo::start("hi").await;
    let (says, mut config) = following("db");
    says.send_replace(leads(1, service.at));
    let old = start(vec![config.clone()]);
    let at = door(&old, "db");
    config.listen = Address::Tcp(at);
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (stop.clone(), served.clone());
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let mut client = TcpStream::connect(at).await.expect("not refused");
                    let mut hi = [0; 2];
                    client.read_exact(&mut hi).await.expect("not reset");
                    served.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    until("traffic", || served.load(SeqCst) > 50).await;
    let mut inherited = Inherited::default();
    for (listen, socket) in old.listeners().expect("copies") {
        inherited.add(listen, socket);
    }
    let new = Ambassador::start_with(settings(), vec![config], inherited).expect("it takes over");
    old.hand_over();
    let before = served.load(SeqCst);
    patiently("the old one's end", old.shutdown(PATIENCE)).await;
    until("traffic goes on", || served.load(SeqCst) > before + 50).await;
    stop.store(true, SeqCst);
    for client in clients {
        patiently("the last client", client).await.expect("every client was served");
    }
    assert!(route(&new, "db").tally.arrived > 0);
}
