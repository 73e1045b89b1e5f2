//! MariaDB's InnoDB, with its doublewrite buffer and pages that are flushed all the time.

use std::fmt::Write as _;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::prove::{Killed, Points, ROWS, prove};
use crate::rig;
use crate::server::{self, command, feed, output, user_of};

const SERVER: &str = "/usr/sbin/mariadbd";
const INSTALL: &str = "/usr/bin/mariadb-install-db";
const CLIENT: &str = "/usr/bin/mariadb";
/// As small as InnoDB takes them: the log goes round under the test.
const SIZES: [&str; 2] = ["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=24M"];

/// Its own user, which only the server's whole package makes; or one that owns nothing.
fn user() -> Option<(u32, u32)> {
    user_of("mysql").or_else(|| user_of("nobody"))
}

struct MariaDb {
    _server: Killed,
    dir: tempfile::TempDir,
    user: (u32, u32),
}

impl MariaDb {
    fn start(data: &Path) -> Result<MariaDb, String> {
        let user = user().unwrap();
        let dir = tempfile::tempdir().unwrap();
        chown(dir.path(), Some(user.0), Some(user.1)).unwrap();
        let socket = dir.path().join("socket");
        let mut mariadb = command(SERVER, user);
        mariadb.arg("--no-defaults").args(SIZES).arg("--skip-networking");
        mariadb.arg(format!("--datadir={}", data.display()));
        mariadb.arg(format!("--socket={}", socket.display()));
        mariadb.arg(format!("--pid-file={}", dir.path().join("pid").display()));
        mariadb.arg("--innodb-flush-log-at-trx-commit=1");
        // Dirty pages go out at once, so that prefixes end between a page and its copy.
        mariadb.args(["--innodb-max-dirty-pages-pct=0", "--innodb-max-dirty-pages-pct-lwm=0"]);
        let answers = || output(client(&socket, user).args(["-e", "SELECT 1"])).is_ok();
        let server = server::start(&mut mariadb, &dir.path().join("log"), answers);
        Ok(MariaDb { _server: server?, dir, user })
    }

    fn client(&self) -> Command {
        client(&self.dir.path().join("socket"), self.user)
    }
}

fn client(socket: &Path, user: (u32, u32)) -> Command {
    let mut command = command(CLIENT, user);
    command.args(["--no-defaults", "-uroot", "--batch", "--skip-column-names", "--unbuffered"]);
    command.arg(format!("--socket={}", socket.display()));
    command
}

/// Makes a database on the mount and fills it; its client says which row is acknowledged.
pub fn store(dir: &Path) {
    let user = user().unwrap();
    chown(dir, Some(user.0), Some(user.1)).unwrap();
    let mut install = command(INSTALL, user);
    install.args(["--no-defaults", "--auth-root-authentication-method=normal"]).args(SIZES);
    install.arg("--skip-test-db").arg(format!("--datadir={}", dir.display()));
    output(&mut install).unwrap();
    let mariadb = MariaDb::start(dir).unwrap();
    let mut script = "CREATE DATABASE d; USE d;\n\
                      CREATE TABLE t(n int PRIMARY KEY, filler longtext, sum char(32), KEY(sum)) \
                      ENGINE=InnoDB;\n"
        .to_owned();
    for row in 1..=ROWS {
        let length = 900 * (row % 9);
        let _ = writeln!(
            script,
            "INSERT INTO t SELECT {row}, f, md5(f) FROM (SELECT repeat('{row}.', {length}) f) x;\n\
             SELECT 'row {row}';"
        );
        match row % 20 {
            5 => script.push_str("UPDATE t SET filler = n, sum = md5(n);\n"),
            12 => script.push_str("FLUSH TABLES t FOR EXPORT; UNLOCK TABLES;\n"),
            _ => {}
        }
        if row == 30 {
            script.push_str("ALTER TABLE t ADD COLUMN more int DEFAULT 7, FORCE;\n");
        }
        if row > 30 && row % 20 == 15 {
            script.push_str("UPDATE t SET more = n;\n");
        }
    }
    // After row 30 the table has one column more.
    let script = script.replace("INSERT INTO t SELECT", "INSERT INTO t(n, filler, sum) SELECT");
    feed(mariadb.client().stderr(Stdio::inherit()), &script);
}

fn holds(data: &Path) -> Result<u64, String> {
    let mariadb = MariaDb::start(data)?;
    let ask = |query: &str| output(mariadb.client().args(["d", "-e", query]));
    let checked = ask("CHECK TABLE t EXTENDED")?;
    if checked.lines().any(|line| !line.ends_with("\tOK")) {
        return Err(checked);
    }
    let found =
        ask("SELECT count(*), coalesce(max(n), 0), coalesce(sum(md5(filler) <> sum), 0) FROM t")?;
    let by_index = ask("SELECT count(*) FROM t FORCE INDEX(sum) WHERE sum > ''")?;
    let rows: u64 = by_index.parse().map_err(|_| by_index)?;
    match found == format!("{rows}\t{rows}\t0") {
        true => Ok(rows),
        false => Err(format!("rows, the last of them and wrong sums: {found}; {rows} by index")),
    }
}

#[test]
fn innodb_recovers_at_any_op_also_while_it_flushes() {
    let all = [SERVER, INSTALL, CLIENT].map(PathBuf::from);
    if !all.iter().all(|program| program.exists()) || user().is_none() {
        rig::skipped("innodb_recovers", "MariaDB is not installed");
        return;
    }
    prove("mariadb", holds, Points::Sample(21));
}
