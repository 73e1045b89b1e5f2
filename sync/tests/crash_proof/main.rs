//! What real stores make of a kill at any op: their log is recorded on a mount, the volume is built
//! again at many prefixes of it, and on each the store is started and must hold every row that it
//! had acknowledged by then.
//!
//! Small logs are cut after every op, large ones at a seeded sample of ops: at what was fsynced, at
//! what was acknowledged, and anywhere. `SEED=n` chooses others, `PREFIXES=n` another number of
//! them, and `PREFIXES=all` is the long form: around every fsync of a large log. It takes hours for
//! the databases: `PREFIXES=all cargo test -p mainstay-sync --test crash_proof postgres`.

#![allow(clippy::print_stdout, reason = "how much was tried, for whoever asks with --nocapture")]

#[path = "../rig/mod.rs"]
mod rig;
#[path = "../support/mod.rs"]
mod support;

mod git;
mod journal;
mod mariadb;
mod plain;
mod postgres;
mod prove;
mod redis;
mod server;
mod sqlite;

use std::io::Write;
use std::path::Path;

/// Not a test of its own: the stores, in a process that may hang in the mount and be killed.
#[test]
fn child_that_stores() {
    let (Ok(store), Ok(dir)) = (std::env::var(prove::CHILD), std::env::var(prove::CHILD_DIR))
    else {
        return;
    };
    let dir = Path::new(&dir);
    let said = |row: u64| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "row {row}").and_then(|()| out.flush()).unwrap();
    };
    match store.as_str() {
        "sqlite-wal" => sqlite::store(dir, "WAL", said),
        "sqlite-rollback" => sqlite::store(dir, "DELETE", said),
        "journal-and-snapshot" => journal::store(dir, said),
        "git" => git::store(dir, said),
        "redis" => redis::store(dir, said),
        "postgres" => postgres::store(dir),
        "mariadb" => mariadb::store(dir),
        other => panic!("{other}"),
    }
}
