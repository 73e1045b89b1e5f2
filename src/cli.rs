//! The command line: what can be asked for, and how it is answered.
//!
//! It reads the configuration and hands what it means to [`Actions`], which `main.rs` gives. So
//! the parts that this knows nothing of (volumes, elections, the proxy) stay out of it, and the
//! words that operators read can be tested by themselves.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches};

use crate::config::{ConfigError, Document};
use crate::telemetry;

mod actions;
mod arguments;
mod bars;
mod complaint;
mod config_commands;
mod emergency;
mod observe;
mod switchover;
mod verify;

pub use actions::{Actions, Offline, QuarantineTask};
pub use bars::FilesBar;
pub use complaint::Complaint;

use arguments::{Arguments, Command, ConfigCommand, QuarantineCommand, SecretCommand};

/// The name below `requests/` of the wish to compare contents.
pub(crate) const VERIFY: &str = "verify";

/// The environment variable that names the configuration file.
pub const CONFIG_ENV: &str = "MAINSTAY_CONFIG";

/// Runs one command line and says how to exit: 0 done, 1 failed, 2 wrong usage or configuration,
/// 3 (`status` only) the service is down.
pub fn main(words: impl IntoIterator<Item = OsString>, actions: &dyn Actions) -> ExitCode {
    match try_main(words, actions) {
        Ok(code) => code,
        Err(complaint) => {
            let _ = std::io::stderr().write_all(complaint.to_string().as_bytes());
            ExitCode::from(complaint.code())
        }
    }
}

fn try_main(
    words: impl IntoIterator<Item = OsString>,
    actions: &dyn Actions,
) -> Result<ExitCode, Complaint> {
    let matches = match Arguments::command().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => {
            say(&error.render().to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(Complaint::usage(&error)),
    };
    let arguments =
        Arguments::from_arg_matches(&matches).map_err(|error| Complaint::usage(&error))?;
    telemetry::init(arguments.log_format).map_err(|bad| Complaint::misuse(bad.to_string()))?;
    let config = arguments.config.or_else(|| std::env::var_os(CONFIG_ENV).map(PathBuf::from));
    perform(arguments.command, &Files { config }, actions)
}

/// Where the configuration is read from.
#[derive(Clone)]
struct Files {
    config: Option<PathBuf>,
}

impl Files {
    fn document(&self) -> Result<Document, Complaint> {
        Ok(self.load()?)
    }

    fn load(&self) -> Result<Document, ConfigError> {
        let env = std::env::vars_os();
        let env = env.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let document = Document::load(self.config.as_deref(), env)?;
        for warning in &document.warnings {
            tracing::warn!("{warning}");
        }
        Ok(document)
    }
}

fn perform(command: Command, files: &Files, actions: &dyn Actions) -> Result<ExitCode, Complaint> {
    match command {
        Command::Run { command } => {
            let mut document = files.document()?;
            if !command.is_empty() {
                document.set_command(command.clone());
            }
            let again = files.clone();
            let reload = move || {
                let mut document = again.load()?;
                if !command.is_empty() {
                    document.set_command(command.clone());
                }
                Ok(document.run()?.ambassador)
            };
            return actions.run(document.run()?, Arc::new(reload));
        }
        Command::Ambassador { take_over } => {
            let config = files.document()?.ambassador()?;
            let again = files.clone();
            let reload = move || again.load()?.ambassador().map(Some);
            return actions.ambassador(config, Arc::new(reload), take_over);
        }
        Command::Status { json, watch } => {
            return observe::status(&files.document()?.cluster()?, json, watch);
        }
        Command::Switchover { cancel: true, .. } => {
            say(&switchover::cancel(&files.document()?.cluster()?)?)?;
        }
        Command::Switchover { to, at, no_wait, .. } => {
            switchover::ask(&files.document()?.cluster()?, to, at, !no_wait)?;
        }
        Command::Pause { reason } => {
            say(&observe::pause(&files.document()?.cluster()?, reason)?)?;
        }
        Command::Resume => say(&observe::resume(&files.document()?.cluster()?)?)?,
        Command::Verify { no_wait } => {
            return verify::ask(&files.document()?.cluster()?, !no_wait);
        }
        Command::Failover { to, allow_data_loss, yes } => {
            emergency::failover(&files.document()?.cluster()?, &to, allow_data_loss, yes)?;
        }
        Command::Degrade { yes } => emergency::degrade(&files.document()?.cluster()?, yes)?,
        Command::Recover { from, yes } => {
            emergency::recover(&files.document()?.cluster()?, &from, yes)?;
        }
        Command::Secret(SecretCommand::New) => say(&format!("{}\n", actions.new_secret()?))?,
        Command::Config(ConfigCommand::Check) => {
            files.document()?.run()?;
            say("the configuration is complete and can be run\n")?;
        }
        Command::Config(ConfigCommand::Show) => say(&files.document()?.show())?,
        Command::Config(ConfigCommand::Schema) => say(&config_commands::schema())?,
        Command::Import { from } => offline(files, actions, Offline::Import { from })?,
        Command::Export { to } => offline(files, actions, Offline::Export { to })?,
        Command::Fsck { repair } => offline(files, actions, Offline::Fsck { repair })?,
        Command::Quarantine(task) => {
            let task = match task {
                QuarantineCommand::List => QuarantineTask::List,
                QuarantineCommand::Show { name } => QuarantineTask::Show { name },
                QuarantineCommand::Export { name, to } => QuarantineTask::Export { name, to },
                QuarantineCommand::Drop { name } => QuarantineTask::Drop { name },
            };
            offline(files, actions, Offline::Quarantine(task))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn offline(files: &Files, actions: &dyn Actions, task: Offline) -> Result<(), Complaint> {
    let state_dir = files.document()?.state_dir()?;
    say(&actions.offline(&state_dir, task)?)
}

/// Prints to standard output. Whoever reads it may stop reading: that is no failure.
fn say(text: &str) -> Result<(), Complaint> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Complaint::failure(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
