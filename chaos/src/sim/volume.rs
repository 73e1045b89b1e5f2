//! A volume's threads: the log's writer, promises, the applier, the checkpointer.
//!
//! Mirrors `sync/src/log` (groups, seals), `sync/src/volume/mod.rs` (promise), `applier.rs` and
//! `checkpointer.rs`, each reduced to what is durable when.

use std::time::Duration;

use mainstay_election::machine::Event;
use mainstay_sync::op::Record;
use mainstay_sync::position::{Epoch, Seq, VolumeId};

use super::convert;
use super::disk;
use super::node::Promising;
use super::plan::Cue;
use super::world::{Happening, World};

/// The runner's `RETRY_PARTS` for promises.
const RETRY_PARTS: u32 = 20;
/// `checkpoint_interval`, shortened so that logs are released within a run.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(1500);

impl World {
    /// Puts a record that the leader of `by` hands over into the log (`log/mod.rs`, `append_frame`
    /// and `check_next`); false if it does not take it.
    pub fn append(&mut self, node: usize, by: Epoch, record: Record, made_here: bool) -> bool {
        let at = &mut self.nodes[node];
        let Some(process) = &at.process else { return false };
        let head = at.disk.head();
        let (epoch, seq) = (record.head.epoch, record.head.seq);
        let fits = seq == head.seq.next() && epoch >= head.epoch && epoch <= by;
        let over = by <= process.sealed && !mutant!("epochs-counted-by-the-coordinator-alone");
        if over || !fits {
            return false;
        }
        at.disk.append(record);
        self.checks.appended(&self.nodes[node], made_here);
        if !made_here {
            self.cue(Cue::Appended, node);
        }
        self.write_log(node);
        if mutant!("object-written-before-its-record") {
            self.apply_later(node);
        }
        true
    }

    /// The writer takes all that is there as one group (`log/writer.rs`).
    fn write_log(&mut self, node: usize) {
        let (now, life) = (self.now, self.nodes[node].life);
        let slow = self.nodes[node].slow;
        let at = &mut self.nodes[node];
        let head = at.disk.head().seq;
        let Some(process) = &mut at.process else { return };
        if process.syncing.is_some() || at.disk.durable >= head {
            return;
        }
        process.syncing = Some(head);
        let most = if now < slow.1 { slow.0 } else { 4 };
        let pause = self.rng.ms(0, most) + Duration::from_micros(50);
        self.later(pause, Happening::Synced { node, life });
    }

    /// A sync ended: `publish` in `log/writer.rs`, with its hooks.
    pub fn synced(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        let Some(process) = &mut at.process else { return };
        let Some(through) = process.syncing.take() else { return };
        // A tail that was cut off meanwhile is not durable; cutting waits for the writer.
        at.disk.durable = through.min(at.disk.head().seq).max(at.disk.durable);
        let durable = at.disk.durable;
        process.tally.local_durable(durable);
        self.committed_moved(node);
        self.acknowledge(node);
        self.apply_later(node);
        self.report_soon(node);
        self.write_log(node);
        self.go_on_promising(node);
    }

