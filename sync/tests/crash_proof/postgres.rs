//! Postgres, with checkpoints, a vacuum and an index that is built meanwhile.

use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::prove::{Killed, Points, ROWS, prove};
use crate::rig;
use crate::server::{self, command, feed, output, user_of};

const BIN: &str = "/usr/lib/postgresql/15/bin";

struct Postgres {
    _server: Killed,
    sockets: tempfile::TempDir,
    user: (u32, u32),
}

impl Postgres {
    fn start(data: &Path) -> Result<Postgres, String> {
        let user = user_of("postgres").unwrap();
        let sockets = tempfile::tempdir().unwrap();
        chown(sockets.path(), Some(user.0), Some(user.1)).unwrap();
        let mut postgres = command(bin("postgres"), user);
        postgres.arg("-D").arg(data).arg("-k").arg(sockets.path()).args(["-h", ""]);
        // Little to write between checkpoints, and everything that is safe by default.
        postgres.args(["-c", "shared_buffers=4MB", "-c", "max_connections=10"]);
        postgres.args(["-c", "autovacuum=off", "-c", "wal_keep_size=0"]);
        let (at, log) = (sockets.path().to_owned(), sockets.path().join("log"));
        let server =
            server::start(&mut postgres, &log, || output(psql(&at, user).args(["-c", ""])).is_ok());
        Ok(Postgres { _server: server?, sockets, user })
    }

    fn client(&self) -> Command {
        psql(self.sockets.path(), self.user)
    }
}

fn bin(program: &str) -> PathBuf {
    Path::new(BIN).join(program)
}

fn psql(sockets: &Path, user: (u32, u32)) -> Command {
    // Whatever it says goes out line by line: that is when a row counts as acknowledged.
    let mut command = command("/usr/bin/stdbuf", user);
    command.args(["-oL"]).arg(bin("psql")).arg("-h").arg(sockets);
    command.args(["-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1"]);
    command
}

/// Makes a database on the mount and fills it; its client says which row is acknowledged.
pub fn store(dir: &Path) {
    let user = user_of("postgres").unwrap();
    chown(dir, Some(user.0), Some(user.1)).unwrap();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut initdb = command(bin("initdb"), user);
    // Small segments, so that they are recycled under the test.
    initdb.args(["-A", "trust", "-U", "postgres", "--data-checksums", "--wal-segsize=1", "-D"]);
    output(initdb.arg(dir)).unwrap();
    let postgres = Postgres::start(dir).unwrap();
    let mut script = "CREATE TABLE t(n int PRIMARY KEY, filler text, sum text);\n".to_owned();
    for row in 1..=ROWS {
        let length = 700 * (row % 9);
        let _ = writeln!(
            script,
            "INSERT INTO t SELECT {row}, f, md5(f) FROM (SELECT repeat('{row}.', {length}) f) x;\n\
             \\echo row {row}"
        );
        match row % 20 {
            5 => script.push_str("UPDATE t SET filler = n::text, sum = md5(n::text);\n"),
            10 | 18 => script.push_str("CHECKPOINT;\n"),
            15 => script.push_str("VACUUM t;\n"),
            _ => {}
        }
        if row == 30 {
            script.push_str("CREATE INDEX by_sum ON t(sum);\n");
        }
    }
    feed(postgres.client().stderr(Stdio::inherit()), &script);
}

fn holds(data: &Path) -> Result<u64, String> {
    let postgres = Postgres::start(data)?;
    let ask = |query: &str| output(postgres.client().args(["-c", query]));
    // Every page with its checksum, and the table against its index.
    let found =
        ask("SELECT count(*), coalesce(max(n), 0), count(*) FILTER (WHERE md5(filler) <> sum) \
                     FROM t")?;
    let by_index = ask("SET enable_seqscan = off; SET enable_bitmapscan = off; \
                        SELECT count(*) FROM t WHERE n > 0")?;
    let rows: u64 = by_index.parse().map_err(|_| by_index)?;
    match found == format!("{rows}|{rows}|0") {
        true => Ok(rows),
        false => Err(format!("rows, the last of them and wrong sums: {found}; {rows} by index")),
    }
}

#[test]
fn postgres_recovers_at_any_op_also_while_it_checkpoints() {
    if !bin("initdb").exists() || user_of("postgres").is_none() {
        rig::skipped("postgres_recovers", "Postgres 15 is not installed");
        return;
    }
    prove("postgres", holds, Points::Sample(15));
}
