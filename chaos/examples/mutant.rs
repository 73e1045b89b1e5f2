//! One mutation under test: built by `chaos mutants`, run once for each with `MAINSTAY_MUTANT` set.
//!
//! `mutant FIRST SEEDS`: the kept plans, then these seeds; exit code 1 and which of them as soon as a
//! rule is broken.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]

use std::process::ExitCode;

use mainstay_chaos::sim::{command::load, plan::Plan, run};

fn main() -> ExitCode {
    if !cfg!(mainstay_mutants) {
        eprintln!("error: built without mutations; run `cargo run -p mainstay-chaos -- mutants`");
        return ExitCode::from(2);
    }
    let mut numbers = std::env::args().skip(1).map_while(|text| text.parse::<u64>().ok());
    let (Some(first), Some(seeds)) = (numbers.next(), numbers.next()) else {
        eprintln!("usage: mutant FIRST SEEDS");
        return ExitCode::from(2);
    };
    std::panic::set_hook(Box::new(|_| {}));
    for entry in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds")).into_iter().flatten()
    {
        let Ok(path) = entry.map(|entry| entry.path()) else { continue };
        let Ok(plan) = load(&path) else { continue };
        if let Some(violation) = run(&plan, false).violation {
            println!("kept plan {}: {}", plan.seed, violation.rule);
            return ExitCode::from(1);
        }
    }
    for seed in first..first + seeds {
        if let Some(violation) = run(&Plan::of(seed), false).violation {
            println!("seed {seed}: {}", violation.rule);
            return ExitCode::from(1);
        }
    }
    ExitCode::SUCCESS
}
