//! What the daemon says while it runs: to standard error, as text or JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub mod metrics;

/// The environment variable that says how much is told, such as `debug` or
/// `info,mainstay_sync=trace`.
pub const LEVEL_ENV: &str = "MAINSTAY_LOG";

/// How each line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// A level that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{LEVEL_ENV} is {given:?}: {cause}; use error, warn, info, debug or trace")]
pub struct BadLevel {
    given: String,
    cause: tracing_subscriber::filter::ParseError,
}

/// Begins to tell. Once in a process; later calls change nothing.
///
/// # Errors
/// [`BadLevel`].
pub fn init(format: LogFormat) -> Result<(), BadLevel> {
    let given = std::env::var(LEVEL_ENV).unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&given).map_err(|cause| BadLevel { given, cause })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
