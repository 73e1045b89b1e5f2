//! What real stores make of a kill at any op: their log is recorded on a mount, the volume is built
//! again at many prefixes of it, and on each the store is started and must hold every row that it
//! had acknowledged by then.
//!
//! `SEED=n` chooses other prefixes, `PREFIXES=n` more of them.

mod rig;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_sync::capture::{Gate, Mount, MountOptions};
use mainstay_sync::log::{Stop, UpTo};
use mainstay_sync::op::{Kind, Record};
use mainstay_sync::position::{ClusterId, Epoch, FileId, Seq};
use mainstay_sync::volume::{Volume, VolumeOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const CLUSTER: ClusterId = ClusterId([3; 16]);
const CHILD: &str = "MAINSTAY_TEST_CRASH_STORE";
const CHILD_DIR: &str = "MAINSTAY_TEST_CRASH_DIR";
/// Rows that each store writes.
const ROWS: u64 = 60;

struct Open;

impl Gate for Open {
    fn open(&self) -> bool {
        true
    }
}

/// Ends with the test, whatever happens.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A store's whole log, and after which op each of its rows was acknowledged at the latest.
struct Recorded {
    records: Vec<Record>,
    acknowledged: BTreeMap<u64, Seq>,
    _dir: tempfile::TempDir,
}

/// Runs `store` on a mount, in a process of its own that says `row n` once it holds row n.
fn record(store: &str) -> Option<Recorded> {
    if let Some(reason) = rig::unable() {
        rig::skipped(store, reason);
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("mount");
    let options = VolumeOptions { log_bytes_max: 1 << 30, ..support::options() };
    let volume = Volume::open(&dir.path().join("state"), options).unwrap();
    volume.found(CLUSTER).unwrap();
    let _pin = volume.log().pin(Seq(0)).unwrap();
    let leading = volume.lead(Epoch(1), "a").unwrap();
    let options = MountOptions::new(&place, "crash", Epoch(1));
    let image = leading.image.clone();
    let (journal, objects) = (leading.journal.clone(), leading.objects.clone());
    let mount = Mount::new(options, image, journal, objects, Arc::new(Open)).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child_that_stores", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, store)
        .env(CHILD_DIR, &place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut acknowledged = BTreeMap::new();
    for line in BufReader::new(child.0.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, row)) = line.split_once("row ") else { continue };
        acknowledged.insert(row.trim().parse().unwrap(), volume.head().seq);
    }
    assert!(child.0.wait().unwrap().success(), "{store} failed");
    drop(child);
    assert_eq!(acknowledged.len() as u64, ROWS, "{store}");
    let last = volume.head().seq;
    let log = volume.log();
    let stop = Stop::new(&log);
    let mut reader = log.reader(Seq(0)).unwrap();
    let mut records = Vec::new();
    while reader.next_seq() <= last {
        let frames = reader.next_blocking(UpTo::Durable, 1 << 20, &stop).unwrap();
        records.extend(frames.iter().map(mainstay_sync::log::Frame::record));
    }
    drop(reader);
    mount.abort().unwrap();
    Some(Recorded { records, acknowledged, _dir: dir })
}

/// Builds the volume at many prefixes and has `holds` say how many rows the store finds there.
fn prove(store: &str, holds: fn(&Path) -> Result<u64, String>, prefixes: usize) {
    let Some(recorded) = record(store) else { return };
    let number = |name: &str, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let seed = number("SEED", 1);
    let prefixes = number("PREFIXES", prefixes as u64) as usize;
    let mut random = SmallRng::seed_from_u64(seed);
    let first = recorded.acknowledged[&1].0;
    let last = recorded.records.last().unwrap().head.seq.0;
    let mut chosen: BTreeSet<u64> = BTreeSet::from([first, last]);
    // Around what was acknowledged, where it matters most, and anywhere.
    for _ in 0..prefixes {
        let near = recorded.acknowledged[&random.random_range(1..=ROWS)].0;
        chosen.insert(near.saturating_sub(random.random_range(0..3)).clamp(first, last));
        chosen.insert(random.random_range(first..=last));
    }
    let state = tempfile::tempdir().unwrap();
    let volume = Volume::open(state.path(), support::options()).unwrap();
    volume.found(CLUSTER).unwrap();
    let mut next = recorded.records.iter();
    for prefix in chosen {
        while volume.head().seq < Seq(prefix) {
            volume.receive(Epoch(1), next.next().unwrap()).unwrap();
        }
        let plain = tempfile::tempdir().unwrap();
        dump(&volume, plain.path());
        let needed = recorded.acknowledged.values().filter(|seq| seq.0 <= prefix).count() as u64;
        match holds(plain.path()) {
            Ok(rows) => assert!(
                rows >= needed && rows <= ROWS,
                "{store}, SEED={seed}, op {prefix}: {rows} rows, {needed} were acknowledged"
            ),
            Err(why) => panic!("{store}, SEED={seed}, op {prefix}: {why}"),
        }
    }
}

/// The volume as plain files.
fn dump(volume: &Volume, target: &Path) {
    volume.wait_applied(volume.head().seq).unwrap();
    let image = volume.image().unwrap();
    let nodes: BTreeMap<FileId, _> = image.nodes.iter().cloned().collect();
    let mut paths: BTreeMap<FileId, PathBuf> = BTreeMap::from([(FileId::ROOT, target.to_owned())]);
    let mut left: Vec<_> = image.entries.iter().collect();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|(parent, name, child)| {
            let Some(parent) = paths.get(parent) else { return true };
            let path = parent.join(std::str::from_utf8(name).unwrap());
            let of = &nodes[child];
            match &of.kind {
                Kind::Directory => std::fs::create_dir(&path).unwrap(),
                Kind::Symlink(to) => symlink(std::str::from_utf8(to).unwrap(), &path).unwrap(),
                Kind::File if paths.contains_key(child) => {
                    std::fs::hard_link(&paths[child], &path).unwrap();
                }
                Kind::File => {
                    let mut bytes = vec![0; of.size as usize];
                    volume.objects().read_at(*child, 0, &mut bytes).unwrap();
                    std::fs::write(&path, bytes).unwrap();
                    let mode = std::fs::Permissions::from_mode(of.mode.into());
                    std::fs::set_permissions(&path, mode).unwrap();
                }
                // A former process's socket.
                Kind::Fifo | Kind::Socket => {}
            }
            paths.entry(*child).or_insert(path);
            false
        });
        assert!(left.len() < before, "names that lead nowhere: {left:?}");
    }
}

