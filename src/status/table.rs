//! A report as text for a terminal of 80 columns.

use std::fmt::Write;

use mainstay_election::values::Lag;

use super::{Health, ReplicaLine, Report, progress, verified};

/// The report as text: the sentence that matters most stands first.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let health = match report.health {
        Health::Ok => "OK",
        Health::Degraded => "DEGRADED",
        Health::Down => "DOWN",
    };
    let _ = writeln!(out, "{}: {health}: {}", report.service, report.summary);
    if let Some(address) = report.leader.as_ref().and_then(|leader| leader.service_address.as_ref())
    {
        let _ = writeln!(out, "service at: {address}");
    }
    let durability = report.guarantee.durability.map_or_else(String::new, |d| format!("{d}: "));
    let _ = writeln!(out, "guarantee:  {durability}{}", report.guarantee.now);
    if !report.guarantee.why_not_more.is_empty() {
        let _ = writeln!(out, "not more, because {}", report.guarantee.why_not_more);
    }
    if !report.replicas.is_empty() {
        out.push('\n');
        replicas(&mut out, &report.replicas);
        busy(&mut out, &report.replicas);
    }
    if let Some(compared) = verified::compared(report) {
        let _ = writeln!(out, "\ncompared:   {compared}");
    }
    out.push('\n');
    for warning in &report.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    for what in &report.to_do {
        let _ = writeln!(out, "to do:   {what}");
    }
    if report.to_do.is_empty() {
        let _ = writeln!(out, "to do:   nothing");
    }
    out
}

fn replicas(out: &mut String, lines: &[ReplicaLine]) {
    let head = ["NODE", "ROLE", "HEIR", "POSITION", "LAG", "STATE"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(lines.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0)).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// Who is busy with something that takes long, and how far it is.
fn busy(out: &mut String, lines: &[ReplicaLine]) {
    let mut busy = lines.iter().filter_map(|line| Some((line, line.progress?))).peekable();
    if busy.peek().is_some() {
        out.push('\n');
    }
    for (line, progress) in busy {
        let _ = writeln!(out, "{}: {}", line.node, progress::bar(&progress));
    }
}

fn row(line: &ReplicaLine) -> [String; 6] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        line.node.clone(),
        line.role.map_or_else(|| "gone".to_owned(), |role| role.to_string()),
        if line.may_take_over { "yes" } else { "-" }.to_owned(),
        or_dash(line.position.clone()),
        or_dash(line.lag.map(lag_text)),
        line.state.clone(),
    ]
}

fn lag_text(lag: Lag) -> String {
    if lag.ops == 0 {
        return "none".to_owned();
    }
    format!("{} ops, {}, {}", lag.ops, bytes_text(lag.bytes), span_text(lag.ms))
}

/// `12.3 MiB`
pub(super) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes as f64, 0);
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && amount < 100.0);
    format!("{amount:.digits$} {}", UNITS[unit])
}

/// `340 ms`, `12.3 s`, `5 min`
pub(super) fn span_text(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        60_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}
