//! The `mainstay` command.

use std::process::ExitCode;

use mainstay::{cli, supervise};

mod wiring;

fn main() -> ExitCode {
    // The processes that are this program under another name: small, and not to be disturbed by
    // a configuration or a log.
    let mut words = std::env::args().skip(1);
    match (words.next().as_deref(), words.next()) {
        (Some(supervise::INIT_COMMAND), Some(spec)) => return supervise::run_init(&spec),
        (Some(supervise::FENCER_COMMAND), Some(daemon)) => {
            return supervise::run_fencer(&daemon, &words.collect::<Vec<_>>());
        }
        _ => {}
    }
    if let Some(code) = supervise::as_first_process() {
        return code;
    }
    cli::main(std::env::args_os(), &wiring::Wiring)
}
