//! Carries out what a plan says, and mends it all when the storm is over.

use std::time::Duration;

use mainstay_election::values::{Config, majority};
use mainstay_sync::position::VolumeId;

use super::disk::Disk;
use super::plan::{Cue, Fault};
use super::world::{Happening, Weather, World};

/// After its cue a fault comes within this, mostly at once.
const AFTER_CUE_MS: u64 = 60;

/// The coordinator forgets things only where that can be survived.
impl World {
    /// The time of the plan's fault has come: it happens, or lies in wait.
    pub fn fault(&mut self, index: usize) {
        let Some(planned) = self.planned(index) else { return };
        match planned.cue {
            Some(cue) if !self.calm => self.waiting.push((cue, index)),
            _ => self.befall(index, None),
        }
    }

    /// Something that a fault may wait for happens to `node`.
    pub fn cue(&mut self, cue: Cue, node: usize) {
        let Some(at) = self.waiting.iter().position(|(waits_for, _)| *waits_for == cue) else {
            return;
        };
        let (_, index) = self.waiting.remove(at);
        let most = if self.rng.chance(600) { 3 } else { AFTER_CUE_MS };
        let pause = Duration::from_micros(self.rng.below(most * 1000));
        self.later(pause, Happening::Ambush { index, node });
    }

    /// The plan's fault happens; to `subject`, if it names nobody.
    pub fn befall(&mut self, index: usize, subject: Option<usize>) {
        let Some(fault) = self.planned(index).map(|planned| planned.fault) else { return };
        if self.calm {
            return;
        }
        self.say(&"FAULT", || format!("{fault:?}"));
        let whom = |world: &World, node: Option<usize>| node.or(subject).or(world.leader());
        let ms = Duration::from_millis;
        match fault {
            Fault::Crash { node, back_ms, power } => {
                if let Some(node) = whom(self, node) {
                    self.crash_for(node, power, ms(back_ms));
                }
            }
            Fault::Blackout { back_ms } => {
                for node in 0..self.nodes.len() {
                    let back = self.rng.ms(back_ms / 2, back_ms);
                    self.crash_for(node, true, back);
                }
            }
            Fault::Desert { back_ms } => {
                let Some(leader) = whom(self, None) else { return };
                for node in (0..self.nodes.len()).filter(|node| *node != leader) {
                    self.crash_for(node, false, ms(back_ms));
                }
            }
            Fault::Pause { node, ms: length, freeze } => {
                let Some(node) = whom(self, node) else { return };
                let until = self.now + ms(length);
                let now = self.now;
                let at = &mut self.nodes[node];
                if at.process.is_some() && at.paused_until <= now {
                    at.paused_until = until;
                    if freeze {
                        at.frozen = true;
                        at.clock.stop(now, until);
                    }
                }
            }
            Fault::Cut { from, both, ms: length, .. } => {
                let Some(from) = whom(self, from) else { return };
                let until = self.now + ms(length);
                for to in 0..self.nodes.len() {
                    if to != from && to_matches(&fault, to) {
                        self.cuts[from][to] = until;
                        if both {
                            self.cuts[to][from] = until;
                        }
                    }
                }
            }
            Fault::Split { node, others, lonely, ms: length } => {
                let Some(first) = whom(self, node) else { return };
                let until = self.now + ms(length);
                let side = |node: usize| node == first || others >> node & 1 == 1;
                for one in 0..self.nodes.len() {
                    for other in 0..self.nodes.len() {
                        if side(one) != side(other) {
                            self.cuts[one][other] = until;
                        }
                    }
                    if side(one) && lonely {
                        self.coordinator_cuts[one] = [until; 2];
                    }
                }
            }
            Fault::Heal => {
                self.cuts.iter_mut().flatten().for_each(|cut| *cut = (*cut).min(self.now));
                // What was being sent again and again gets through.
                for id in self.sessions.keys().copied().collect::<Vec<_>>() {
                    for up in [true, false] {
                        let pause = self.rng.ms(0, 20);
                        self.later(pause, Happening::Deliver { session: id, up });
                    }
                }
            }
            Fault::CutCoordinator { node, answers_only, ms: length } => {
                let Some(who) = whom(self, node) else { return };
                let until = self.now + ms(length);
                self.coordinator_cuts[who][1] = until;
                if !answers_only {
                    self.coordinator_cuts[who][0] = until;
                }
            }
            Fault::Weather { lost, late, twice, delay_ms } => {
                self.weather = Weather { lost, late, twice, delay_ms };
            }
            Fault::SlowDisk { node, sync_ms, ms: length } => {
                if let Some(node) = whom(self, node) {
                    self.nodes[node].slow = (sync_ms, self.now + ms(length));
                }
            }
            Fault::Wipe { node } => self.wipe(node),
            Fault::Outage { ms: length } => {
                self.coordinator.down_until = self.now + ms(length);
                // Whoever is elected among its members gives every lease its time again.
                self.coordinator.extend_leases(self.now + ms(length));
            }
            Fault::Election => self.coordinator.extend_leases(self.now),
            Fault::BreakWatches => self.break_watches(),
            Fault::LagWatches { ms } => self.watch_lag_ms = ms.max(1),
            Fault::Restore { back_ms } => self.restore(ms(back_ms)),
            Fault::Forget => self.forget_all(),
            Fault::Switchover { to } => self.ask_switchover(to),
            Fault::Degrade => self.ask_degrade(),
            Fault::Resign => {
                if let Some(node) = whom(self, None)
                    && self.nodes[node].paused_until <= self.now
                {
                    self.begin_resigning(node);
                }
            }
            Fault::WallJump { node, ms } => self.nodes[node].wall_ms += ms,
        }
    }

