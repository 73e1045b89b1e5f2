//! Views and attestations, and what they make of a route.

use mainstay_election::coordinator::{Contents, Entry, Revision};
use mainstay_election::values::{self, encode, keys};

use super::*;

const TTL: Duration = Duration::from_secs(5);

fn entry(key: impl Into<String>, value: Vec<u8>) -> Entry {
    let at = Revision(9);
    Entry { key: key.into(), value, created: at, modified: at, lease: None }
}

fn node() -> values::NodeName {
    "a".parse().unwrap()
}

fn leader(volume: u8) -> values::Leader {
    values::Leader {
        node: node(),
        volume: values::VolumeId([volume; 16]),
        epoch: values::Epoch(7),
        peer: "10.0.0.1:7400".to_owned(),
        service: Some("127.0.0.1:5432".to_owned()),
        ready: true,
        nonce: values::Nonce([1; 16]),
    }
}

fn config(durability: Durability) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({
        "cluster": "03".repeat(16), "voters": [], "write_quorum": 2, "durability": durability,
        "max_lag": {}, "eligible": [], "lineage": [], "degraded": false, "version": 1,
    }))
    .unwrap()
}

fn replica() -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({
        "node": "a", "volume": "02".repeat(16), "peer": "10.0.0.1:7400", "api": "0.0.0.0:7480",
        "role": "leader", "state": "", "position": { "epoch": 7, "seq": 1 }, "applied": 1,
        "head": 1, "lag": values::Lag::default(), "promised": 7, "building": false, "time": 0,
        "version": "", "tags": values::Tags::default(),
    }))
    .unwrap()
}

/// Epoch `epoch`, led by the holder of `volume` in epoch 7 if there is one.
fn view(durability: Durability, epoch: u64, volume: Option<u8>) -> View {
    let nonce = values::Nonce([1; 16]);
    let taken = values::EpochTaken { epoch: values::Epoch(epoch), nonce, holder: node() };
    let mut entries = vec![
        entry(keys::EPOCH, encode(&taken)),
        entry(keys::CONFIG, config(durability)),
        entry(keys::replica(&node()), replica()),
    ];
    if let Some(volume) = volume {
        entries.push(entry(keys::LEADER, encode(&leader(volume))));
    }
    View::parse(&Contents { revision: Revision(9), entries }).expect("readable values")
}

fn at(seconds: u64) -> Moment {
    Moment::from_boot(Duration::from_secs(seconds))
}

fn seen(durability: Durability) -> Route {
    let mut route = Route::new("db".to_owned(), TTL);
    route.see(&view(durability, 7, Some(2)), at(100));
    route
}

#[test]
fn a_leaders_absence_is_word_of_the_same_epoch_and_not_of_an_older_one() {
    let mut route = seen(Durability::Async);
    assert!(route.state.ready && route.state.leader.is_some() && route.state.version == 9);
    route.see(&view(Durability::Async, 7, None), at(101));
    assert!(!route.hesitates && !route.state.ready && route.state.leader.is_none());
    assert_eq!(route.state.epoch, 7);
}

#[test]
fn a_view_is_trusted_for_a_ttl_from_its_reads_beginning() {
    assert_eq!(seen(Durability::Async).state.trusted_until, at(105));
    assert_eq!(Route::new("db".to_owned(), TTL).state.trusted_until, Moment::BOOT);
}

#[test]
fn only_a_leader_in_sync_can_attest_and_only_the_one_that_is_registered() {
    assert_eq!(seen(Durability::Async).witness(), None);
    let asked = seen(Durability::Sync).witness().expect("the leader");
    assert_eq!((asked.epoch, asked.address.as_str()), (values::Epoch(7), "10.0.0.1:7480"));
    let mut route = Route::new("db".to_owned(), TTL);
    // The node has come back with another volume: it is not who leads.
    route.see(&view(Durability::Sync, 7, Some(5)), at(100));
    assert_eq!(route.witness(), None);
}

#[test]
fn a_leader_that_the_coordinator_lost_leads_on_by_its_own_word_alone() {
    let mut route = seen(Durability::Sync);
    let before = route.state.clone();
    route.see(&view(Durability::Sync, 7, None), at(101));
    assert!(route.hesitates);
    assert_eq!(route.state, before, "until it is asked");
    let attested = Attested { epoch: 7, until: at(103) };
    route.attest(Some(attested));
    assert!(!route.hesitates && route.state.leader.is_some());
    assert_eq!((route.state.trusted_until, route.state.attested), (Moment::BOOT, Some(attested)));
    // The next view says nothing new, and trusts nothing again.
    route.see(&view(Durability::Sync, 7, None), at(102));
    assert!(!route.hesitates && route.state.trusted_until == Moment::BOOT);
    // A newer epoch ends it.
    route.see(&view(Durability::Sync, 8, None), at(102));
    assert!(route.state.leader.is_none() && route.witness().is_none() && route.state.epoch == 8);
}

#[test]
fn a_leader_that_the_coordinator_lost_and_that_attests_nothing_is_not_trusted() {
    let mut route = seen(Durability::Sync);
    route.see(&view(Durability::Sync, 7, None), at(101));
    route.attest(None);
    assert_eq!((route.state.trusted_until, route.state.attested), (Moment::BOOT, None));
}
