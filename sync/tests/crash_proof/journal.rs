//! A store as Prevayler is one.

use std::io::Write;
use std::path::Path;

use crate::prove::{Points, ROWS, prove};

/// As Prevayler does it: every command in a journal, and now and then all of them in a snapshot
/// that takes its place.
pub fn store(dir: &Path, said: impl Fn(u64)) {
    use std::fs::File;
    let sync_dir = || File::open(dir).unwrap().sync_all().unwrap();
    let mut journal = File::create(dir.join("journal.0")).unwrap();
    sync_dir();
    for row in 1..=ROWS {
        // In pieces, each an op: a kill comes between any two.
        let line = format!("{row} {:0>width$}.\n", row, width = (row * 131 % 5000) as usize);
        for piece in line.as_bytes().chunks(1 + line.len() / 4) {
            journal.write_all(piece).unwrap();
        }
        journal.sync_data().unwrap();
        said(row);
        if row % 12 == 0 {
            let mut snapshot = File::create(dir.join("snapshot.next")).unwrap();
            let lines: String = (1..=row).map(|row| format!("{row}\n")).collect();
            let (half, rest) = lines.as_bytes().split_at(lines.len() / 2);
            snapshot.write_all(half).and_then(|()| snapshot.write_all(rest)).unwrap();
            snapshot.sync_all().unwrap();
            let next = format!("journal.{row}");
            journal = File::create(dir.join(&next)).unwrap();
            journal.sync_all().unwrap();
            std::fs::rename(dir.join("snapshot.next"), dir.join("snapshot")).unwrap();
            sync_dir();
            let _ = std::fs::remove_file(dir.join(format!("journal.{}", row - 12)));
        }
    }
}

fn holds(dir: &Path) -> Result<u64, String> {
    let snapshot = std::fs::read_to_string(dir.join("snapshot")).unwrap_or_default();
    let mut rows: Vec<u64> = snapshot.lines().map(|line| line.parse().unwrap()).collect();
    let base = rows.last().copied().unwrap_or(0);
    let journal = std::fs::read_to_string(dir.join(format!("journal.{base}")))
        .map_err(|error| format!("journal.{base}: {error}"))?;
    for line in journal.split_inclusive('\n').filter(|line| line.ends_with(".\n")) {
        rows.push(line.split(' ').next().unwrap().parse().unwrap());
    }
    match rows.iter().copied().eq(1..=rows.len() as u64) {
        true => Ok(rows.len() as u64),
        false => Err(format!("{rows:?}")),
    }
}

#[test]
fn a_journal_with_snapshots_recovers_at_any_op() {
    prove("journal-and-snapshot", holds, Points::Every);
}
