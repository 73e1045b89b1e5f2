//! The runner against a real coordinator (SQLite) and the real clock, with replicas that only keep
//! numbers. Which replica wins and when is the scenarios' business; here it is that all of it is
//! carried out: leases, promises, directives, the gate, and leaving.
//!
//! Nothing here measures time: everything waits for what must come, for a minute if need be.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mainstay_election::coordinator::{Compare, Coordinator, Write};
use mainstay_election::machine::{Blocked, Directive, Identity, Moment, Report, Settings};
use mainstay_election::runner::{Observed, Runner, RunnerHandle, Sealed, Vows, observe};
use mainstay_election::values::{
    ClusterId, Epoch, Lag, Lineage, NodeName, Nonce, Position, Seq, Tags, VolumeId, keys,
};
use mainstay_election::{EtcdOptions, connect};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Long enough for a machine that has other things to do as well; nothing waits for it in vain.
const TTL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(20);

/// What a volume keeps.
#[derive(Debug, Default)]
struct Disk {
    volume: VolumeId,
    cluster: Option<ClusterId>,
    position: Position,
    lineage: Lineage,
    promised: Epoch,
    leading: Option<Epoch>,
}

struct Volume(Mutex<Disk>);

#[async_trait]
impl Vows for Volume {
    async fn promise(&self, through: Epoch) -> Result<Sealed, String> {
        let mut disk = self.0.lock().expect("no test panics with it");
        disk.promised = disk.promised.max(through);
        Ok(Sealed { volume: disk.volume, position: disk.position, lineage: disk.lineage.clone() })
    }
}

impl Volume {
    fn new(number: u8) -> Arc<Volume> {
        let disk = Disk { volume: VolumeId([number; 16]), ..Disk::default() };
        Arc::new(Volume(Mutex::new(disk)))
    }

    fn report(&self) -> Report {
        let disk = self.0.lock().expect("no test panics with it");
        Report {
            volume: disk.volume,
            cluster: disk.cluster,
            position: disk.position,
            applied: disk.position.seq,
            head: disk.position.seq,
            promised: disk.promised,
            building: false,
            leading: disk.leading,
            ready: disk.leading.is_some(),
            service: Some("127.0.0.1:5432".to_owned()),
            unfit: None,
            lag: Lag::default(),
            heard: None,
            quorum_heard: Moment::NEVER,
            caught_up: Vec::new(),
            covered: None,
            stored: None,
            verified: None,
            progress: None,
            state: "in a test".to_owned(),
        }
    }

    /// Becomes what it is told to be.
    fn obey(&self, directive: &Directive) {
        let mut disk = self.0.lock().expect("no test panics with it");
        match directive {
            Directive::Lead { epoch, cluster } if disk.leading != Some(*epoch) => {
                let first = disk.position.seq.next();
                disk.lineage = disk.lineage.extended(*epoch, first, 512);
                disk.position = Position { epoch: *epoch, seq: first };
                disk.cluster = Some(*cluster);
                disk.leading = Some(*epoch);
            }
            Directive::Lead { .. } => {}
            Directive::Follow { cluster, epoch, .. } => {
                disk.leading = None;
                disk.cluster = Some(*cluster);
                // As if it had everything at once; the first record of each epoch is all there is.
                disk.position = Position { epoch: *epoch, seq: Seq(epoch.0) };
                disk.lineage = Lineage((1..=epoch.0).map(|at| (Epoch(at), Seq(at))).collect());
            }
            _ => disk.leading = None,
        }
    }
}

/// A replica that does as it is told.
struct Replica {
    handle: Arc<RunnerHandle>,
    volume: Arc<Volume>,
    obeys: JoinHandle<()>,
}

impl Replica {
    async fn start(file: &Path, name: &str, volume: &Arc<Volume>) -> Replica {
        let identity = Identity {
            node: node(name),
            peer: format!("{name}:7400"),
            api: None,
            version: "0".to_owned(),
            tags: Tags::default(),
            incarnation: Nonce(rand::random()),
            cluster_if_founded: ClusterId(rand::random()),
        };
        let coordinator = coordinator(file).await;
        let vows = Arc::clone(volume) as Arc<dyn Vows>;
        let handle = Arc::new(Runner::start(coordinator, vows, identity, Settings::for_ttl(TTL)));
        handle.report(volume.report());
        let obeys = tokio::spawn({
            let (handle, volume) = (Arc::clone(&handle), Arc::clone(volume));
            let mut directives = handle.directives();
            async move {
                while directives.changed().await.is_ok() {
                    let directive = directives.borrow_and_update().clone();
                    volume.obey(&directive);
                    handle.report(volume.report());
                }
            }
        });
        Replica { handle, volume: Arc::clone(volume), obeys }
    }

    async fn directed(&self, what: impl Fn(&Directive) -> bool) -> Directive {
        let mut directives = self.handle.directives();
        let found = timeout(PATIENCE, directives.wait_for(|it| what(it))).await;
        found.expect("it is told so in time").expect("the runner lives").clone()
    }

