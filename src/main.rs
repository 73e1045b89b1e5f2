//! The `mainstay` command.

use std::process::ExitCode;

use mainstay::supervise;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    // The processes that are this program under another name must not load a configuration.
    match arguments.get(1..).unwrap_or_default() {
        [command, spec] if command == supervise::INIT_COMMAND => supervise::run_init(spec),
        [command, daemon] if command == supervise::FENCER_COMMAND => supervise::run_fencer(daemon),
        _ => ExitCode::FAILURE,
    }
}
