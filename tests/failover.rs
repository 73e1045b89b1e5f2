//! The main job: a leader's whole process tree dies, and the service goes on elsewhere.

mod support;

use mainstay_chaos::demo::{Seen, Show, run};
use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Coordination, Service};
use support::{binary, can_run};

async fn show(service: Service, coordination: Coordination, kills: usize) -> Seen {
    let mut plan = Plan::new(binary(), service);
    plan.coordination = coordination;
    plan.ttl = "3s".to_owned();
    let pgbench = service == Service::Postgres;
    let seen = run(&Show { plan, kills, clients: 4, restart: true, pgbench }).await;
    let seen = seen.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(seen.failovers.len(), kills);
    assert!(seen.verdict.acknowledged > 300, "{}", seen.verdict);
    let epochs: Vec<_> = seen.failovers.iter().map(|failover| failover.epoch).collect();
    assert!(epochs.is_sorted_by(|earlier, later| earlier < later), "{epochs:?}");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_survives_the_death_of_its_leader_twice() {
    if can_run("postgres_survives_the_death_of_its_leader_twice") {
        show(Service::Postgres, Coordination::Sqlite, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_survives_through_a_real_etcd() {
    if can_run("postgres_survives_through_a_real_etcd") {
        show(Service::Postgres, Coordination::Etcd(3), 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_survives_the_death_of_its_leader_twice() {
    if can_run("redis_survives_the_death_of_its_leader_twice") {
        show(Service::Redis, Coordination::Sqlite, 2).await;
    }
}
