//! The service's processes, with real ones: what is started ends, whatever it does.

mod support;

use std::path::Path;
use std::time::Duration;

use mainstay::supervise::fencer::boot_time;
use mainstay::supervise::{Fencer, Service, Spec, SuperviseError, Watchdog};
use mainstay_chaos::live::process::is_alive;
use mainstay_chaos::live::{PATIENCE, until};
use rustix::process::Signal;
use support::{binary, can_run};

fn shell(script: &str) -> Spec {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    Spec { command, user: None, workdir: "/".into() }
}

fn fencer() -> Fencer {
    Fencer::start(&binary(), None).expect("the fencer starts")
}

/// The content of `path`, once there is one.
async fn written(path: &Path) -> String {
    until("the file to be written", PATIENCE, Duration::from_millis(20), async || {
        let text = std::fs::read_to_string(path).ok()?;
        text.ends_with('\n').then(|| text.trim().to_owned())
    })
    .await
    .unwrap_or_else(|error| panic!("{}: {error:#}", path.display()))
}

/// The pid, in this namespace, of the process that runs `sleep <marker>`.
fn sleeper(marker: &str) -> Option<i32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        (line == format!("sleep\0{marker}\0").as_bytes()).then_some(pid)
    })
}

async fn running(marker: &str) -> i32 {
    until("the sleeper", PATIENCE, Duration::from_millis(20), async || sleeper(marker))
        .await
        .unwrap_or_else(|error| panic!("{error:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_leaves_nothing_even_of_what_left_its_group_and_session() {
    if !can_run("a_kill_leaves_nothing_even_of_what_left_its_group_and_session") {
        return;
    }
    let fencer = fencer();
    // Two forks and a session of its own: what a daemon does to get away.
    let script = "(setsid setsid sleep 86399.25 &) & exec sleep 86399.5";
    let service = Service::start(&shell(script), &fencer).await.expect("it starts");
    let pids = [running("86399.25").await, running("86399.5").await];
    service.kill();
    service.ended().await;
    assert_eq!(pids.map(is_alive), [false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_service_kills_it() {
    if !can_run("dropping_a_service_kills_it") {
        return;
    }
    let fencer = fencer();
    let service = Service::start(&shell("exec sleep 86398.5"), &fencer).await.expect("it starts");
    let pid = running("86398.5").await;
    drop(service);
    until("its end", PATIENCE, Duration::from_millis(20), async || (!is_alive(pid)).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_the_commands_own() {
    if !can_run("the_exit_code_is_the_commands_own") {
        return;
    }
    let fencer = fencer();
    let service = Service::start(&shell("exit 3"), &fencer).await.expect("it starts");
    assert_eq!(service.ended().await.to_string(), "exit code 3");
    let service = Service::start(&shell("kill -KILL $$"), &fencer).await.expect("it starts");
    assert_eq!(service.ended().await.to_string(), "signal 9");
    let service = Service::start(&shell("exit 0"), &fencer).await.expect("it starts");
    assert!(service.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_signal_reaches_the_command_and_grace_is_bounded() {
    if !can_run("a_stop_signal_reaches_the_command_and_grace_is_bounded") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let fencer = fencer();
    let up = folder.path().join("up");
    let script =
        format!("trap 'exit 7' INT; echo up >{}; while :; do sleep 0.1; done", up.display());
    let service = Service::start(&shell(&script), &fencer).await.expect("it starts");
    written(&up).await;
    let exit = service.stop(Signal::INT, PATIENCE).await;
    assert_eq!(exit.to_string(), "exit code 7");

    let deaf = folder.path().join("deaf");
    let script = format!("trap '' INT; echo up >{}; while :; do sleep 0.1; done", deaf.display());
    let service = Service::start(&shell(&script), &fencer).await.expect("it starts");
    written(&deaf).await;
    let exit = service.stop(Signal::INT, Duration::from_millis(300)).await;
    assert!(!exit.success(), "{exit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_runs_as_its_user_with_its_groups_and_home() {
    if !can_run("the_command_runs_as_its_user_with_its_groups_and_home") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    std::fs::write(&out, "").expect("a file");
    let owner = |path: &Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    owner(folder.path(), 0o755);
    owner(&out, 0o666);
    let mut spec = shell(&format!("echo $(id -un) $(id -Gn) $HOME >{}", out.display()));
    spec.user = Some("nobody".to_owned());
    let fencer = fencer();
    let service = Service::start(&spec, &fencer).await.expect("it starts");
    assert!(service.ended().await.success());
    assert_eq!(written(&out).await, "nobody nogroup /nonexistent");

    std::fs::write(&out, "").expect("a file");
    spec.user = Some("54321:54322".to_owned());
    spec.command[2] = format!("echo $(id -u) $(id -g) $(id -G) $HOME >{}", out.display());
    let service = Service::start(&spec, &fencer).await.expect("it starts");
    assert!(service.ended().await.success());
    assert_eq!(written(&out).await, "54321 54322 54322 /");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_starts_where_it_should_and_is_told_no_secret() {
    if !can_run("the_command_starts_where_it_should_and_is_told_no_secret") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let mut spec = shell("echo $(pwd) ${MAINSTAY_SECRET-none} >out");
    spec.workdir = folder.path().to_owned();
    let mut command = std::process::Command::new(binary());
    command.env("MAINSTAY_SECRET", "ms1-secret").arg("service-init");
    let mut init = command
        .arg(serde_json::to_string(&spec).expect("JSON"))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    assert_eq!(written(&out).await, format!("{} none", folder.path().display()));
    init.wait().expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_is_named_before_anything_runs() {
    let spec = Spec { command: vec!["/no/such/program".to_owned()], ..shell("") };
    let error = spec.check().expect_err("it is not there");
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    let spec = Spec { command: vec!["no-such-program".to_owned()], ..shell("") };
    let error = spec.check().expect_err("it is not there");
    assert!(error.to_string().contains("PATH="), "{error}");
    let mut spec = shell("true");
    spec.user = Some("no-such-user".to_owned());
    assert!(matches!(spec.check(), Err(SuperviseError::NoUser(user)) if user == "no-such-user"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_is_moved_in_time_kills_nobody() {
    if !can_run("a_deadline_that_is_moved_in_time_kills_nobody") {
        return;
    }
    let fencer = fencer();
    let service = Service::start(&shell("exec sleep 86397.5"), &fencer).await.expect("it starts");
    let pid = running("86397.5").await;
    // Far enough that a busy machine does not miss it: the one that it would kill is this test.
    fencer.deadline(Some(boot_time() + Duration::from_secs(120))).await.expect("it answers");
    fencer.deadline(None).await.expect("it answers");
    assert!(is_alive(pid));
    service.kill();
    service.ended().await;
}

/// The fencer's own process, against a stand-in for the daemon that it may really kill.
#[test]
fn a_missed_deadline_kills_a_stopped_daemon_and_its_service() {
    if !can_run("a_missed_deadline_kills_a_stopped_daemon_and_its_service") {
        return;
    }
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    let mut service = Command::new("sleep").arg("86396.5").spawn().expect("a stand-in");
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    // The stand-in starts the fencer as its own child, as the daemon does, and then stops.
    let script = format!("exec 3<&0; {} fencer $$ <&3 & kill -STOP $$", binary().display());
    let mut daemon = Command::new("bash")
        .args(["-c", &script])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("a stand-in");
    let mut message = |kind: u64, value: u64| {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(value.to_le_bytes());
        ours.write_all(&bytes).expect("the fencer reads");
        std::io::Read::read_exact(&mut ours, &mut [0]).expect("the fencer answers");
    };
    message(2, u64::from(service.id()));
    message(1, u64::try_from((boot_time() + Duration::from_millis(200)).as_nanos()).expect("fits"));
    use std::os::unix::process::ExitStatusExt;
    let ended = [daemon.wait().expect("it ends"), service.wait().expect("it ends")];
    assert_eq!(ended.map(|status| status.signal()), [Some(9), Some(9)]);
}

/// A file stands in for the device: it has no timeout to set, but shows what is written.
#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_put_off_while_there_is_a_deadline_and_disarmed_after() {
    if !can_run("the_watchdog_is_put_off_while_there_is_a_deadline_and_disarmed_after") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("watchdog");
    std::fs::write(&path, "").expect("a file");
    let watchdog = Watchdog { path: path.clone(), margin: Duration::from_secs(3) };
    let fencer = Fencer::start(&binary(), Some(watchdog)).expect("the fencer starts");
    let read = || std::fs::read(&path).expect("the file");
    let step = Duration::from_millis(20);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(read(), b"", "not armed before there is a deadline");
    let far = boot_time() + Duration::from_secs(600);
    fencer.deadline(Some(far)).await.expect("the fencer answers");
    until("it to be put off", PATIENCE, step, async || (read().len() > 4).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert!(read().iter().all(|byte| *byte == 0));
    fencer.deadline(None).await.expect("the fencer answers");
    assert_eq!(read().last(), Some(&b'V'), "disarmed");
    let length = read().len();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(read().len(), length, "and left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_watchdog_that_was_asked_for_nobody_is_guarded() {
    if !can_run("without_the_watchdog_that_was_asked_for_nobody_is_guarded") {
        return;
    }
    let path = Path::new("/nowhere/watchdog").to_owned();
    let watchdog = Watchdog { path, margin: Duration::from_secs(3) };
    let fencer = Fencer::start(&binary(), Some(watchdog)).expect("the fencer starts");
    let far = boot_time() + Duration::from_secs(600);
    fencer.deadline(Some(far)).await.expect_err("it cannot guard as it was asked to");
}
