//! One run: found the cluster, let the plan happen, mend everything, see it serve again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use mainstay_election::values::Term;

use super::checks::Violation;
use super::node::Role;
use super::plan::Plan;
use super::world::{Happening, World};

/// A new cluster serves within this.
const FOUNDED: Duration = Duration::from_secs(60);
/// And after the last fault within this, of the world's time.
const SERVES_AGAIN: Duration = Duration::from_secs(90);
/// How often it is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After the last fault its consequences get so long.
const AFTERMATH: Duration = Duration::from_secs(3);

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// What happened, if it was asked for.
    pub trace: Vec<String>,
    /// How many things happened.
    pub steps: u64,
    /// How many fsyncs were answered.
    pub acks: u64,
    /// How many epochs were led.
    pub epochs: usize,
    /// How many answered ops a failover lost (async).
    pub lost: u64,
    /// Too few voters had their disks left for anybody to lead.
    pub unable: bool,
    /// A coordinator that was set back gave an epoch again, which is a known gap.
    pub given_twice: bool,
    /// How many deltas began at a leader's checkpoint, short of the last op in common.
    pub lowered: u64,
    /// How long it took to serve again once nothing went wrong any more.
    pub healed: Duration,
}

/// Runs a plan.
#[must_use]
pub fn run(plan: &Plan, trace: bool) -> Outcome {
    let mut world = World::new(plan.clone(), trace);
    let ended = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    let healed = ended.as_ref().copied().unwrap_or_default();
    if let Err(panic) = ended {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        world.checks.broken("nothing panics", text.unwrap_or_default());
    }
    Outcome {
        violation: world.checks.violation.take(),
        trace: world.trace.take().unwrap_or_default(),
        steps: world.steps,
        acks: world.checks.acks,
        epochs: world.checks.epochs(),
        lost: world.checks.lost,
        unable: world.checks.unable,
        given_twice: world.checks.given_twice,
        lowered: world.checks.lowered,
        healed,
    }
}

fn live(world: &mut World) -> Duration {
    world.begin();
    if !world.run_until(FOUNDED, World::is_whole) {
        let how = world.describe();
        world.checks.broken("a new cluster serves within a bound", how);
        return Duration::ZERO;
    }
    world.storm_from = world.now;
    let mut last = Duration::ZERO;
    for index in 0..world.plan.faults.len() {
        last = Duration::from_millis(world.plan.faults[index].at_ms);
        world.later(last, Happening::Fault(index));
    }
    world.run_until(last + AFTERMATH, |_| false);
    world.mend();
    let (mended, acks) = (world.now, world.checks.acks);
    let healed =
        world.run_until(SERVES_AGAIN, |world| world.checks.acks > acks && world.is_whole());
    // A cluster whose voters' disks are gone waits for its operator.
    if !healed && !world.can_serve() {
        world.checks.unable = true;
    } else if !healed {
        let how = world.describe();
        world.checks.broken("a leader serves within a bound once faults stop", how);
    }
    for node in 0..world.nodes.len() {
        world.checks.volume(&world.nodes[node]);
    }
    world.now - mended
}

impl World {
    /// Lets things happen for `longest`, or until `done`, or until a rule is broken.
    fn run_until(&mut self, longest: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + longest;
        while self.now < end && self.checks.violation.is_none() {
            let look = (self.now + LOOK_EVERY).min(end);
            while self.step(look) {
                if self.checks.violation.is_some() {
                    return true;
                }
            }
            if done(self) {
                return true;
            }
        }
        self.checks.violation.is_some()
    }

    /// As [`World::is_whole`], whatever the config says.
    fn is_followed(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(leading) = self.nodes[leader].leadership() else { return false };
        let ready = self.nodes[leader].process.as_ref().is_some_and(|process| process.ready);
        let followed = (0..self.nodes.len()).filter(|node| *node != leader).all(|node| {
            let at = &self.nodes[node];
            let Some(process) = &at.process else { return false };
            let Role::Following(following) = &process.role else { return false };
            let streams = following.session.and_then(|id| self.sessions.get(&id));
            let streams = streams.and_then(|session| session.taker.as_ref());
            following.epoch == leading.epoch
                && !at.disk.building
                && streams.is_some_and(|taker| taker.expected.is_some())
        });
        let forwarded =
            (0..self.proxies.len()).all(|proxy| self.forwards_to(proxy) == Some(leading.epoch.0));
        ready && self.gate_open(leader) && followed && forwarded
    }

