//! Faults that belong together: each scene leads up to one trap, which faults that know nothing of
//! each other hardly ever spring. What happens in a scene is left to chance all the same; it may
//! well come to nothing.

use super::plan::{Cue, Fault, Plan, Planned};
use super::rng::Rng;

struct Stage<'a> {
    plan: &'a mut Plan,
    at_ms: u64,
}

impl Stage<'_> {
    fn now(&mut self, fault: Fault) {
        self.plan.faults.push(Planned { at_ms: self.at_ms, cue: None, fault });
    }

    fn on(&mut self, cue: Cue, fault: Fault) {
        self.plan.faults.push(Planned { at_ms: self.at_ms, cue: Some(cue), fault });
    }

    fn pass(&mut self, ms: u64) {
        self.at_ms += ms;
    }
}

type Scene = fn(&mut Stage<'_>, &mut Rng);

/// All of them; in async only the last ones say anything.
const SCENES: [(&str, Scene); 12] = [
    ("forgotten", forgotten),
    ("pretender", pretender),
    ("taken-twice", taken_twice),
    ("late-word", late_word),
    ("turncoat", turncoat),
    ("crowned-and-gone", crowned_and_gone),
    ("seats", seats),
    ("copies", copies),
    ("back-and-forth", back_and_forth),
    ("old-tails", old_tails),
    ("old-news", old_news),
    ("slow-answers", slow_answers),
];
/// Of them, those of async.
const ASYNC: usize = 2;

/// Adds one of the scenes, beginning at `at_ms`; says when the next thing may happen.
pub fn add(plan: &mut Plan, rng: &mut Rng, at_ms: u64) -> u64 {
    let (_, scene) = match plan.sync {
        true => SCENES[rng.index(SCENES.len())],
        false => SCENES[SCENES.len() - 1 - rng.index(ASYNC)],
    };
    let mut stage = Stage { plan, at_ms };
    scene(&mut stage, rng);
    stage.at_ms
}

/// The plan of run `seed` with nothing in it but the scene of that name, twice; none if there is no
/// such scene.
#[must_use]
pub fn alone(seed: u64, name: &str) -> Option<Plan> {
    let at = SCENES.iter().position(|(known, _)| *known == name)?;
    let (mut plan, mut rng) = (Plan::of(seed), Rng::new(seed));
    plan.faults.clear();
    plan.sync |= at + ASYNC < SCENES.len();
    let (_, scene) = SCENES[at];
    let mut stage = Stage { plan: &mut plan, at_ms: 200 };
    (0..2).for_each(|_| scene(&mut stage, &mut rng));
    Some(plan)
}

/// The leader is heard by one voter after another no more, while records that arrived are still
/// being synced: the acknowledgement leaves when its maker is being asked for a ballot.
fn late_word(stage: &mut Stage, rng: &mut Rng) {
    let nodes = stage.plan.nodes;
    let ms = rng.between(1500, 5000);
    for _ in 0..rng.between(1, 2) {
        let node = Some(rng.index(nodes));
        stage.now(Fault::SlowDisk { node, sync_ms: rng.between(1200, 2500), ms: 6000 });
    }
    for _ in 0..rng.between(1, 3) {
        let to = Some(rng.index(nodes));
        stage.now(Fault::Cut { from: None, to, both: false, ms });
        stage.pass(rng.between(0, 500));
    }
    stage.now(Fault::Cut { from: None, to: None, both: false, ms });
    stage.pass(ms);
}

/// The leader, which learns nothing of the coordinator's, is heard again the moment that a voter
/// has promised its epoch away.
fn turncoat(stage: &mut Stage, rng: &mut Rng) {
    let ms = rng.between(2000, 5000);
    for _ in 0..rng.between(1, 2) {
        let node = Some(rng.index(stage.plan.nodes));
        stage.now(Fault::SlowDisk { node, sync_ms: rng.between(50, 800), ms: 5000 });
    }
    stage.now(Fault::CutCoordinator { node: None, answers_only: rng.chance(500), ms });
    stage.now(Fault::Cut { from: None, to: None, both: rng.chance(300), ms });
    stage.on(Cue::Promised, Fault::Heal);
    stage.pass(ms);
}

/// A leader writes on alone, the next one makes its first record and is gone, and the first leads
/// again: what it sends of its old records is on a quorum, and may yet lose.
fn crowned_and_gone(stage: &mut Stage, rng: &mut Rng) {
    let ms = rng.between(1500, 3000);
    stage.now(Fault::Weather { lost: 0, late: 0, twice: 0, delay_ms: rng.between(1, 300) });
    stage.now(Fault::Split { node: None, others: 0, lonely: rng.chance(300), ms });
    let back_ms = rng.between(4000, 9000);
    stage.on(Cue::Begins, gone(rng, back_ms));
    stage.pass(ms);
    let back_ms = rng.between(3000, 9000);
    let cue = if rng.chance(700) { Cue::Courted } else { Cue::Begins };
    stage.on(cue, gone(rng, back_ms));
    stage.pass(rng.between(4000, 9000));
}

fn gone(rng: &mut Rng, back_ms: u64) -> Fault {
    match rng.chance(600) {
        true => Fault::Crash { node: None, back_ms, power: rng.chance(300) },
        false => Fault::Split { node: None, others: 0, lonely: true, ms: back_ms },
    }
}

/// A voter's seat goes to another copy, and in the middle of that the cluster falls apart.
fn seats(stage: &mut Stage, rng: &mut Rng) {
    let nodes = stage.plan.nodes;
    let node = rng.index(nodes);
    if nodes > stage.plan.voters && rng.chance(500) {
        // Long enough to lose it: four times the ttl.
        let back_ms = stage.plan.ttl_ms * 4 + rng.between(500, 9000);
        stage.now(Fault::Crash { node: Some(node), back_ms, power: false });
    } else {
        stage.now(Fault::Wipe { node });
    }
    for _ in 0..rng.between(1, 2) {
        let cue = if rng.chance(700) { Cue::Changes } else { Cue::Ruled };
        let (others, ms) = (rng.below(1 << nodes), rng.between(1500, 6000));
        stage.on(cue, Fault::Split { node: None, others, lonely: rng.chance(800), ms });
        stage.pass(rng.between(0, 300));
        if rng.chance(500) {
            let back_ms = rng.between(1000, 9000);
            stage.on(cue, Fault::Crash { node: None, back_ms, power: rng.chance(500) });
        }
    }
    stage.pass(rng.between(2000, 18_000));
}

/// The leader is left without a write quorum for so long that it may keep fewer copies; when the
/// others are back, and the copies are to be more again, it is gone.
fn copies(stage: &mut Stage, rng: &mut Rng) {
    let (nodes, ttl_ms) = (stage.plan.nodes, stage.plan.ttl_ms);
    let back_ms = ttl_ms + rng.between(1000, 3000);
    for node in 0..nodes {
        let sync_ms = rng.between(10, 150);
        stage.now(Fault::SlowDisk { node: Some(node), sync_ms, ms: back_ms + 6000 });
    }
    stage.now(Fault::Desert { back_ms });
    stage.pass(ttl_ms);
    match rng.chance(500) {
        true => stage.now(Fault::Degrade),
        false => stage.plan.degrade = true,
    }
    stage.pass(800);
    let cue = if rng.chance(700) { Cue::Ruled } else { Cue::Changes };
    let ms = rng.between(3000, 8000);
    stage.on(
        cue,
        match rng.chance(700) {
            true => Fault::Crash { node: None, back_ms: ms, power: rng.chance(500) },
            false => Fault::Split { node: None, others: 0, lonely: rng.chance(300), ms },
        },
    );
    stage.pass(rng.between(5000, 9000));
}

/// A coordinator that forgot an election, or everything, just when it was over.
fn forgotten(stage: &mut Stage, rng: &mut Rng) {
    let (back_ms, power) = (rng.between(500, 5000), rng.chance(500));
    stage.now(Fault::Crash { node: None, back_ms, power });
    let cue = [Cue::Elected, Cue::Begins, Cue::Serves, Cue::Ruled, Cue::Changes][rng.index(5)];
    let fault = match rng.chance(750) {
        true => Fault::Restore { back_ms: rng.between(100, 6000) },
        false => Fault::Forget,
    };
    stage.on(cue, fault);
    if rng.chance(500) {
        stage.on(cue, Fault::Crash { node: None, back_ms: rng.between(500, 9000), power });
    }
    stage.pass(rng.between(3000, 7000));
    stage.now(Fault::Crash { node: None, back_ms, power });
    stage.pass(rng.between(1000, 4000));
}

/// A leader sleeps through its own deposition, and when it wakes nobody is there any more to tell it:
/// its successor sleeps, and the coordinator has forgotten.
fn pretender(stage: &mut Stage, rng: &mut Rng) {
    let ms = rng.between(1500, stage.plan.ttl_ms.max(2500));
    stage.now(match rng.chance(700) {
        true => Fault::Pause { node: None, ms, freeze: rng.chance(500) },
        false => Fault::Split { node: None, others: 0, lonely: true, ms },
    });
    let cue = [Cue::Serves, Cue::Serves, Cue::Begins, Cue::Ruled][rng.index(4)];
    let ms = rng.between(2000, 7000);
    stage.on(cue, Fault::Pause { node: None, ms, freeze: false });
    let back_ms = rng.between(500, 4000);
    stage.on(cue, if rng.chance(500) { Fault::Forget } else { Fault::Restore { back_ms } });
    stage.pass(rng.between(4000, 9000));
}

/// The coordinator is set back to the moment between an epoch's ballots and its taking.
fn taken_twice(stage: &mut Stage, rng: &mut Rng) {
    let (lost, delay_ms) = (u32::try_from(rng.below(80)).unwrap_or(0), rng.between(10, 150));
    stage.now(Fault::Weather { lost, late: 0, twice: 0, delay_ms });
    let (back_ms, power) = (rng.between(500, 5000), rng.chance(500));
    stage.now(Fault::Crash { node: None, back_ms, power });
    let cue = [Cue::Elected, Cue::Begins, Cue::Serves][rng.index(3)];
    stage.on(cue, Fault::Restore { back_ms: rng.between(5, 400) });
    if rng.chance(500) {
        let ms = rng.between(1000, 4000);
        stage.on(cue, Fault::Pause { node: None, ms, freeze: false });
    }
    stage.pass(rng.between(4000, 9000));
}

/// The coordinator's answers take as long as a call may, and then there are none.
fn slow_answers(stage: &mut Stage, rng: &mut Rng) {
    let ttl_ms = stage.plan.ttl_ms;
    let delay_ms = ttl_ms / 3;
    stage.now(Fault::Weather { lost: 0, late: 0, twice: 0, delay_ms });
    stage.pass(rng.between(500, 4000));
    let (answers_only, ms) = (rng.chance(300), ttl_ms + rng.between(500, 2000));
    stage.now(Fault::CutCoordinator { node: None, answers_only, ms });
    stage.now(Fault::Weather { lost: 0, late: 0, twice: 0, delay_ms: 3 });
    stage.pass(ms);
}

/// The same two or three hold together against the others, again and again, and each time one side
/// writes what the other never hears of.
fn back_and_forth(stage: &mut Stage, rng: &mut Rng) {
    let nodes = stage.plan.nodes;
    for _ in 0..rng.between(2, 4) {
        let others = rng.below(1 << nodes) & rng.below(1 << nodes);
        let ms = rng.between(1500, 5000);
        stage.now(Fault::Split { node: None, others, lonely: rng.chance(700), ms });
        stage.pass(ms + rng.between(0, 1500));
    }
}

/// Each leader in turn is left with one follower as soon as it serves: two logs go on together,
/// further than they will be kept, and whoever led remembers what the other one said.
fn old_tails(stage: &mut Stage, rng: &mut Rng) {
    let (nodes, ttl_ms) = (stage.plan.nodes, stage.plan.ttl_ms);
    let first = (1 << rng.index(nodes), rng.between(1500, ttl_ms + 2500));
    stage.now(Fault::Split { node: None, others: first.0, lonely: true, ms: first.1 });
    for _ in 0..rng.between(2, 5) {
        let (others, ms) = (1 << rng.index(nodes), rng.between(1500, ttl_ms + 2500));
        stage.on(Cue::Serves, Fault::Split { node: None, others, lonely: true, ms });
        stage.pass(ms);
    }
    stage.pass(2000);
}

/// Whoever asked just before an epoch was taken hears no more after that.
fn old_news(stage: &mut Stage, rng: &mut Rng) {
    let proxy = stage.plan.nodes;
    let ms = stage.plan.ttl_ms + rng.between(500, 3000);
    stage.now(Fault::Weather { lost: 0, late: 0, twice: 0, delay_ms: rng.between(20, 400) });
    stage.on(Cue::Elected, Fault::CutCoordinator { node: Some(proxy), answers_only: false, ms });
    let (back_ms, power) = (rng.between(500, 5000), rng.chance(500));
    stage.now(Fault::Crash { node: None, back_ms, power });
    stage.pass(rng.between(2000, 6000));
}
