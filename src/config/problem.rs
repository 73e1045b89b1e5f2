//! What is wrong with a configuration: all of it at once, each with its cause and its fix.

use std::fmt;
use std::path::PathBuf;

use super::document::without_password;
use super::schema::{Key, SCHEMA, env_name};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration file.
    File(PathBuf),
    /// This environment variable.
    Env(String),
    /// The command line.
    CommandLine,
    /// Nowhere: it is missing, or a default.
    Nowhere,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => write!(f, "{}: ", path.display()),
            Source::Env(name) => write!(f, "environment {name}: "),
            Source::CommandLine => f.write_str("command line: "),
            Source::Nowhere => Ok(()),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub source: Source,
    /// What is wrong, naming the key and its value.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl Problem {
    pub(super) fn unknown(source: Source, path: &str) -> Problem {
        let fix = match nearest(path) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "remove it; `mainstay config schema` lists every key".to_owned(),
        };
        Problem { source, what: format!("`{path}` is not a key that is known"), fix }
    }

    pub(super) fn bad_value(
        source: Source,
        path: &str,
        key: &Key,
        value: &str,
        why: &str,
    ) -> Problem {
        let value = if key.secret { "(not shown)".to_owned() } else { without_password(value) };
        let what = format!("`{path}` is {value}: it {why}");
        Problem { source, what, fix: format!("give {}", key.kind.accepted()) }
    }

    pub(super) fn missing(key: &Key, example: &str) -> Problem {
        let what = format!("`{}` is missing", key.path);
        let fix = format!("set `{} = {example}` or {}", key.path, env_name(key.path));
        Problem { source: Source::Nowhere, what, fix }
    }
}

/// Every problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let line = if n == 0 { "" } else { "\n" };
            write!(f, "{line}{}{} ({})", problem.source, problem.what, problem.fix)?;
        }
        Ok(())
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        ConfigError { problems: vec![problem] }
    }
}

/// The known key that `path` most likely was meant to be.
fn nearest(path: &str) -> Option<&'static str> {
    let last = |path: &str| path.rsplit('.').next().map(str::to_owned);
    let misplaced = SCHEMA.iter().find(|key| last(key.path) == last(path) && !key.secret);
    let spelled = SCHEMA
        .iter()
        .map(|key| (distance(key.path, path), key.path))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4);
    spelled.map(|(_, known)| known).or(misplaced.map(|key| key.path))
}

/// How many letters must be added, dropped, replaced to get from one to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}
