//! One mutation under test: built by `chaos mutants`, run once for each with `MAINSTAY_MUTANT` set.
//!
//! `mutant FIRST SEEDS`; exit code 1 and the seed as soon as a rule is broken.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]

use std::process::ExitCode;

use mainstay_chaos::sim::{plan::Plan, run};

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
    for seed in first..first + seeds {
        if let Some(violation) = run(&Plan::of(seed), false).violation {
            println!("seed {seed}: {}", violation.rule);
            return ExitCode::from(1);
        }
    }
    ExitCode::SUCCESS
}
