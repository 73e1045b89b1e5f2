//! `mainstay verify` on a real cluster: what a disk changed on its own is found, named and mended
//! while clients write, and nothing else ever is.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{Cluster, PATIENCE, Service, Status, until};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::{assert_equal, binary, bounded, can_run, led_by_a};

const CHUNK: usize = 64 << 10;
/// The file that nobody writes to, of several chunks.
const PRECIOUS: usize = 5 * CHUNK + 100;

fn plan(extra: &str) -> Plan {
    let mut plan = Plan::new(binary(), Service::Files);
    plan.ttl = "3s".to_owned();
    plan.durability = "sync".to_owned();
    // A table after the top-level keys; the harness' own tables follow.
    plan.extra = format!("[sync]\n{extra}");
    plan
}

/// Writes in place, at the end and over the end of some files, until told to stop.
struct Writing {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Writing {
    fn start(mount: PathBuf) -> Writing {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut random = SmallRng::seed_from_u64(4);
            let mut count = 0;
            while !ended.load(Ordering::Acquire) {
                let name = format!("busy{}", random.random_range(0..4));
                let file = File::options()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(mount.join(name))
                    .expect("a file");
                match random.random_range(0..10) {
                    0 => file.set_len(random.random_range(0..600_000)).expect("a size"),
                    1 => file.sync_all().expect("acknowledged"),
                    _ => {
                        let bytes = vec![random.random(); random.random_range(1..9_000)];
                        let offset = random.random_range(0..500_000);
                        file.write_all_at(&bytes, offset).expect("a write");
                    }
                }
                count += 1;
            }
            count
        });
        Writing { stop, thread }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        bounded(move || self.thread.join().expect("the writer goes on to the end")).await
    }
}

fn precious() -> Vec<u8> {
    let mut bytes = vec![0; PRECIOUS];
    SmallRng::seed_from_u64(9).fill(&mut bytes[..]);
    bytes
}

/// Stores the precious file, and waits until it is in the objects of `node`.
async fn stored(cluster: &mut Cluster, node: &str) -> PathBuf {
    let mount = cluster.leader().await.expect("a leader").mount();
    bounded(move || {
        std::fs::create_dir(mount.join("dir")).expect("a directory");
        let file = mount.join("dir/precious");
        std::fs::write(&file, precious()).expect("a file");
        File::open(file).expect("a file").sync_all().expect("acknowledged");
    })
    .await;
    let objects = cluster.node(node).expect("a node").state().join("objects");
    let bytes = precious();
    let step = Duration::from_millis(50);
    until("the file's object", PATIENCE, step, async || object_of(&objects, &bytes))
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()))
}

fn object_of(objects: &Path, bytes: &[u8]) -> Option<PathBuf> {
    for low in std::fs::read_dir(objects).ok()?.flatten() {
        for entry in std::fs::read_dir(low.path()).ok()?.flatten() {
            let is_long = entry.metadata().is_ok_and(|of| of.len() == bytes.len() as u64);
            if is_long && std::fs::read(entry.path()).is_ok_and(|found| found == bytes) {
                return Some(entry.path());
            }
        }
    }
    None
}

fn flip(object: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(object).expect("an object");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], offset).expect("a byte");
}

