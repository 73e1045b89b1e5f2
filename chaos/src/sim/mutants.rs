//! `chaos mutants`: breaks one rule at a time and demands that a run finds it.
//!
//! The mutations stand at the lines of the machines that they break, or in the shell where the
//! line is in IO code: `mutant!("name")`, which is the constant `false` in every build but the one
//! that is made here. A mutation that no run finds means that the simulator is not finished.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

/// Every mutation: its name, and what it breaks.
pub const MUTANTS: &[(&str, &str)] = &[
    ("ack-before-durable", "a follower acknowledges what it has not synced"),
    ("position-read-before-the-promise", "a ballot's position is older than its promise"),
    ("promise-not-persisted", "the vow is forgotten by a restart"),
    ("promised-epoch-as-position", "a ballot says the promised epoch for the last record's"),
    ("promises-do-not-bind", "records of a promised epoch are taken and acknowledged"),
    ("no-epoch-start", "a leader serves without a first record of its own"),
    ("committed-before-the-epoch-start", "old records count as committed before the start is"),
    ("acks-of-any-epoch-count", "acknowledgements of earlier epochs count"),
    ("one-copy-too-few", "a write quorum is one copy less"),
    ("either-rule-commits", "during a change only the new rule is met"),
    ("uncommitted-applied", "objects are touched with records that may lose (sync)"),
    ("object-written-before-its-record", "objects are touched before the log is durable"),
    ("applied-tail-truncated", "a tail is cut off the log although it was applied"),
    ("lineages-not-compared", "a follower streams on although its history is another"),
    ("half-a-copy-streams", "an interrupted copy goes on as if it were whole"),
    ("delta-complete-at-its-start", "a copy is promotable before its last record"),
    ("delta-complete-before-its-records", "a delta is taken for whole where it began"),
    ("delta-since-the-head", "a delta begins at the follower's head, not where histories part"),
    ("own-tail-kept-by-a-delta", "what lost is not rolled back"),
    ("new-disk-under-the-old-volume", "a wiped node answers as the voter that it was"),
    ("takeover-compares-nothing", "the transaction that takes an epoch compares nothing"),
    ("ballot-position-ignored", "anybody with a ballot leads"),
    ("one-ballot-elects", "one voter's promise is enough"),
    ("voters-changed-without-the-old-quorum", "new voters' terms stand alone from the first"),
    ("voters-changed-before-they-have-it-all", "a config is written before it is covered"),
    ("voters-let-in-unseen", "new voters need not have caught up"),
    ("muted-voter-left-mute", "a voter that promised for nothing never follows again"),
    ("promises-although-it-hears", "one who hears the leader votes against it"),
    ("last-report-counts-for-ever", "a silent heir lacks what it lacked when it was last heard"),
    ("writes-run-ahead", "the service does not wait for those who may take over (async)"),
    ("epoch-led-twice", "an epoch that was given twice has followers twice"),
    ("later-epoch-overlooked", "a leader goes on although a later epoch was taken"),
    ("ended-epoch-begun-again", "a leadership that ended is taken up again"),
    ("deadline-counted-from-receipt", "the gate's deadline counts from an answer's receipt"),
    ("view-fresh-from-receipt", "an ambassador trusts a view from its receipt on"),
    ("attests-without-a-quorum", "a leader attests itself whether or not anybody hears it"),
    ("attestation-counts-from-receipt", "an ambassador trusts an answer from its receipt on"),
    ("route-trusted-for-ever", "an ambassador trusts a route past its time"),
];

/// Those that no run finds yet, so that the simulator is not finished there. They are hunted too,
/// and one that is found belongs into the list above. Some stand behind one another: a leader that
/// no quorum answers puts nothing back *and* takes no further epoch, and either is enough (election's
/// scenarios, which play what a machine does step by step, do find those).
pub const OPEN: &[(&str, &str)] = &[
    ("waits-for-a-muted-voter", "a leader waits for a copy of a voter that takes nothing of it"),
    ("switches-past-a-promise", "a delta of an epoch that was promised away is gone over to"),
    ("applies-on-after-a-rollback", "after a rollback that was cut short anything is applied"),
    ("new-terms-alone-before-they-are-stored", "a lost coordinator gets an older config back"),
    ("rebuilt-without-all-voters", "an old config is put back by whoever is there"),
    ("gives-up-what-it-shared", "a delta may end before the last op in common"),
    ("epochs-counted-by-the-coordinator-alone", "a restored coordinator gives epochs again"),
    ("any-view-keeps-a-leader", "a leader stays one by views that do not show its epoch"),
    ("rebuilt-by-a-leader-unheard", "a leader puts its config back though no quorum answers it"),
    ("renews-unheard", "a leader goes on past a promise though no quorum answers it"),
    ("won-on-another-position", "a log that moved since its ballot begins the epoch it won"),
];