    /// `VolumeVows::promise`: the leadership here is wound up first, then the log refuses, then
    /// it is drained, then the vow is stored, then the position is read.
    pub fn promise(&mut self, node: usize, through: Epoch) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.promises.iter().all(|promise| promise.through != through) {
            let (disk, local) = (&self.nodes[node].disk, self.nodes[node].local(self.now));
            let asked_at = disk.durable();
            self.checks.promises(&self.nodes[node], through, local, self.settings.suspect_after);
            let Some(process) = &mut self.nodes[node].process else { return };
            process.promises.push(Promising { through, asked_at, storing: false });
        }
        self.go_on_promising(node);
    }

    /// `Volume::accept_leader`: durable, before anything is acknowledged in that epoch.
    pub fn accept_leader(&mut self, node: usize, epoch: Epoch, leader: VolumeId) -> bool {
        let at = &mut self.nodes[node];
        let Some(process) = &mut at.process else { return false };
        let over = match at.disk.leader {
            Some((of, by)) if of > epoch || of == epoch && by != leader => of,
            _ => at.disk.promised,
        };
        let over = if mutant!("promises-do-not-bind") { Epoch(0) } else { over };
        if over >= epoch && !mutant!("epoch-led-twice") {
            return false;
        }
        let before = Epoch(epoch.0 - 1);
        if !mutant!("promises-do-not-bind") {
            process.sealed = process.sealed.max(before);
        }
        if !mutant!("promise-not-persisted") {
            at.disk.promised = at.disk.promised.max(before);
        }
        at.disk.leader = Some((epoch, leader));
        true
    }

    /// `Sink::decline`: as a promise, for nobody's ballot.
    pub fn decline(&mut self, node: usize, epoch: Epoch) {
        let at = &mut self.nodes[node];
        if let Some(process) = &mut at.process {
            process.sealed = process.sealed.max(epoch);
            at.disk.promised = at.disk.promised.max(epoch);
            self.report(node);
        }
    }

    /// Whatever a promise waited for may have come.
    pub fn go_on_promising(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        let life = at.life;
        let Some(process) = &mut at.process else { return };
        if process.promises.is_empty() || process.leading.is_some() {
            return;
        }
        if at.disk.building {
            // `VolumeError::Building`; the runner tries again.
            let pause = self.settings.ttl / RETRY_PARTS;
            for promise in std::mem::take(&mut process.promises) {
                let through = promise.through;
                self.later(pause, Happening::Promise { node, life, through });
            }
            return;
        }
        let drained = at.disk.durable == at.disk.head().seq && process.syncing.is_none();
        let mut storing = Vec::new();
        for promise in &mut process.promises {
            if !mutant!("promises-do-not-bind") {
                process.sealed = process.sealed.max(promise.through);
            }
            if drained && !promise.storing {
                promise.storing = true;
                storing.push(promise.through);
            }
        }
        for through in storing {
            let pause = self.rng.ms(0, 6) + Duration::from_micros(100);
            self.later(pause, Happening::Vowed { node, life, through });
        }
    }

    /// The vow is durable: only now is the position read.
    pub fn vowed(&mut self, node: usize, through: Epoch) {
        let at = &mut self.nodes[node];
        let Some(process) = &mut at.process else { return };
        let asked = process.promises.iter().find(|promise| promise.through == through);
        let asked_at = asked.map(|promise| promise.asked_at);
        process.promises.retain(|promise| promise.through != through);
        if !mutant!("promise-not-persisted") {
            at.disk.promised = at.disk.promised.max(through);
        }
        let disk = &at.disk;
        let mut position = convert::position(disk.durable());
        if let Some(asked_at) = asked_at
            && mutant!("position-read-before-the-promise")
        {
            position = convert::position(asked_at);
        }
        if mutant!("promised-epoch-as-position") {
            position.epoch = convert::epoch(through);
        }
        let event = Event::Promised {
            volume: convert::volume(disk.volume),
            through: convert::epoch(through),
            position,
            lineage: convert::lineage(disk.lineage()),
        };
        self.tell(node, || format!("promised away epoch {through} at {position}"));
        self.cue(Cue::Promised, node);
        self.report_now(node);
        self.machine(node, event);
    }

    /// `State::applicable` of the log: what is durable here and within the limit, which is what is
    /// known to be committed (sync).
    pub fn may_apply(&self, node: usize) -> Seq {
        let at = &self.nodes[node];
        let Some(process) = &at.process else { return Seq(0) };
        if mutant!("object-written-before-its-record") {
            return at.disk.head().seq;
        }
        process
            .limit
            .filter(|_| !mutant!("uncommitted-applied"))
            .map_or(at.disk.durable, |limit| limit.min(at.disk.durable))
    }

    /// `Log::allow_applier`: everything up to there is committed.
    pub fn allow_applier(&mut self, node: usize, through: Seq) {
        if let Some(process) = &mut self.nodes[node].process
            && let Some(limit) = &mut process.limit
        {
            *limit = through.max(*limit);
        }
        self.apply_later(node);
    }

    /// `Volume::apply_committed_only`.
    pub fn apply_committed_only(&mut self, node: usize, only: bool) {
        let at = &mut self.nodes[node];
        if let Some(process) = &mut at.process
            && process.committed_only != only
        {
            process.committed_only = only;
            process.limit = only.then_some(at.disk.durable);
            self.apply_later(node);
        }
    }

    /// The applier has something to do, soon.
    pub fn apply_later(&mut self, node: usize) {
        let may = self.may_apply(node);
        let life = self.nodes[node].life;
        let building = self.nodes[node].disk.building;
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.applied < may && !building && !process.applying {
            process.applying = true;
            let pause = Duration::from_micros(self.rng.between(20, 3000));
            self.later(pause, Happening::Apply { node, life });
        }
    }

    /// The applier takes some records.
    pub fn apply(&mut self, node: usize) {
        let may = self.may_apply(node);
        let Some(process) = &mut self.nodes[node].process else { return };
        process.applying = false;
        let from = process.applied;
        let through = Seq((from.0 + self.rng.between(1, 12)).min(may.0));
        self.apply_through(node, through);
        self.apply_later(node);
        self.promoted(node);
    }

    /// Brings the objects to `through`, which is in the log.
    pub fn apply_through(&mut self, node: usize, through: Seq) {
        let Some(process) = &self.nodes[node].process else { return };
        let mut next = process.applied.next();
        while next <= through {
            let disk = &mut self.nodes[node].disk;
            let Some(tag) = disk.record(next).map(disk::tag) else { break };
            if let Some(stray) = disk.write_object(next, tag) {
                self.checks.stray(&self.nodes[node], next, stray, tag);
            }
            next = next.next();
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        process.applied = process.applied.max(through);
        process.touched = process.touched.max(process.applied);
        self.report_soon(node);
    }

    /// Moves the checkpoint (`volume/checkpointer.rs`), and frees log that nobody reads.
    pub fn checkpoint(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let held = self.sessions.values().filter(|session| session.leader == node);
        let held = held
            .filter_map(|session| session.server.as_ref())
            .filter(|server| server.life == life)
            .map(|server| match server.snapshot {
                Some((from, _)) => from,
                None => server.sent,
            })
            .min();
        let free = self.rng.chance(400);
        let at = &mut self.nodes[node];
        if let Some(process) = &at.process
            && !at.disk.building
        {
            at.disk.checkpoint = at.disk.checkpoint.max(process.applied.min(at.disk.durable));
            if free {
                let free = held.map_or(at.disk.checkpoint, |held| held.min(at.disk.checkpoint));
                at.disk.released = at.disk.released.max(free);
            }
        }
        self.later(CHECKPOINT_EVERY, Happening::Checkpoint { node, life });
    }
}
