//! The `mainstay` command.

use std::process::ExitCode;

use mainstay::{cli, supervise};

mod wiring;

fn main() -> ExitCode {
    // Before anything else: a fencer is small and has one thread, and PID 1 only reaps.
    if std::env::args_os().nth(1).is_some_and(|word| word == supervise::FENCER_ARGUMENT) {
        return supervise::fencer_main();
    }
    if let Some(code) = supervise::reaper::run_if_pid_1() {
        return code;
    }
    supervise::accept_children();
    cli::main(std::env::args_os(), &wiring::Wiring)
}