    /// One leads and serves, the others follow and have caught up, ambassadors forward to it.
    fn is_whole(&self) -> bool {
        self.is_followed() && self.rules_stand()
    }

    /// Enough voters have the disk that they were let in with.
    fn can_serve(&self) -> bool {
        let view = self.coordinator.view();
        let known = view.config.as_ref().map(|config| &config.value);
        let stored = self.nodes.iter().filter_map(|node| node.disk.config.as_deref());
        let newest = known.into_iter().chain(stored).max_by_key(|config| config.mark());
        let Some(config) = newest.filter(|_| self.plan.sync) else { return true };
        let held = config.voters.iter().filter(|member| {
            self.nodes.iter().any(|node| {
                node.name == member.node
                    && node.disk.volume.0 == member.volume.0
                    && !node.disk.building
            })
        });
        // A change of voters may be under way, and both rulings in force.
        if !self.leader().is_none_or(|leader| self.terms_can_be_met(leader)) {
            return false;
        }
        let quorum = usize::try_from(config.write_quorum).unwrap_or(usize::MAX);
        held.count() >= quorum.max(config.ballots_to_depose())
    }

    fn terms_can_be_met(&self, leader: usize) -> bool {
        let terms = self.nodes[leader].process.as_ref().and_then(|it| it.terms.as_ref());
        terms.into_iter().flat_map(|terms| &terms.0).all(|term| match term {
            Term::Local => true,
            Term::Quorum { voters, needed } => {
                let disks = self.nodes.iter().filter(|node| !node.disk.building);
                let held =
                    disks.filter(|node| voters.iter().any(|volume| volume.0 == node.disk.volume.0));
                held.count() >= usize::try_from(*needed).unwrap_or(usize::MAX)
            }
        })
    }

    /// The config is as it is wanted: in sync enough voters, in async everybody eligible.
    fn rules_stand(&self) -> bool {
        let view = self.coordinator.view();
        let Some(config) = view.config.as_ref().map(|config| &config.value) else { return false };
        let held = |member: &mainstay_election::values::Member| {
            self.nodes
                .iter()
                .any(|node| node.name == member.node && node.disk.volume.0 == member.volume.0)
        };
        match self.plan.sync {
            true => config.voters.len() >= self.plan.voters && config.voters.iter().all(held),
            false => config.eligible.len() == self.nodes.len(),
        }
    }

    /// How it stands, for whoever asks why it is not whole.
    fn describe(&self) -> String {
        let mut all: Vec<String> = self
            .nodes
            .iter()
            .map(|node| match &node.process {
                Some(process) => {
                    let role = match &process.role {
                        Role::Idle => "idle".to_owned(),
                        Role::Following(it) => {
                            format!("follows {} in {}", self.nodes[it.leader].name, it.epoch)
                        }
                        Role::Leading(it) => format!(
                            "leads {} (committed {}, service {})",
                            it.epoch,
                            process.tally.committed(),
                            process.ready
                        ),
                    };
                    format!(
                        "{}: {role} at {} applied {}{}, told {:?}",
                        node.name,
                        node.disk.head(),
                        process.applied,
                        if node.disk.building { " building" } else { "" },
                        process.directive
                    )
                }
                None => format!("{}: dead", node.name),
            })
            .collect();
        let view = self.coordinator.view();
        let config = view.config.as_ref().map(|config| &config.value);
        all.push(format!("epoch {:?}", view.epoch.as_ref().map(|it| it.value.epoch)));
        all.push(format!("config {config:?}"));
        all.push(format!("leader {:?}", view.leader.as_ref().map(|it| &it.value.node)));
        all.push(format!("ambassador to {:?}", self.forwards_to(0)));
        all.join("\n  ")
    }
}
