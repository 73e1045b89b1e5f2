//! `chaos table`: the reports of many runs as a table of a README.
#![allow(clippy::print_stdout, reason = "a command's output")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::Report;
use super::summary::by_kind;

/// Between these lines of a file the table stands.
const BEGIN: &str = "<!-- faults -->";
const END: &str = "<!-- /faults -->";

/// What to put where.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Each run's report.json
    #[arg(required = true)]
    pub reports: Vec<PathBuf>,
    /// A Markdown file whose part between `<!-- faults -->` and `<!-- /faults -->` becomes the table
    #[arg(long)]
    pub into: Option<PathBuf>,
}

/// Prints the table, or puts it into a file.
///
/// # Errors
/// A report cannot be read, or the file has no place for it.
pub fn command(options: &Options) -> Result<()> {
    let reports: Result<Vec<_>> = options.reports.iter().map(|path| Report::read(path)).collect();
    let text = markdown(&reports?);
    match &options.into {
        None => println!("{text}"),
        Some(file) => put(file, &text)?,
    }
    Ok(())
}

fn put(file: &Path, text: &str) -> Result<()> {
    let old = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let new = replaced(&old, text)
        .with_context(|| format!("{} has no {BEGIN} … {END}", file.display()))?;
    std::fs::write(file, new).with_context(|| format!("write {}", file.display()))
}

fn replaced(old: &str, text: &str) -> Option<String> {
    let (before, rest) = old.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{text}\n{END}{after}"))
}

/// What was done in all, what came of it, and a line for each kind of fault.
#[must_use]
pub fn markdown(reports: &[Report]) -> String {
    let rows = by_kind(reports);
    let settings: BTreeSet<_> = reports.iter().map(|report| report.setting.as_str()).collect();
    let seeds: Vec<_> = reports.iter().map(|report| report.seed.to_string()).collect();
    let settings = settings.into_iter().collect::<Vec<_>>().join("; ");
    let acknowledged: u64 =
        reports.iter().flat_map(|report| &report.throughput).map(|point| point.acknowledged).sum();
    let mut bad: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in reports.iter().flat_map(|report| &report.findings) {
        if !finding.is_clean() {
            *bad.entry(&finding.check).or_default() += 1;
        }
    }
    let bad = bad.iter().map(|(check, runs)| format!("**FAILED in {runs} runs: {check}**"));
    let verdict = match bad.collect::<Vec<_>>() {
        bad if bad.is_empty() => "every check passed".to_owned(),
        bad => format!("{}; no other check failed", bad.join("; ")),
    };
    let mut text = format!(
        "{} faults of {} kinds in {} runs of {:.0} min in all ({settings}; seeds {}); {} \
         acknowledged writes and transactions; {verdict}.\n\n",
        rows.iter().map(|row| row.made).sum::<usize>(),
        rows.len(),
        reports.len(),
        reports.iter().map(|report| report.lasted.as_secs_f64()).sum::<f64>() / 60.0,
        seeds.join(", "),
        grouped(acknowledged),
    );
    text.push_str(
        "| fault | what happens | made | measured alone | no write acknowledged for: median | max \
         |\n|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let (median, max) = row
            .median_and_max()
            .map_or_else(Default::default, |(median, max)| (seconds(median), seconds(max)));
        text.push_str(&format!(
            "| {} | {} | {} | {} | {median} | {max} |\n",
            row.kind,
            row.kind.says(),
            row.made,
            row.pauses.len()
        ));
    }
    text.trim_end().to_owned()
}

/// A number with a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Finding;
    use crate::nemesis::Kind;
    use crate::report::Fault;
    use crate::run;

    fn report(pause: u64, alone: bool) -> Report {
        let mut report = Report::new(&run::Options::default());
        let seconds = Duration::from_secs;
        let on = "a".to_owned();
        let mut fault = Fault::new(Kind::KillNode, on, seconds(1), seconds(1), None, None);
        fault.pause = Some(seconds(pause));
        fault.alone = alone;
        report.faults.push(fault);
        report
    }

    #[test]
    fn only_faults_that_no_other_was_near_are_measured() {
        let text = markdown(&[report(2, true), report(4, true), report(60, false)]);
        let row =
            "| kill-node | all of the leader's node is killed at once | 3 | 2 | 3.00 s | 4.00 s |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("every check passed"), "{text}");
    }

    #[test]
    fn a_run_that_found_something_is_not_called_clean() {
        let mut bad = report(1, true);
        bad.findings.push(Finding {
            check: "nothing is lost".to_owned(),
            looked_at: String::new(),
            violations: vec!["one".to_owned()],
        });
        let text = markdown(&[bad]);
        assert!(text.contains("FAILED in 1 runs: nothing is lost"), "{text}");
        assert!(!text.contains("every check passed"), "{text}");
    }

    #[test]
    fn a_report_that_was_written_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().to_owned();
        let mut report = Report::new(&run::Options { out, ..run::Options::default() });
        report.faults = self::report(3, true).faults;
        report.write().expect("it is written");
        let read = Report::read(&report.folder().join("report.json")).expect("it is read");
        assert_eq!(markdown(&[read]), markdown(&[report]));
    }

    #[test]
    fn the_table_takes_the_place_of_the_old_one() {
        let old = format!("a\n{BEGIN}\nold\n{END}\nb");
        assert_eq!(replaced(&old, "new"), Some(format!("a\n{BEGIN}\nnew\n{END}\nb")));
        assert_eq!(replaced("a", "new"), None);
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
    }
}