/// Not a test of its own: the stores, in a process that may hang in the mount and be killed.
#[test]
fn child_that_stores() {
    let (Ok(store), Ok(dir)) = (std::env::var(CHILD), std::env::var(CHILD_DIR)) else { return };
    let dir = Path::new(&dir);
    let said = |row: u64| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "row {row}").and_then(|()| out.flush()).unwrap();
    };
    match store.as_str() {
        "sqlite-wal" => sqlite(dir, "WAL", said),
        "sqlite-rollback" => sqlite(dir, "DELETE", said),
        "journal-and-snapshot" => journal_and_snapshot(dir, said),
        "git" => git(dir, said),
        "redis" => redis(dir, said),
        other => panic!("{other}"),
    }
}

fn sqlite(dir: &Path, mode: &str, said: impl Fn(u64)) {
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

fn sqlite_holds(dir: &Path) -> Result<u64, String> {
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
    prove("sqlite-wal", sqlite_holds, 25);
}

#[test]
fn sqlite_in_rollback_mode_recovers_at_any_op() {
    prove("sqlite-rollback", sqlite_holds, 25);
}

/// As Prevayler does it: every command in a journal, and now and then all of them in a snapshot
/// that takes its place.
fn journal_and_snapshot(dir: &Path, said: impl Fn(u64)) {
    use std::fs::File;
    let sync_dir = || File::open(dir).unwrap().sync_all().unwrap();
    let mut journal = File::create(dir.join("journal.0")).unwrap();
    sync_dir();
    for row in 1..=ROWS {
        writeln!(journal, "{row} {:0>width$}.", row, width = (row * 131 % 5000) as usize).unwrap();
        journal.sync_data().unwrap();
        said(row);
        if row % 12 == 0 {
            let mut snapshot = File::create(dir.join("snapshot.next")).unwrap();
            (1..=row).for_each(|row| writeln!(snapshot, "{row}").unwrap());
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

fn journal_and_snapshot_holds(dir: &Path) -> Result<u64, String> {
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
    prove("journal-and-snapshot", journal_and_snapshot_holds, 60);
}

fn git_in(dir: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-c", "user.name=a", "-c", "user.email=a@localhost"])
        .args(["-c", "gc.auto=0", "-c", "core.fsync=all"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .current_dir(dir)
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("git {arguments:?}: {said}")),
    }
}

fn git(dir: &Path, said: impl Fn(u64)) {
    git_in(dir, &["init", "-q", "--bare", "-b", "main", "."]).unwrap();
    let mut parent: Option<String> = None;
    for row in 1..=ROWS {
        let tree = git_in(dir, &["write-tree"]).unwrap();
        let message = format!("row {row}");
        let mut arguments = vec!["commit-tree", &tree, "-m", &message];
        if let Some(parent) = &parent {
            arguments.extend(["-p", parent]);
        }
        let commit = git_in(dir, &arguments).unwrap();
        git_in(dir, &["update-ref", "refs/heads/main", &commit]).unwrap();
        parent = Some(commit);
        said(row);
        if row % 25 == 0 {
            git_in(dir, &["gc", "-q", "--prune=now"]).unwrap();
        }
    }
}

fn git_holds(dir: &Path) -> Result<u64, String> {
    git_in(dir, &["fsck", "--full", "--no-dangling"])?;
    let count = git_in(dir, &["rev-list", "--count", "main"])?;
    count.parse().map_err(|_| count)
}

#[test]
fn git_recovers_at_any_op_also_while_it_packs() {
    if Command::new("git").arg("--version").output().is_err() {
        rig::skipped("git_recovers", "git is not installed");
        return;
    }
    prove("git", git_holds, 12);
}

/// A server that ends when this is dropped.
struct Redis {
    _server: Killed,
    stream: UnixStream,
    _dir: tempfile::TempDir,
}

impl Redis {
    fn start(data: &Path) -> Result<Redis, String> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("redis.sock");
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            .args(["--aof-load-truncated", "yes", "--auto-aof-rewrite-percentage", "0"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut server = Killed(server);
        let begun = Instant::now();
        loop {
            if let Ok(Some(status)) = server.0.try_wait() {
                return Err(format!("redis ended: {status}"));
            }
            if let Ok(stream) = UnixStream::connect(&socket) {
                let mut redis = Redis { _server: server, stream, _dir: dir };
                while redis.ask("PING")?.starts_with("-LOADING") {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return Ok(redis);
            }
            if begun.elapsed() > rig::PATIENCE {
                return Err("redis does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One inline command with a one-line answer.
    fn ask(&mut self, command: &str) -> Result<String, String> {
        let failed = |error: std::io::Error| error.to_string();
        self.stream.write_all(format!("{command}\r\n").as_bytes()).map_err(failed)?;
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n") {
            self.stream.read_exact(&mut byte).map_err(failed)?;
            answer.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&answer).trim().to_owned())
    }
}

fn redis(dir: &Path, said: impl Fn(u64)) {
    let mut redis = Redis::start(dir).unwrap();
    for row in 1..=ROWS {
        assert_eq!(redis.ask(&format!("RPUSH rows {row}")).unwrap(), format!(":{row}"));
        said(row);
        if row % 20 == 0 {
            redis.ask("BGREWRITEAOF").unwrap();
        }
    }
}

fn redis_holds(dir: &Path) -> Result<u64, String> {
    let mut redis = Redis::start(dir)?;
    let length = redis.ask("LLEN rows")?;
    length.trim_start_matches(':').parse().map_err(|_| length)
}

#[test]
fn redis_recovers_at_any_op_also_while_it_rewrites() {
    if Command::new("redis-server").arg("--version").output().is_err() {
        rig::skipped("redis_recovers", "redis is not installed");
        return;
    }
    prove("redis", redis_holds, 10);
}
