//! `chaos live`: a run, and its outcome on standard output.
#![allow(clippy::print_stdout, reason = "a command's output")]

use anyhow::{Result, ensure};

use super::{Options, run};
use crate::report::Report;
use crate::report::summary::by_kind;

/// Runs, writes the report, and says what came of it.
///
/// # Errors
/// The run could not be made, or a judge found something.
pub fn command(options: &Options) -> Result<()> {
    println!("{}", options.replay());
    let report = run(options)?;
    report.write()?;
    print(&report);
    let found = report.findings.iter().filter(|finding| !finding.is_clean()).count();
    ensure!(found == 0, "{found} checks failed; see {}", report.folder().display());
    Ok(())
}

fn print(report: &Report) {
    println!("\n{} over {:.0} s", report.setting, report.lasted.as_secs_f64());
    for fault in &report.faults {
        let at = fault.at.as_secs_f64();
        let pause = fault.pause.map_or(0.0, |pause| pause.as_secs_f64());
        match &fault.skipped {
            Some(why) => println!("{at:8.1} s  {:16} not done: {why}", fault.kind.name()),
            None => println!(
                "{at:8.1} s  {:16} {:8} {pause:6.2} s without an acknowledged write{}",
                fault.kind.name(),
                fault.on,
                if fault.alone { "" } else { " (others were near)" }
            ),
        }
    }
    println!();
    for row in by_kind([report]) {
        if let Some((median, max)) = row.median_and_max() {
            println!(
                "{:16} {:3} alone: median {:.2} s, max {:.2} s without an acknowledged write",
                row.kind.name(),
                row.pauses.len(),
                median.as_secs_f64(),
                max.as_secs_f64()
            );
        }
    }
    println!();
    for failover in &report.failovers {
        println!("{}", failover.line());
    }
    println!();
    for finding in &report.findings {
        let mark = if finding.is_clean() { "ok    " } else { "FAILED" };
        println!("{mark} {} ({})", finding.check, finding.looked_at);
        for violation in finding.violations.iter().take(5) {
            println!("         {violation}");
        }
    }
    if let Some(recovery) = report.recovery {
        println!("\nall nodes in their roles {:.1} s after the last fault", recovery.as_secs_f64());
    }
    println!("the report: {}", report.folder().join("report.html").display());
}
