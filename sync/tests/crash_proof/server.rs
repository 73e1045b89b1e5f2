//! Database servers as users of their own, and their clients.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::prove::Killed;
use crate::rig;

/// A user's and group's number.
pub fn user_of(name: &str) -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// `program` as that user, with nothing of ours.
pub fn command(program: impl AsRef<Path>, user: (u32, u32)) -> Command {
    let mut command = Command::new(program.as_ref());
    command.uid(user.0).gid(user.1).current_dir("/").env("LC_ALL", "C").env("HOME", "/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<String, String> {
    let made = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let made = made.map_err(|error| error.to_string())?;
    match made.status.success() {
        true => Ok(String::from_utf8_lossy(&made.stdout).trim().to_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&made.stderr))),
    }
}

/// Starts a server and waits until `answers`; `log` is what it says meanwhile.
pub fn start(
    command: &mut Command,
    log: &Path,
    mut answers: impl FnMut() -> bool,
) -> Result<Killed, String> {
    let said = std::fs::File::create(log).unwrap();
    command.stdout(said.try_clone().unwrap()).stderr(said);
    let mut server = Killed(command.spawn().map_err(|error| error.to_string())?);
    let begun = Instant::now();
    while !answers() {
        if let Ok(Some(status)) = server.0.try_wait() {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            return Err(format!("the server ended with {status}: {said}"));
        }
        if begun.elapsed() > rig::PATIENCE {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            return Err(format!("the server does not answer: {said}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

/// Feeds `script` to a client whose output is ours, and waits for its success.
pub fn feed(client: &mut Command, script: &str) {
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::inherit()).spawn().unwrap();
    // A client that gives up early says why by itself.
    let _ = client.stdin.take().unwrap().write_all(script.as_bytes());
    let ended = client.wait().unwrap();
    assert!(ended.success(), "the client ended with {ended}");
}
