//! Static upstreams and their health.

use std::time::Duration;

use mainstay_ambassador::{Address, Order, RouteConfig, RouteTarget, Source, UpstreamsConfig};

use super::rig::*;

fn fast(addresses: Vec<Address>, order: Order) -> RouteConfig {
    let mut upstreams = UpstreamsConfig::new(addresses);
    upstreams.order = order;
    upstreams.check_interval = Duration::from_millis(20);
    RouteConfig::new("etcd", any_port(), Source::Upstreams(upstreams))
}

fn alive(ambassador: &mainstay_ambassador::Ambassador) -> Vec<bool> {
    match route(ambassador, "etcd").target {
        RouteTarget::Upstreams(upstreams) => upstreams.iter().map(|one| one.alive).collect(),
        RouteTarget::Leader { .. } => panic!("the route has upstreams"),
    }
}

#[tokio::test]
async fn a_dead_upstream_is_left_out_until_it_is_back() {
    let first = tokio::net::TcpSocket::new_v4().expect("a socket");
    first.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let at = first.local_addr().expect("bound");
    let second = Echo::start("second").await;
    let by_name = Address::Host("localhost".into(), second.at.port());
    let ambassador = start(vec![fast(vec![at.into(), by_name], Order::FirstAlive)]);
    // Not known to be dead yet, or known: the client is served in both cases.
    expect(&mut connect(door(&ambassador, "etcd")).await, "second").await;
    until("the first is found dead", || alive(&ambassador) == [false, true]).await;
    let _first = Echo::on(first.listen(1024).expect("listening"), "first");
    until("the first is found alive", || alive(&ambassador) == [true, true]).await;
    expect(&mut connect(door(&ambassador, "etcd")).await, "first").await;
}

#[tokio::test]
async fn clients_spread_over_upstreams() {
    let (one, two) = (Echo::start("").await, Echo::start("").await);
    let ambassador = start(vec![fast(vec![one.at.into(), two.at.into()], Order::LeastConnections)]);
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = connect(door(&ambassador, "etcd")).await;
        echo(&mut client, "hello").await;
        clients.push(client);
    }
    let RouteTarget::Upstreams(upstreams) = route(&ambassador, "etcd").target else {
        panic!("the route has upstreams")
    };
    assert_eq!(upstreams.iter().map(|one| one.open).collect::<Vec<_>>(), [5, 5]);
}
