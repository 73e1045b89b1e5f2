//! Deltas, at both ends: what a follower lacks is collected beside its volume, and it goes over to
//! that in one step.
//!
//! Mirrors `sync/src/volume/catchup.rs`, `switch.rs` and `changes.rs`. An op's place is never
//! written again here, so its birth is its seq, and what was born after the last record in common
//! is everything in a later place, on either side.

use mainstay_sync::position::{Lineage, Position, Seq};

use super::session::Staged;
use super::world::{Happening, World};

impl World {
    /// `Volume::needs_whole`, which settles the volume first: all of the log is in the objects. A
    /// log that goes on past the last record in common has lost, and is rolled back as a whole.
    pub fn settle(&mut self, id: u64, node: usize, since: Seq) -> bool {
        let disk = &self.nodes[node].disk;
        let head = disk.head().seq;
        let busy = disk.durable < head || disk.building;
        let Some(process) = &mut self.nodes[node].process else { return false };
        if busy || process.syncing.is_some() || process.leading.is_some() {
            self.end_taker(id, "its log is being written");
            return false;
        }
        if head > since {
            process.limit = None;
            self.checks.set_aside(&self.nodes[node], since);
        } else {
            self.allow_applier(node, since);
        }
        self.apply_through(node, head);
        let disk = &mut self.nodes[node].disk;
        disk.checkpoint = head;
        if head > since {
            disk.rolls_back = head;
        }
        // Only what is there now is rolled back; what comes later waits to be committed.
        if let Some(process) = &mut self.nodes[node].process
            && !mutant!("applies-on-after-a-rollback")
        {
            process.limit = process.committed_only.then_some(head);
        }
        true
    }

    /// `catchup::begin`: what the leader offers begins where the two histories part.
    pub fn delta_begins(&mut self, id: u64, node: usize, since: Seq, to: Position, of: Lineage) {
        let disk = &self.nodes[node].disk;
        let from = disk.head();
        let base = disk.lineage().common_ancestor(from.seq, &of, to.seq).seq;
        if base != since.min(to.seq) {
            return self.end_taker(id, "the delta does not fit");
        }
        if base < since {
            self.checks.lowered += 1;
        }
        if let Some(taker) = self.sessions.get_mut(&id).and_then(|it| it.taker.as_mut()) {
            let (places, records) = (Vec::new(), Vec::new());
            let (through, switching) = (None, false);
            let lineage = of;
            taker.staged =
                Some(Staged { base, from, to, lineage, places, records, through, switching });
        }
    }

    /// Whether all is there that the delta's end needs; then the volume goes over soon.
    pub fn delta_grows(&mut self, id: u64, node: usize) {
        let slow = self.nodes[node].slow;
        let most = if self.now < slow.1 { slow.0 } else { 20 };
        let Some(taker) = self.sessions.get_mut(&id).and_then(|it| it.taker.as_mut()) else {
            return;
        };
        let Some(staged) = &mut taker.staged else { return };
        let Some(through) = staged.through.filter(|_| taker.expected.is_some()) else { return };
        let last = staged.records.last().map_or(staged.to.seq, |last| last.head.seq);
        if last >= through.seq && !std::mem::replace(&mut staged.switching, true) {
            let pause = self.rng.ms(0, most);
            self.later(pause, Happening::Switch { session: id });
        }
    }

    /// `Catchup::finish`: the volume goes over, unless it moved or promised meanwhile.
    pub fn switch(&mut self, id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (node, life) = session.follower;
        let Some(taker) = &mut session.taker else { return };
        let (Some(leading), Some(staged)) = (&taker.leading, taker.staged.take()) else { return };
        let epoch = leading.epoch;
        let at = &mut self.nodes[node];
        let Some(process) = at.process.as_mut().filter(|_| at.life == life) else { return };
        let over = process.sealed >= epoch || at.disk.promised >= epoch;
        let moved = at.disk.head() != staged.from || at.disk.building || process.leading.is_some();
        if moved || over && !mutant!("switches-past-a-promise") {
            return self.end_taker(id, "the volume is not as it was when the delta began");
        }
        let through = staged.through.unwrap_or(staged.to);
        let (taken, rest) = staged.split(through.seq);
        at.disk.switch(&staged, taken);
        // As any log that is opened: from the checkpoint, and only as far as it is committed.
        process.applied = staged.to.seq;
        process.touched = through.seq;
        process.limit = process.committed_only.then_some(staged.to.seq);
        self.tell(node, || format!("its volume is at {through}, by a delta"));
        self.checks.volume(&self.nodes[node]);
        self.checks.content(&self.nodes[node]);
        self.report(node);
        for record in rest {
            if !self.append(node, epoch, record, false) {
                return self.end_taker(id, "the log does not take it");
            }
        }
        self.acknowledge(node);
    }

    /// The leader's side: `Changes::begin` makes a checkpoint first.
    pub fn checkpoint_for(&mut self, leader: usize) -> Seq {
        let at = &mut self.nodes[leader];
        let applied = at.process.as_ref().map_or(Seq(0), |process| process.applied);
        at.disk.checkpoint = at.disk.checkpoint.max(applied.min(at.disk.durable));
        at.disk.checkpoint
    }
}
