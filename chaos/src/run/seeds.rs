//! Runs that found something once, kept as files: what it was, and the run's options.
//!
//! Lines that begin with `#` are for people; all others are arguments of `chaos live`.

use std::path::Path;

use anyhow::{Context, Result};
use clap::Parser;

use super::Options;

#[derive(Parser)]
struct Alone {
    #[command(flatten)]
    options: Options,
}

/// All kept runs below a folder, by name.
///
/// # Errors
/// A file cannot be read, or is no run.
pub fn read(folder: &Path) -> Result<Vec<(String, Options)>> {
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "seed") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let options = parse(&text).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        seeds.push((name, options));
    }
    seeds.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(seeds)
}

fn parse(text: &str) -> Result<Options> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let arguments = lines.flat_map(str::split_whitespace);
    Ok(Alone::try_parse_from(["chaos"].into_iter().chain(arguments))?.options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_read_and_a_wrong_one_refused() {
        let options = parse("# why\n--seed 7 --faults kill-node\n--durability sync\n");
        let options = options.expect("it is a run");
        assert_eq!(options.seed, 7);
        assert_eq!(options.kinds().len(), 1);
        assert!(parse("--faults no-such-fault").is_err());
    }

    #[test]
    fn every_kept_seed_is_a_run() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
        assert!(!read(&folder).expect("seeds").is_empty());
        // It is there only while something is open.
        if folder.join("open").exists() {
            read(&folder.join("open")).expect("seeds");
        }
    }
}
