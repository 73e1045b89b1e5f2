//! Clusters in worlds of their own under faults from fixed seeds; every judge must be content.
//!
//! What a run finds here, `chaos live` replays with the seed and shows as a page.

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mainstay_chaos::live::{PATIENCE, Service};
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
    let report = assert_clean(&options(6, 75, &faults));
    assert!(report.reigns.len() > 1, "nobody was deposed: {:?}", report.reigns);
    assert_eq!(traces_of(std::process::id()), [""; 0]);
}

/// All that is on this machine of a harness with this pid, dead or alive.
fn traces_of(pid: u32) -> Vec<String> {
    let name = format!("mainstay-chaos-{pid}-");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mut traces: Vec<_> =
        mounts.lines().filter(|line| line.contains(&name)).map(String::from).collect();
    for folder in ["/run/netns", "/tmp", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&name) {
                traces.push(entry.path().display().to_string());
            }
        }
    }
    for (folder, file) in [("/proc", "cmdline"), ("/sys/block", "loop/backing_file")] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let text = std::fs::read(entry.path().join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            if text.contains(&name) {
                traces.push(format!("{}: {text}", entry.path().display()));
            }
        }
    }
    traces
}

#[test]
fn a_sweep_takes_away_all_of_a_run_that_was_killed() {
    let name = "a_sweep_takes_away_all_of_a_run_that_was_killed";
    let chaos = binary().with_file_name("chaos");
    if !can_chaos(name) || !has(name, chaos.to_str().expect("a path that is text")) {
        return;
    }
    let out = concat!(env!("CARGO_MANIFEST_DIR"), "/target/chaos/killed");
    let mut run = Command::new(&chaos)
        .args(["live", "--duration", "1h", "--faults", "kill-follower", "--out", out, "--binary"])
        .arg(binary())
        .stdout(Stdio::null())
        .spawn()
        .expect("a run");
    // Once a service has its data there is one of everything.
    let began = Instant::now();
    let is_up = |traces: Vec<String>| traces.iter().any(|trace| trace.contains("/mount fuse"));
    while !is_up(traces_of(run.id())) {
        assert!(began.elapsed() < PATIENCE, "{:?}", traces_of(run.id()));
        std::thread::sleep(Duration::from_millis(100));
    }
    run.kill().expect("it is killed");
    run.wait().expect("it has ended");
    assert!(!traces_of(run.id()).is_empty(), "nothing is left to sweep");
    let swept = Command::new(&chaos).arg("sweep").output().expect("a sweep");
    assert!(swept.status.success(), "{swept:?}");
    assert_eq!(traces_of(run.id()), [""; 0], "{}", String::from_utf8_lossy(&swept.stdout));
}

#[test]
fn postgres_survives_full_disks_and_new_nodes() {
    if !can_chaos("postgres_survives_full_disks_and_new_nodes") {
        return;
    }
    let faults = [Kind::FillLeader, Kind::FillFollower, Kind::Replace, Kind::Switchover];
    assert_clean(&options(2, 60, &faults));
}

#[test]
fn redis_survives_kills_and_a_lost_etcd() {
    if !can_chaos("redis_survives_kills_and_a_lost_etcd") || !has("redis", "redis-server") {
        return;
    }
    let faults = [Kind::KillNode, Kind::KillDaemon, Kind::StopEtcd, Kind::PauseGuards];
    // The only one in async: what a failover takes there is held against its bound.
    let (service, durability) = (Service::Redis, Durability::Async);
    let max_lag = Duration::from_secs(2);
    assert_clean(&Options { service, durability, max_lag, ..options(3, 60, &faults) });
}

#[test]
fn mariadb_survives_kills_and_a_pause() {
    let name = "mariadb_survives_kills_and_a_pause";
    if !can_chaos(name) || !has(name, "/usr/sbin/mariadbd") || !has(name, "mariadb") {
        return;
    }
    let faults = [Kind::KillNode, Kind::KillService, Kind::PauseNode];
    let service = Service::MariaDb;
    let report = assert_clean(&Options { service, ..options(5, 45, &faults) });
    assert!(report.reigns.len() > 1, "nobody was deposed: {:?}", report.reigns);
}

#[test]
fn a_file_store_survives_kills_and_a_failing_disk() {
    if !can_chaos("a_file_store_survives_kills_and_a_failing_disk") {
        return;
    }
    let faults = [Kind::KillNode, Kind::KillService, Kind::FailDisk];
    assert_clean(&Options { service: Service::Store, ..options(4, 45, &faults) });
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
