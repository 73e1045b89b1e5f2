//! The processes that are this program under another command: the service's init and the fencer,
//! and the daemon's own stand-in when it is a container's first process.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};

use super::account::Account;
pub use super::fencer::run_fencer;
use super::spec::Spec;

/// The hidden command under which this program is a service's init.
pub const INIT_COMMAND: &str = "service-init";
/// The hidden command under which this program is the fencer.
pub const FENCER_COMMAND: &str = "fencer";

/// What a shell would exit with when the program cannot be run.
const CANNOT_RUN: u8 = 127;

/// PID 1 of the service's namespace: runs the command of `spec` (JSON), passes signals on to it,
/// reaps what it leaves behind, and ends when it ends, or as soon as standard input does, which is
/// when the daemon is gone. With its end the kernel kills whatever else is in the namespace.
#[must_use]
pub fn run_init(spec: &str) -> ExitCode {
    let Ok(spec) = serde_json::from_str::<Spec>(spec) else {
        return say(&format!("not a service's description: {spec}"));
    };
    // Nobody else writes to this pipe or holds its other end: the end of the daemon is the end of
    // the pipe, whatever killed it.
    std::thread::spawn(|| {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(i32::from(CANNOT_RUN));
    });
    match command(&spec).map_err(|error| error.to_string()).and_then(start) {
        Ok(child) => attend(&child),
        Err(why) => say(&why),
    }
}

/// As a container's first process: runs this program again as a child, passes signals on and reaps
/// orphans, so that the daemon's own children can be waited for without a stranger in between.
/// `None` if this is not the first process, or is the child already.
#[must_use]
pub fn as_first_process() -> Option<ExitCode> {
    if rustix::process::getpid() != Pid::INIT {
        return None;
    }
    let mut again = Command::new("/proc/self/exe");
    again.args(std::env::args_os().skip(1));
    Some(match start(again) {
        Ok(child) => attend(&child),
        Err(why) => say(&why),
    })
}

fn command(spec: &Spec) -> Result<Command, super::SuperviseError> {
    let program = spec.program()?;
    let mut command = Command::new(&program);
    command.args(&spec.command[1..]).arg0(&spec.command[0]).stdin(Stdio::null());
    let account = spec.user.as_deref().map(Account::of).transpose()?;
    if let Some(account) = &account {
        command.env("USER", &account.name).env("LOGNAME", &account.name);
        command.env("HOME", &account.home).env("SHELL", &account.shell);
    }
    let prepare = move || {
        reset_signals();
        // A session of its own: no terminal, and no signals meant for the daemon's group.
        rustix::process::setsid()?;
        account.as_ref().map_or(Ok(()), Account::assume)
    };
    // SAFETY: between fork and exec only system calls are made; nothing is allocated, since the
    // account was looked up before.
    unsafe { command.pre_exec(prepare) };
    Ok(command)
}

/// All signals to their defaults: what our parent ignored would otherwise be ignored by the
/// service too, and a shell cannot even trap what was ignored when it started.
fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: setting a disposition to its default runs no code of ours; numbers that do not
        // exist or cannot be set are refused by the kernel.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn start(mut command: Command) -> Result<Child, String> {
    command.spawn().map_err(|error| {
        format!("{} cannot be run: {error}", command.get_program().to_string_lossy())
    })
}

enum Event {
    Ended(WaitStatus),
    Signal(Signal),
}

/// Passes signals on and reaps until `child` ends, and ends as it did.
fn attend(child: &Child) -> ExitCode {
    let child = Pid::from_child(child);
    let (sender, events) = mpsc::channel();
    let signals = sender.clone();
    std::thread::spawn(move || pass_signals(&signals));
    std::thread::spawn(move || {
        // Every child, also the orphans that the kernel gives to a PID 1.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::empty()) {
            if pid == child {
                let _ = sender.send(Event::Ended(status));
                return;
            }
        }
    });
    loop {
        match events.recv() {
            Ok(Event::Ended(status)) => return exit_code(status),
            Ok(Event::Signal(signal)) => {
                let _ = kill_process(child, signal);
            }
            Err(mpsc::RecvError) => return ExitCode::FAILURE,
        }
    }
}

fn pass_signals(events: &mpsc::Sender<Event>) {
    use tokio::signal::unix::{SignalKind, signal};
    let passed = [
        (Signal::TERM, SignalKind::terminate()),
        (Signal::INT, SignalKind::interrupt()),
        (Signal::QUIT, SignalKind::quit()),
        (Signal::HUP, SignalKind::hangup()),
        (Signal::USR1, SignalKind::user_defined1()),
        (Signal::USR2, SignalKind::user_defined2()),
    ];
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for (number, kind) in passed {
            let (Ok(mut stream), events) = (signal(kind), events.clone()) else { continue };
            tasks.spawn(async move {
                while stream.recv().await.is_some() && events.send(Event::Signal(number)).is_ok() {}
            });
        }
        while tasks.join_next().await.is_some() {}
    });
}

fn exit_code(status: WaitStatus) -> ExitCode {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[allow(clippy::print_stderr, reason = "there is no other way out of a process this small")]
fn say(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(CANNOT_RUN)
}
