//! Beginnings: of a world, of a process.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_election::machine::{Event, Identity, Machine, Moment, OnQuorumLoss, Settings};
use mainstay_election::values::{ClusterId, Durability, Nonce, Tags};
use mainstay_sync::commit::{Rule, Tally};
use mainstay_sync::position::VolumeId;

use super::bound::WRITE_BYTES;
use super::clock::Clock;
use super::disk::Disk;
use super::election;
use super::look::Looker;
use super::node::{Node, Process, Role};
use super::plan::Plan;
use super::proxy::{PROXIES, Proxy};
use super::terms::Standing;
use super::world::{Happening, World};

/// The times that machines go by, as `src/replica/run.rs` makes them of a config.
#[must_use]
pub fn settings(plan: &Plan) -> Settings {
    let mut settings = Settings::for_ttl(plan.ttl());
    settings.durability = if plan.sync { Durability::Sync } else { Durability::Async };
    settings.voters = plan.voters;
    settings.write_quorum = plan.write_quorum;
    settings.max_lag.bytes = plan.bound_ops.map(|ops| ops * WRITE_BYTES);
    if plan.degrade {
        settings.on_quorum_loss = OnQuorumLoss::Degrade;
    }
    settings
}

impl World {
    /// Every machine is switched on.
    pub fn begin(&mut self) {
        for number in 0..self.plan.nodes {
            let shown = self.rng.ms(1, 1_000_000);
            let gain = self.plan.drift_ppm.get(number).copied().unwrap_or(0);
            let volume = VolumeId(self.rng.id());
            self.nodes.push(Node {
                name: election::name(number),
                disk: Disk::blank(volume),
                clock: Clock::new(shown, gain),
                wall_ms: 0,
                life: 0,
                process: None,
                frozen: false,
                paused_until: Duration::ZERO,
                slow: (0, Duration::ZERO),
            });
        }
        for _ in 0..PROXIES {
            let shown = self.rng.ms(1, 1_000_000);
            self.proxies.push(Proxy::new(Clock::new(shown, 0)));
        }
        for node in 0..self.plan.nodes {
            let pause = self.rng.ms(0, 300);
            let life = self.nodes[node].life;
            self.later(pause, Happening::Boot { node, life });
        }
        for proxy in 0..PROXIES {
            self.begin_read(self.plan.nodes + proxy);
            self.later(Duration::from_millis(50), Happening::Client { proxy });
        }
    }

    /// A process starts, with nothing but the disk (`Volume::open`, `Runner::start`).
    pub fn boot(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        let (incarnation, cluster) = (Nonce(self.rng.id()), ClusterId(self.rng.id()));
        let settings = self.settings.clone();
        let at = &mut self.nodes[node];
        at.life += 1;
        at.frozen = false;
        let life = at.life;
        let identity = Identity {
            node: at.name.clone(),
            peer: format!("10.0.0.{}:7400", node + 1),
            api: None,
            version: String::new(),
            tags: Tags::default(),
            incarnation,
            cluster_if_founded: cluster,
        };
        let disk = &at.disk;
        at.process = Some(Process {
            machine: Machine::new(identity, settings),
            incarnation,
            looker: Looker::default(),
            calls: BTreeSet::new(),
            tick_at: None,
            directive: None,
            gate: Moment::NEVER,
            reporting: false,
            sealed: disk.promised,
            syncing: None,
            promises: Vec::new(),
            applied: disk.checkpoint,
            touched: disk.head().seq,
            applying: false,
            committed_only: true,
            limit: Some(disk.checkpoint),
            tally: {
                let mut tally = Tally::new(Rule::Local);
                tally.local_durable(disk.durable);
                tally
            },
            told: None,
            role: Role::Idle,
            leading: None,
            ready: false,
            wanted: None,
            terms: None,
            standing: Standing::default(),
            heard: None,
            hears_since: Moment::NEVER,
        });
        let (head, promised) = (at.disk.head(), at.disk.promised);
        self.tell(node, || format!("starts as process {life} at {head}, promised {promised}"));
        self.checks.volume(&self.nodes[node]);
        self.machine(node, Event::Tick);
        self.report_now(node);
        self.begin_read(node);
        self.apply_later(node);
        self.later(Duration::from_secs(1), Happening::Checkpoint { node, life });
    }

    /// The process dies, and with it its service, its mount and its gate.
    pub fn crash(&mut self, node: usize, power: bool) {
        if self.nodes[node].process.take().is_none() {
            return;
        }
        self.nodes[node].life += 1;
        self.nodes[node].paused_until = Duration::ZERO;
        self.nodes[node].clock.go(self.now);
        let mut rng = self.rng.clone();
        self.nodes[node].disk.crash(&mut rng, power);
        self.rng = rng;
        let head = self.nodes[node].disk.head();
        self.tell(node, || {
            format!(
                "dies{}, leaving its log at {head}",
                if power { " with its machine" } else { "" }
            )
        });
        self.drop_ends(node);
    }
}