    async fn leads(&self) -> Epoch {
        match self.directed(|it| matches!(it, Directive::Lead { .. })).await {
            Directive::Lead { epoch, .. } => epoch,
            other => unreachable!("{other:?}"),
        }
    }

    /// Waits until its mount would answer.
    async fn answers(&self) {
        let gate = self.handle.gate();
        let open = async {
            while !gate.open() {
                sleep(STEP).await;
            }
        };
        timeout(PATIENCE, open).await.expect("the gate opens in time");
    }

    /// The process is killed: nothing is said to anybody.
    fn kill(self) {
        self.obeys.abort();
    }

    /// Its process ends in good order: first the service, then everything else.
    async fn leave(self) {
        self.obeys.abort();
        let _aborted = self.obeys.await;
        self.volume.0.lock().expect("unpoisoned").leading = None;
        self.handle.report(self.volume.report());
        let handle = Arc::into_inner(self.handle).expect("the other holder was aborted");
        timeout(PATIENCE, handle.shutdown()).await.expect("it leaves in time");
    }
}

fn node(name: &str) -> NodeName {
    name.parse().expect("a name")
}

async fn coordinator(file: &Path) -> Arc<dyn Coordinator> {
    let address = format!("sqlite://{}", file.display()).parse().expect("an address");
    connect(&address, &EtcdOptions::default(), "orders", TTL)
        .await
        .expect("a file can always be opened")
}

async fn seen(view: &mut watch::Receiver<Observed>, what: impl Fn(&Observed) -> bool) -> Observed {
    let found = timeout(PATIENCE, view.wait_for(|seen| what(seen))).await;
    found.expect("it is seen in time").expect("somebody looks").clone()
}

fn eligible(seen: &Observed) -> usize {
    let config = seen.view.as_ref().and_then(|view| view.config.as_ref());
    config.map_or(0, |config| config.value.eligible.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_dies_and_the_follower_takes_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("coordinator.db");
    let (one, two) = (Volume::new(1), Volume::new(2));
    let a = Replica::start(&file, "a", &one).await;
    let first = a.leads().await;
    a.answers().await;

    let b = Replica::start(&file, "b", &two).await;
    b.directed(|it| matches!(it, Directive::Follow { .. })).await;
    assert!(!b.handle.gate().open(), "a follower answers nobody");
    let mut view = b.handle.view();
    let let_in = async {
        while eligible(&view.borrow()) < 2 {
            a.handle.set_eligible(node("b"), VolumeId([2; 16]), true).await;
            sleep(STEP).await;
        }
    };
    timeout(PATIENCE, let_in).await.expect("the follower is let in in time");

    a.kill();
    let epoch = b.leads().await;
    assert!(epoch > first);
    b.answers().await;
    seen(&mut view, |seen| {
        let leader = seen.view.as_ref().and_then(|view| view.leader.as_ref());
        leader.is_some_and(|leader| leader.value.node == node("b") && leader.value.ready)
    })
    .await;
    assert!(two.report().promised >= first, "it promised before it balloted");
    b.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_shuts_the_gate_first_and_leaving_takes_the_keys_along() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("coordinator.db");
    let a = Replica::start(&file, "a", &Volume::new(1)).await;
    let epoch = a.leads().await;
    let mut view = observe(coordinator(&file).await, TTL);
    seen(&mut view, |seen| seen.view.as_ref().is_some_and(|view| view.leader.is_some())).await;

    a.handle.step_down(epoch, "a test".to_owned()).await;
    assert!(!a.handle.gate().open(), "the gate is shut on return");
    // Alone it is elected again, in a new epoch.
    a.directed(|it| matches!(it, Directive::Lead { epoch: next, .. } if *next > epoch)).await;

    a.leave().await;
    let left = seen(&mut view, |seen| {
        seen.view.as_ref().is_some_and(|view| view.leader.is_none() && view.replicas.is_empty())
    })
    .await;
    assert!(left.age().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_key_deposes_and_a_foreign_volume_is_told_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("coordinator.db");
    let a = Replica::start(&file, "a", &Volume::new(1)).await;
    let epoch = a.leads().await;

    let stranger = Volume::new(9);
    stranger.0.lock().expect("unpoisoned").cluster = Some(ClusterId([7; 16]));
    let b = Replica::start(&file, "b", &stranger).await;
    b.directed(|it| matches!(it, Directive::Blocked(Blocked::ForeignCluster { .. }))).await;

    let store = coordinator(&file).await;
    let delete = vec![Write::Delete(keys::LEADER.to_owned())];
    let compares: Vec<Compare> = Vec::new();
    timeout(PATIENCE, store.transact(compares, delete)).await.expect("in time").expect("done");
    a.directed(|it| matches!(it, Directive::Lead { epoch: next, .. } if *next > epoch)).await;
    b.kill();
    a.leave().await;
    // It took its key along, and whoever looks on sees that.
    let mut view = observe(store, TTL);
    seen(&mut view, |seen| seen.view.as_ref().is_some_and(|view| view.leader.is_none())).await;
}
