//! A real service on the mount: what it committed is in what a follower makes of the records.

mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rig::{Rig, eventually};

const BIN: &str = "/usr/lib/postgresql/15/bin";

struct Postgres {
    data: PathBuf,
    sockets: PathBuf,
    user: (u32, u32),
    server: Option<Child>,
}

impl Postgres {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new(BIN).join(program));
        command.uid(self.user.0).gid(self.user.1).current_dir(&self.sockets);
        command.env("LC_ALL", "C").env("HOME", &self.sockets).stdin(Stdio::null());
        command
    }

    fn init(&self) {
        let mut command = self.command("initdb");
        command.args(["-A", "trust", "-U", "postgres", "-D"]).arg(&self.data);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    fn start(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.sockets).args(["-h", ""]);
        let log = fs::File::create(self.sockets.join("log")).unwrap();
        self.server = Some(command.stderr(log).process_group(0).spawn().unwrap());
        eventually("postgres answers", || self.ask("select 1").is_some_and(|one| one == "1"));
    }

    fn ask(&self, query: &str) -> Option<String> {
        let mut command = self.command("psql");
        command.arg("-h").arg(&self.sockets).args(["-U", "postgres", "-XAtqc", query]);
        let out = command.output().unwrap();
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    /// As a failover does: every process at once, without a word.
    fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // Its children have sessions of their own; the postmaster's death ends them.
        let _ = server.kill();
        let _ = server.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn user_of(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[test]
fn postgres_survives_on_what_a_follower_has() {
    let user = user_of("postgres").filter(|_| Path::new(BIN).join("initdb").exists());
    let Some(user) = user else {
        rig::skipped("postgres_survives", "Postgres 15 is not installed");
        return;
    };
    let Some(mut rig) = Rig::new("postgres_survives") else { return };
    let sockets = rig.beside("sockets");
    std::os::unix::fs::chown(&sockets, Some(user.0), Some(user.1)).unwrap();
    std::os::unix::fs::chown(rig.place(), Some(user.0), Some(user.1)).unwrap();
    fs::set_permissions(rig.place(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut postgres = Postgres { data: rig.place().to_owned(), sockets, user, server: None };
    postgres.init();
    for life in 1..=3 {
        postgres.start();
        let insert = "create table if not exists t (life int, n int); \
             insert into t select $LIFE, n from generate_series(1, 2000) n; checkpoint; \
             insert into t select $LIFE, n from generate_series(1, 500) n";
        postgres.ask(&insert.replace("$LIFE", &life.to_string())).expect("rows are inserted");
        postgres.kill();
        rig.mount.take().unwrap().abort().unwrap();
        rig.mount();
    }
    postgres.start();
    let counted = postgres.ask(
        "select string_agg(c::text, ' ') from \
         (select count(*) c from t group by life) g",
    );
    assert_eq!(counted.as_deref(), Some("2500 2500 2500"), "what was committed is there");
    postgres.kill();
}
