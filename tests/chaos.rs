//! Clusters in worlds of their own under faults from fixed seeds; every judge must be content.
//!
//! What a run finds here, `chaos live` replays with the seed and shows as a page.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use mainstay_chaos::live::Service;
use mainstay_chaos::nemesis::Kind;
use mainstay_chaos::report::Report;
use mainstay_chaos::run::options::Durability;
use mainstay_chaos::run::{Options, run, seeds};
use support::{binary, can_run, has};

fn can_chaos(name: &str) -> bool {
    can_run(name) && has(name, "etcd") && has(name, "etcdctl") && has(name, "nft")
}

fn options(seed: u64, seconds: u64, faults: &[Kind]) -> Options {
    Options {
        seed,
        duration: Duration::from_secs(seconds),
        faults: faults.to_vec(),
        binary: binary(),
        out: concat!(env!("CARGO_MANIFEST_DIR"), "/target/chaos").into(),
        calm: Some(Duration::from_secs(6)),
        // Here only what hangs is to be found: how busy the machine is, nobody knows.
        patience: Duration::from_secs(60),
        ..Options::default()
    }
}

/// Runs it, keeps its report, and panics with what was found.
fn assert_clean(options: &Options) -> Report {
    let report = run(options).unwrap_or_else(|error| panic!("{error:#}\n{}", options.replay()));
    report.write().expect("the report is written");
    let bad: Vec<_> = report.findings.iter().filter(|finding| !finding.is_clean()).collect();
    assert!(bad.is_empty(), "{bad:#?}\n{}\n{}", options.replay(), report.folder().display());
    let done = report.faults.iter().filter(|fault| fault.skipped.is_none()).count();
    assert!(done > 0, "no fault was made");
    report
}

#[test]
fn postgres_survives_kills_pauses_and_partitions() {
    if !can_chaos("postgres_survives_kills_pauses_and_partitions") {
        return;
    }
    let faults = [Kind::KillNode, Kind::PauseNode, Kind::CutAll, Kind::CutCoordinator];
    let durability = Durability::Sync;
    let report = assert_clean(&Options { durability, ..options(6, 75, &faults) });
    assert!(report.reigns.len() > 1, "nobody was deposed: {:?}", report.reigns);
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let ours = format!("mainstay-chaos-{}-", std::process::id());
    assert!(!mounts.contains(&ours), "mounts are left behind: {mounts}");
    for folder in ["/run/netns", "/tmp", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            assert!(!name.to_string_lossy().starts_with(&ours), "{folder} has {name:?}");
        }
    }
}

#[test]
fn postgres_survives_full_disks_and_new_nodes() {
    if !can_chaos("postgres_survives_full_disks_and_new_nodes") {
        return;
    }
    let faults = [Kind::FillLeader, Kind::FillFollower, Kind::Replace, Kind::Switchover];
    let durability = Durability::Sync;
    assert_clean(&Options { durability, ..options(2, 60, &faults) });
}

#[test]
fn redis_survives_kills_and_a_lost_etcd() {
    if !can_chaos("redis_survives_kills_and_a_lost_etcd") || !has("redis", "redis-server") {
        return;
    }
    let faults = [Kind::KillNode, Kind::KillDaemon, Kind::StopEtcd];
    assert_clean(&Options { service: Service::Redis, ..options(3, 45, &faults) });
}

#[test]
fn mariadb_survives_kills_and_a_pause() {
    let name = "mariadb_survives_kills_and_a_pause";
    if !can_chaos(name) || !has(name, "/usr/sbin/mariadbd") || !has(name, "mariadb") {
        return;
    }
    let faults = [Kind::KillNode, Kind::KillService, Kind::PauseNode];
    let (service, durability) = (Service::MariaDb, Durability::Sync);
    let report = assert_clean(&Options { service, durability, ..options(5, 45, &faults) });
    assert!(report.reigns.len() > 1, "nobody was deposed: {:?}", report.reigns);
}

#[test]
fn a_file_store_survives_kills_and_a_failing_disk() {
    if !can_chaos("a_file_store_survives_kills_and_a_failing_disk") {
        return;
    }
    let faults = [Kind::KillNode, Kind::KillService, Kind::FailDisk];
    let (service, durability) = (Service::Store, Durability::Sync);
    assert_clean(&Options { service, durability, ..options(4, 45, &faults) });
}

#[test]
fn runs_that_once_found_something_are_clean() {
    if !can_chaos("runs_that_once_found_something_are_clean") {
        return;
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/chaos/seeds");
    for (name, seed) in seeds::read(folder.as_ref()).expect("the seeds can be read") {
        let out = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/chaos").join(name);
        let patience = Duration::from_secs(60);
        assert_clean(&Options { binary: binary(), out, patience, ..seed });
    }
}
