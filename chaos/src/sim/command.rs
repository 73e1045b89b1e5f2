//! `chaos sim`: many seeds, or one with its trace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use super::plan::Plan;
use super::scenes::alone;
use super::shrink::shrink;
use super::{Outcome, run};

/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Only this scene, twice in each world
    #[arg(long)]
    scene: Option<String>,
    /// Show everything that happens, seed by seed
    #[arg(long)]
    trace: bool,
    /// Go on after a violation and count them
    #[arg(long)]
    keep_going: bool,
    /// Do not make a failing seed's plan smaller
    #[arg(long)]
    no_shrink: bool,
    /// Keep a failing seed's shrunk plan in this folder
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Replay a kept plan instead
    #[arg(long)]
    replay: Option<PathBuf>,
}

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Total {
    /// Runs.
    pub runs: u64,
    /// Seeds that broke a rule.
    pub failed: Vec<u64>,
    /// By rule, who broke it.
    pub rules: BTreeMap<&'static str, Vec<u64>>,
    /// Things that happened.
    pub steps: u64,
    /// Answered fsyncs.
    pub acks: u64,
    /// Epochs led.
    pub epochs: usize,
    /// Answered ops lost in failovers (async).
    pub lost: u64,
    /// Runs that ended without enough voters' disks.
    pub unable: u64,
    /// Runs in which an epoch was given twice.
    pub given_twice: u64,
    /// Deltas that began at a leader's checkpoint, short of the last op in common.
    pub lowered: u64,
    /// The longest time that it took to serve again.
    pub healed_max: Duration,
}

impl Total {
    /// Adds a run.
    pub fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.runs += 1;
        self.steps += outcome.steps;
        self.acks += outcome.acks;
        self.epochs += outcome.epochs;
        self.lost += outcome.lost;
        self.unable += u64::from(outcome.unable);
        self.lowered += outcome.lowered;
        self.given_twice += u64::from(outcome.given_twice);
        if !outcome.unable && !outcome.given_twice {
            self.healed_max = self.healed_max.max(outcome.healed);
        }
        if let Some(violation) = &outcome.violation {
            self.failed.push(seed);
            self.rules.entry(violation.rule).or_default().push(seed);
        }
    }
}

/// Runs what the options say; true if no rule was broken.
///
/// # Errors
/// A plan cannot be read or kept.
#[allow(clippy::print_stdout, reason = "a command's output")]
pub fn command(options: &Options) -> Result<bool> {
    // A panic in a machine is a finding; its message is in the violation.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(path) = &options.replay {
        let plan = load(path)?;
        return Ok(play(&plan, options));
    }
    let begun = Instant::now();
    let mut total = Total::default();
    for seed in options.first_seed..options.first_seed + options.seeds {
        let plan = match &options.scene {
            Some(name) => alone(seed, name).with_context(|| format!("there is no scene {name}"))?,
            None => Plan::of(seed),
        };
        let outcome = run(&plan, options.trace);
        total.add(seed, &outcome);
        if options.trace {
            println!("{plan}{}", outcome.trace.join("\n"));
        }
        let Some(violation) = &outcome.violation else { continue };
        println!("seed {seed} breaks: {}\n  {}", violation.rule, violation.what);
        if options.keep_going {
            continue;
        }
        if !options.no_shrink {
            let shrunk = shrink(&plan, violation);
            println!("shrunk to {shrunk}");
            if let Some(folder) = &options.keep {
                println!("kept in {}", keep(folder, &shrunk)?.display());
            }
        }
        println!(
            "replay: cargo run -p mainstay-chaos -- sim --first-seed {seed} --seeds 1 --trace"
        );
        break;
    }
    if options.keep_going {
        for (rule, seeds) in &total.rules {
            println!("{} seeds break: {rule} ({:?})", seeds.len(), &seeds[..seeds.len().min(12)]);
        }
    }
    println!(
        "{} seeds in {:.1} s: {} failed{}, {} epochs led, {} fsyncs answered ({} of them lost in \
         async), {} steps, {} left without enough voters' disks, {} with \
         an epoch that was given twice, {} deltas \
         began short of the last op in common, the others served again within {:.1} s",
        total.runs,
        begun.elapsed().as_secs_f64(),
        total.failed.len(),
        if total.failed.is_empty() { String::new() } else { format!(" ({:?})", total.failed) },
        total.epochs,
        total.acks,
        total.lost,
        total.steps,
        total.unable,
        total.given_twice,
        total.lowered,
        total.healed_max.as_secs_f64(),
    );
    Ok(total.failed.is_empty())
}

#[allow(clippy::print_stdout, reason = "a command's output")]
fn play(plan: &Plan, options: &Options) -> bool {
    let outcome = run(plan, options.trace);
    println!("{plan}{}", outcome.trace.join("\n"));
    match &outcome.violation {
        Some(violation) => println!("breaks: {}\n  {}", violation.rule, violation.what),
        None => println!("breaks nothing"),
    }
    outcome.violation.is_none()
}

/// A kept plan.
///
/// # Errors
/// It cannot be read, or is none.
pub fn load(path: &Path) -> Result<Plan> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the plan {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no plan", path.display()))
}

/// Keeps a plan under its seed's number.
///
/// # Errors
/// It cannot be written.
pub fn keep(folder: &Path, plan: &Plan) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = folder.join(format!("{}.json", plan.seed));
    std::fs::write(&path, serde_json::to_string_pretty(plan)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
