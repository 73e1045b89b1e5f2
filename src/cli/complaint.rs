//! What is said when something cannot be done: what, and what to do about it.

use std::fmt;

use crate::config::ConfigError;

/// Why a command failed, as `error: …` and `  fix: …` lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    lines: Vec<(String, Option<String>)>,
    code: u8,
}

const FAILED: u8 = 1;
const MISUSED: u8 = 2;

impl Complaint {
    /// It was asked rightly, but failed.
    #[must_use]
    pub fn failure(what: impl Into<String>) -> Complaint {
        Complaint { lines: vec![(what.into(), None)], code: FAILED }
    }

    /// It was asked wrongly.
    #[must_use]
    pub fn misuse(what: impl Into<String>) -> Complaint {
        Complaint { lines: vec![(what.into(), None)], code: MISUSED }
    }

    /// With what to do about it.
    #[must_use]
    pub fn with_fix(mut self, fix: impl Into<String>) -> Complaint {
        if let Some((_, last)) = self.lines.last_mut() {
            *last = Some(fix.into());
        }
        self
    }

    /// The exit code that goes with it.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }

    /// What clap says, in our form: its first paragraph, and its tip if it has one.
    pub(super) fn usage(error: &clap::Error) -> Complaint {
        let text = error.render().to_string();
        let mut paragraphs = text.split("\n\n");
        let what = paragraphs.next().unwrap_or_default();
        let what = what.trim_start_matches("error: ").trim_end();
        let what = what.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
        let fix = tip.map_or_else(
            || "see `mainstay --help`, or a command's own --help".to_owned(),
            str::to_owned,
        );
        if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            return Complaint::misuse("no command is given").with_fix(fix);
        }
        Complaint::misuse(what).with_fix(fix)
    }
}

impl From<ConfigError> for Complaint {
    fn from(error: ConfigError) -> Self {
        let line = |problem: crate::config::Problem| {
            (format!("{}{}", problem.source, problem.what), Some(problem.fix))
        };
        Complaint { lines: error.problems.into_iter().map(line).collect(), code: MISUSED }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, fix) in &self.lines {
            writeln!(f, "error: {what}")?;
            if let Some(fix) = fix {
                writeln!(f, "  fix: {fix}")?;
            }
        }
        Ok(())
    }
}