async fn verify(cluster: &mut Cluster) -> Output {
    let mut command = cluster.replicas[0].mainstay(&["verify"]);
    bounded(move || command.output().expect("mainstay verify runs")).await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// blake3 of a chunk, as it is reported: up to the last byte that is not zero.
fn hash(chunk: &[u8]) -> String {
    let end = chunk.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    blake3::hash(&chunk[..end]).to_hex()[..16].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_named_mended_and_set_aside_and_writes_alarm_nobody() {
    if !can_run("a_flipped_byte_is_named_mended_and_set_aside_and_writes_alarm_nobody") {
        return;
    }
    let mut cluster = led_by_a(&plan("verify_bandwidth = \"1GiB\""), |_| ()).await;
    let object = stored(&mut cluster, "b").await;
    let mount = cluster.replicas[0].mount();
    let writing = Writing::start(mount);

    for round in 0..4 {
        let found = verify(&mut cluster).await;
        let (said, errors) = (text(&found.stdout), text(&found.stderr));
        assert!(found.status.success(), "a false alarm in round {round}: {said}{errors}");
        assert_eq!(said.matches("no difference").count(), 2, "both followers: {said}{errors}");
    }

    let at = 3 * CHUNK + 1234;
    flip(&object, at as u64);
    let found = verify(&mut cluster).await;
    let said = text(&found.stdout);
    assert_eq!(found.status.code(), Some(1), "{said}{}", text(&found.stderr));
    let good = &precious()[3 * CHUNK..4 * CHUNK];
    let mut bad = good.to_vec();
    bad[1234] ^= 0x10;
    let line = said.lines().find(|line| line.contains("dir/precious")).unwrap_or_else(|| {
        panic!("the file is not named: {said}");
    });
    assert!(line.contains(&format!("dir/precious at {}", 3 * CHUNK)), "the offset: {line}");
    assert!(line.contains(&format!("{} on b", hash(&bad))), "its hash: {line}");
    assert!(line.contains(&format!("{} on the leader", hash(good))), "the leader's: {line}");
    assert!(said.contains("c: no difference"), "only b's disk is bad: {said}");

    assert_eq!(std::fs::read(&object).expect("an object"), precious(), "it is mended");
    let list = cluster.replicas[1].ask(&["quarantine", "list"]).expect("a list");
    assert!(list.contains("dir/precious"), "what was there is kept: {list}");
    let name = list.split_whitespace().next().expect("a name").to_owned();
    let kept = cluster.replicas[1].state().join("quarantine").join(name);
    assert!(holds(&kept, &bad), "the bytes themselves are in {}", kept.display());

    let status = text(&cluster.replicas[0].mainstay(&["status"]).output().expect("it runs").stdout);
    assert!(status.contains("compared:   b ") && status.contains(" ago, c "), "{status}");
    assert!(status.contains("differed from the leader's and were mended"), "{status}");

    let again = verify(&mut cluster).await;
    assert!(again.status.success(), "mended once and for all: {}", text(&again.stdout));
    assert!(writing.stop().await > 100, "the writer was busy meanwhile");

    // Next week is the next comparison: what a new process knows of the last, it has from the disk.
    let line_of_c = "compared:   b ";
    cluster.node("c").expect("a node").kill();
    let gone = |status: &Status| status.replica("c").is_none_or(|of| of.role.is_none());
    cluster.reaches("c to be gone", gone).await.unwrap_or_else(|error| panic!("{error:#}"));
    cluster.node("c").expect("a node").start().expect("the daemon starts");
    let back = |status: &Status| status.replica("c").is_some_and(|of| of.state == "streaming");
    cluster.reaches("c to be back", back).await.unwrap_or_else(|error| panic!("{error:#}"));
    let status = text(&cluster.replicas[0].mainstay(&["status"]).output().expect("it runs").stdout);
    let line = status.lines().find(|line| line.starts_with(line_of_c)).unwrap_or_default();
    assert!(line.contains(", c ") && line.ends_with("ago"), "{status}");
    assert_equal(&mut cluster).await;
}

/// Whether one of the files below has exactly these bytes.
fn holds(below: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(below).expect("a directory").flatten().any(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => holds(&path, bytes),
            false => std::fs::read(&path).is_ok_and(|found| found == bytes),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_finds_and_mends_without_being_asked() {
    if !can_run("the_schedule_finds_and_mends_without_being_asked") {
        return;
    }
    let mut cluster = led_by_a(&plan("verify_every = \"1s\""), |_| ()).await;
    let object = stored(&mut cluster, "c").await;
    flip(&object, 7);
    let step = Duration::from_millis(100);
    until("the byte to be mended", PATIENCE, step, async || {
        (std::fs::read(&object).ok()? == precious()).then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
}
