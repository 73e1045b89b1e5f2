//! SQLite, with both of its journals.

use std::path::Path;

use crate::prove::{Points, ROWS, prove};

pub fn store(dir: &Path, mode: &str, said: impl Fn(u64)) {
    let db = rusqlite::Connection::open(dir.join("db")).unwrap();
    db.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).unwrap();
    db.pragma_update(None, "synchronous", "FULL").unwrap();
    db.pragma_update(None, "wal_autocheckpoint", 20).unwrap();
    db.execute_batch("CREATE TABLE t(n INTEGER PRIMARY KEY, filler BLOB)").unwrap();
    for row in 1..=ROWS {
        let filler = vec![row as u8; 3000 * (row as usize % 5)];
        db.execute("INSERT INTO t VALUES (?, ?)", rusqlite::params![row as i64, filler]).unwrap();
        said(row);
        if row % 15 == 0 {
            db.execute("UPDATE t SET filler = x'00' WHERE n < ?", [row as i64 - 5]).unwrap();
        }
    }
}

fn holds(dir: &Path) -> Result<u64, String> {
    let failed = |error: rusqlite::Error| error.to_string();
    let db = rusqlite::Connection::open(dir.join("db")).map_err(failed)?;
    let sound: String =
        db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(failed)?;
    let (count, last): (i64, Option<i64>) = db
        .query_row("SELECT count(*), max(n) FROM t", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(failed)?;
    match sound == "ok" && last.unwrap_or(0) == count {
        true => Ok(count as u64),
        false => Err(format!("{sound}; {count} rows up to {last:?}")),
    }
}

#[test]
fn sqlite_in_wal_mode_recovers_at_any_op() {
    prove("sqlite-wal", holds, Points::Every);
}

#[test]
fn sqlite_in_rollback_mode_recovers_at_any_op() {
    prove("sqlite-rollback", holds, Points::Every);
}
