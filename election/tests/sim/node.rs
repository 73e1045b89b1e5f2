//! One node: what its disk holds, what its replica does, and the machine of its process.

use std::sync::Arc;
use std::time::Duration;

use mainstay_election::machine::{Directive, Identity, Machine, Moment, Report, Settings};
use mainstay_election::values::{
    ClusterId, Config, Epoch, Lag, Lineage, Member, Nonce, Position, Seq, Tags, Terms, VolumeId,
};

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub volume: VolumeId,
    pub cluster: Option<ClusterId>,
    pub position: Position,
    pub lineage: Lineage,
    pub promised: Epoch,
    pub building: bool,
}

impl Disk {
    /// Its log has the op at `position`: that epoch's part of it reaches so far.
    pub fn holds(&self, position: Position) -> bool {
        let entries = &self.lineage.0;
        let Some(at) = entries.iter().position(|(epoch, _)| *epoch == position.epoch) else {
            return false;
        };
        let end = entries.get(at + 1).map_or(self.position.seq, |(_, next)| Seq(next.0 - 1));
        entries[at].1 <= position.seq && position.seq <= end
    }
}

pub struct Node {
    pub name: String,
    pub disk: Disk,
    pub tags: Tags,
    pub unfit: Option<String>,
    /// None while the process is dead.
    pub machine: Option<Machine>,
    /// Counts the processes; what is under way for an older one is for nobody.
    pub life: u64,
    /// How much this node's boot clock is ahead of the world's.
    pub clock: Duration,
    /// Stopped until then, as by SIGSTOP: nothing is handled before.
    pub paused_until: Duration,
    /// No message passes.
    pub cut: bool,
    /// Promises take for ever.
    pub hushed: bool,
    pub leading: Option<Epoch>,
    /// As in the report.
    pub heard: Option<(Epoch, Moment)>,
    pub quorum_heard: Moment,
    pub caught_up: Vec<Member>,
    pub terms: Option<Terms>,
    pub covered: Option<Terms>,
    pub stored: Option<Arc<Config>>,
    pub ready: bool,
    pub directive: Option<Directive>,
    /// On this node's clock.
    pub gate: Moment,
    /// Counts the reads that were asked for.
    pub reads: u64,
    /// The time of the next tick that is in the queue.
    pub tick: Option<Duration>,
}

impl Node {
    pub fn new(name: &str, disk: Disk) -> Node {
        Node {
            name: name.to_owned(),
            disk,
            tags: Tags::default(),
            unfit: None,
            machine: None,
            life: 0,
            clock: Duration::ZERO,
            paused_until: Duration::ZERO,
            cut: false,
            hushed: false,
            leading: None,
            heard: None,
            quorum_heard: Moment::NEVER,
            caught_up: Vec::new(),
            terms: None,
            covered: None,
            stored: None,
            ready: false,
            directive: None,
            gate: Moment::NEVER,
            reads: 0,
            tick: None,
        }
    }

    /// A new process, with nothing but the disk.
    pub fn boot(&mut self, settings: &Settings) {
        self.life += 1;
        let mut incarnation = self.disk.volume.0;
        incarnation[8..].copy_from_slice(&self.life.to_be_bytes());
        self.machine = Some(Machine::new(
            Identity {
                node: self.name.parse().expect("a name"),
                peer: format!("{}:7400", self.name),
                api: None,
                version: "0".to_owned(),
                tags: self.tags,
                incarnation: Nonce(incarnation),
                cluster_if_founded: ClusterId(incarnation),
            },
            settings.clone(),
        ));
        self.leading = None;
        self.heard = None;
        self.quorum_heard = Moment::NEVER;
        self.caught_up.clear();
        self.terms = None;
        self.covered = None;
        self.ready = false;
        self.directive = None;
        self.gate = Moment::NEVER;
        self.tick = None;
    }

    /// The process dies, and with it its service, its mount and its gate.
    pub fn crash(&mut self) {
        self.machine = None;
        self.life += 1;
        self.leading = None;
        self.gate = Moment::NEVER;
    }

    pub fn local(&self, now: Duration) -> Moment {
        Moment::new(now + self.clock)
    }

    /// Whether its mount would answer, were the process given a moment.
    pub fn gate_open(&self, now: Duration) -> bool {
        self.machine.is_some() && self.local(now) < self.gate
    }

    pub fn report(&self) -> Report {
        Report {
            volume: self.disk.volume,
            cluster: self.disk.cluster,
            position: self.disk.position,
            applied: self.disk.position.seq,
            head: self.disk.position.seq,
            promised: self.disk.promised,
            building: self.disk.building,
            leading: self.leading,
            ready: self.ready,
            service: Some(format!("{}:5432", self.name)),
            unfit: self.unfit.clone(),
            lag: Lag::default(),
            heard: self.heard,
            quorum_heard: self.quorum_heard,
            caught_up: self.caught_up.clone(),
            covered: self.covered.clone(),
            stored: self.stored.clone(),
            verified: None,
            progress: None,
            state: "streaming".to_owned(),
        }
    }

    /// Its log takes the EpochStart record of its own epoch.
    pub fn begin_epoch(&mut self, epoch: Epoch, cluster: ClusterId) {
        assert!(self.disk.promised < epoch, "{} leads what it promised away", self.name);
        assert!(!self.disk.building, "{} leads with half a copy", self.name);
        let first = self.disk.position.seq.next();
        self.disk.lineage = self.disk.lineage.extended(epoch, first, 512);
        self.disk.position = Position { epoch, seq: first };
        self.disk.cluster = Some(cluster);
        self.leading = Some(epoch);
    }

    pub fn write(&mut self, ops: u64) {
        self.disk.position.seq = Seq(self.disk.position.seq.0 + ops);
    }
}
