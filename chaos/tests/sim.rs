//! The simulator in CI: a few thousand seeds, the plans that once found something, and that a seed
//! replays exactly. `SEEDS=n` and `FIRST_SEED=m` run others.

use std::path::Path;

use mainstay_chaos::sim::command::{self, Total};
use mainstay_chaos::sim::plan::Plan;
use mainstay_chaos::sim::run;

const SEEDS: u64 = 2000;

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => otherwise,
    }
}

#[test]
fn no_seed_breaks_a_rule() {
    let (first, seeds) = (number("FIRST_SEED", 0), number("SEEDS", SEEDS));
    let mut total = Total::default();
    for seed in first..first + seeds {
        let outcome = run(&Plan::of(seed), false);
        total.add(seed, &outcome);
        if let Some(violation) = outcome.violation {
            panic!(
                "seed {seed} breaks: {}\n  {}\nreplay: cargo run -p mainstay-chaos -- sim \
                 --first-seed {seed} --seeds 1 --trace",
                violation.rule, violation.what
            );
        }
    }
    // Worlds in which nothing happens would pass as well.
    let per_seed = |what: u64| what / seeds;
    assert!(per_seed(total.epochs as u64) >= 2, "only {} epochs were led", total.epochs);
    assert!(per_seed(total.acks) >= 20, "only {} fsyncs were answered", total.acks);
    assert!(total.unable < seeds / 4, "{} worlds ran out of disks", total.unable);
    // A known gap (`Checks::broken`), which must not grow.
    assert!(total.given_twice <= seeds / 200, "{} epochs were given twice", total.given_twice);
    assert!(total.lowered > 0, "no delta began short of the last op in common");
}

#[test]
fn plans_that_once_found_something_find_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).expect("the kept plans' folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let plan = command::load(&path).expect("a kept plan");
        let violation = run(&plan, false).violation;
        assert!(violation.is_none(), "{}: {violation:?}", path.display());
        played += 1;
    }
    assert!(played >= 4, "only {played} kept plans were found");
}

#[test]
fn a_seed_replays_exactly() {
    let plan = Plan::of(7);
    let (once, again) = (run(&plan, true), run(&plan, true));
    assert!(once.trace.len() > 50, "a trace tells of what happened");
    assert_eq!(once.trace, again.trace);
    assert_eq!(once.steps, again.steps);
}