/// Each mutation is found within so many seeds.
const SEEDS: u64 = 3000;

/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// Each mutation must be found within so many seeds
    #[arg(long, default_value_t = SEEDS)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Only those whose names contain this
    #[arg(long, default_value = "")]
    only: String,
}

/// Builds with mutations and runs each; true if all were found and nothing else was.
///
/// # Errors
/// It cannot be built or run.
#[allow(clippy::print_stdout, reason = "a command's output")]
pub fn command(options: &Options) -> Result<bool> {
    let binary = build()?;
    let mut missed = Vec::new();
    if let Some(found) = hunt(&binary, "", options)? {
        bail!("without any mutation: {found}");
    }
    println!("none{:44}nothing is found in {} seeds", "", options.seeds);
    let chosen = MUTANTS.iter().filter(|(name, _)| name.contains(&options.only));
    for (name, what) in chosen {
        match hunt(&binary, name, options)? {
            Some(found) => println!("{name:48}{found}\n    ({what})"),
            None => {
                println!("{name:48}NOT FOUND in {} seeds\n    ({what})", options.seeds);
                missed.push(*name);
            }
        }
    }
    for (name, what) in OPEN.iter().filter(|(name, _)| name.contains(&options.only)) {
        if let Some(found) = hunt(&binary, name, options)? {
            println!("{name:48}{found}: no longer open\n    ({what})");
            missed.push(*name);
        } else {
            println!("{name:48}open: not found in {} seeds\n    ({what})", options.seeds);
        }
    }
    if !missed.is_empty() {
        println!("{} not as listed: {}", missed.len(), missed.join(", "));
    }
    Ok(missed.is_empty())
}

/// Only the workspace's own crates are built anew: the wrapper is for them alone.
fn build() -> Result<PathBuf> {
    let here = std::env::current_exe().context("cannot tell where this program is")?;
    let folder = here.parent().context("this program is in no folder")?;
    let wrapper = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutant-rustc");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // All of the workspace, or its dependencies would be built once more with other features.
    build.args(["build", "--workspace", "--locked", "--example", "mutant"]);
    if folder.ends_with("release") {
        build.arg("--release");
    }
    build.current_dir(env!("CARGO_MANIFEST_DIR")).env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    let built = build.status().context("cannot run cargo")?;
    if !built.success() {
        bail!("the build with mutations failed");
    }
    Ok(folder.join("examples/mutant"))
}

/// What is found with that mutation, if anything is.
fn hunt(binary: &Path, mutant: &str, options: &Options) -> Result<Option<String>> {
    let Options { seeds, first_seed, .. } = options;
    let ran = Command::new(binary)
        .args([first_seed.to_string(), seeds.to_string()])
        .env("MAINSTAY_MUTANT", mutant)
        .output()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    match ran.status.code() {
        Some(0) => Ok(None),
        Some(1) => Ok(Some(String::from_utf8_lossy(&ran.stdout).trim().to_owned())),
        _ => bail!("{} ended badly: {}", binary.display(), String::from_utf8_lossy(&ran.stderr)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names_in(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                names_in(&path, names);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                // Put together here, so that this line is none of those that it looks for.
                let calls = text.split(concat!("mutant", "!(\"")).skip(1);
                names.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }

    #[test]
    fn every_mutation_is_listed_once_and_every_listed_one_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut there = BTreeSet::new();
        for folder in ["src", "election/src", "sync/src", "ambassador/src", "chaos/src"] {
            names_in(&root.join(folder), &mut there);
        }
        // The module's own words on how one is written.
        there.remove("name");
        let all = MUTANTS.iter().chain(OPEN).map(|(name, _)| (*name).to_owned());
        let listed: BTreeSet<String> = all.clone().collect();
        assert_eq!(listed.len(), all.count(), "one is listed twice");
        assert_eq!(there, listed);
    }
}