    fn crash_for(&mut self, node: usize, power: bool, back: Duration) {
        if self.nodes[node].process.is_some() {
            self.crash(node, power);
            let life = self.nodes[node].life;
            self.later(back, Happening::Boot { node, life });
        }
    }

    /// Another disk under the old name, if the data can do without this one.
    fn wipe(&mut self, node: usize) {
        if !self.may_lose(node) {
            return self.tell(node, || "keeps its disk: it may be the last with something".into());
        }
        self.crash(node, true);
        let mut volume = VolumeId(self.rng.id());
        if mutant!("new-disk-under-the-old-volume") {
            volume = self.nodes[node].disk.volume;
        }
        self.nodes[node].disk = Disk::blank(volume);
        self.tell(node, || format!("has an empty disk now, volume {volume}"));
        let life = self.nodes[node].life;
        let back = self.rng.ms(20, 3000);
        self.later(back, Happening::Boot { node, life });
    }

    /// Whether a disk may go: whoever else counts has the disk that it was let in with, so that a
    /// write quorum keeps at least one copy. In async what a disk had may be lost with it, but not
    /// the last of all.
    fn may_lose(&self, node: usize) -> bool {
        let view = self.coordinator.view();
        let Some(config) = view.config.as_ref().map(|config| &config.value) else { return false };
        let whole = |member: &&mainstay_election::values::Member| {
            let at = self.nodes.iter().position(|node| node.name == member.node);
            at.is_some_and(|at| {
                at != node
                    && self.nodes[at].disk.volume.0 == member.volume.0
                    && !self.nodes[at].disk.building
            })
        };
        let members = config.candidates();
        let left = members.iter().filter(whole).count();
        match self.plan.sync {
            true => {
                let quorum = usize::try_from(config.write_quorum).unwrap_or(usize::MAX);
                left + 1 >= members.len() && quorum > 1 && left >= quorum
            }
            false => left >= 1,
        }
    }

    fn restore(&mut self, back: Duration) {
        if self.now.saturating_sub(back) < self.storm_from {
            return;
        }
        if !self.majority_elects() {
            return;
        }
        self.coordinator.restore(self.now, self.now.saturating_sub(back));
        self.break_watches();
    }

    /// Where fewer than a majority elect, an epoch may be known to nobody who elects the next.
    fn majority_elects(&self) -> bool {
        let view = self.coordinator.view();
        // Async has nothing but the lease, which is forgotten as well.
        if !self.plan.sync {
            return false;
        }
        let majority = |config: &Config| config.ballots_needed() >= majority(config.voters.len());
        view.config.as_ref().is_some_and(|config| majority(&config.value))
    }

    /// The coordinator begins with nothing. A blank node that is alone with it would found another
    /// cluster, and nobody could tell; so never while one is blank, and none is made blank then.
    fn forget_all(&mut self) {
        let blank = |node: &super::node::Node| node.disk.config.is_none();
        if !self.majority_elects() || self.nodes.iter().any(blank) {
            return;
        }
        self.coordinator.forget(self.now);
        self.break_watches();
    }

    /// No more faults: everything is mended, everybody is there.
    pub fn mend(&mut self) {
        self.calm = true;
        self.later(Duration::from_secs(15), Happening::Operator);
        self.waiting.clear();
        self.say(&"CALM", || "nothing goes wrong from here on".to_owned());
        let now = self.now;
        self.weather = Weather { lost: 0, late: 0, twice: 0, delay_ms: 3 };
        self.watch_lag_ms = 2;
        self.coordinator.down_until = self.coordinator.down_until.min(now);
        self.cuts.iter_mut().flatten().for_each(|cut| *cut = now);
        self.coordinator_cuts.iter_mut().flatten().for_each(|cut| *cut = now);
        for node in 0..self.nodes.len() {
            self.nodes[node].slow = (0, now);
            // A pause ends by itself; it is short against the time that calm is given.
            if self.nodes[node].process.is_none() {
                let life = self.nodes[node].life;
                self.later(Duration::from_millis(10), Happening::Boot { node, life });
            }
        }
    }
}

fn to_matches(fault: &Fault, node: usize) -> bool {
    match fault {
        Fault::Cut { to, .. } => to.is_none_or(|to| to == node),
        _ => false,
    }
}
