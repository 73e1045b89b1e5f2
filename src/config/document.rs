//! The values of one configuration, gathered from file, environment and command line, each checked
//! against the schema. What they mean together is [`super::types`]' concern.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::kind::Value;
use super::problem::{ConfigError, Problem, Source};
use super::schema::{self, ENV_PREFIX, ENV_RESERVED, Key};

/// Values by path, from wherever they came; later sources win: file, environment, command line.
#[derive(Clone, Debug, Default)]
pub struct Document {
    values: BTreeMap<String, (Value, Source)>,
    /// What an operator should hear but what stops nothing.
    pub warnings: Vec<String>,
}

impl Document {
    /// Reads `file` (if given) and `env`.
    ///
    /// # Errors
    /// Everything that is wrong in either, at once.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Document, ConfigError> {
        let mut document = Document::default();
        let mut problems = Vec::new();
        if let Some(path) = file {
            document.take_file(path, &mut problems)?;
        }
        document.take_env(env, &mut problems);
        if problems.is_empty() { Ok(document) } else { Err(ConfigError { problems }) }
    }

    /// Sets the service's command to what stands after `--`.
    pub fn set_command(&mut self, words: Vec<String>) {
        self.values
            .insert("process.command".to_owned(), (Value::Words(words), Source::CommandLine));
    }

    fn take_file(&mut self, path: &Path, problems: &mut Vec<Problem>) -> Result<(), ConfigError> {
        let source = Source::File(path.to_owned());
        let text = std::fs::read_to_string(path).map_err(|error| Problem {
            source: source.clone(),
            what: format!("cannot be read: {error}"),
            fix: "name a readable file with --config, or leave it out and use the environment"
                .to_owned(),
        })?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| Problem {
            source: source.clone(),
            what: format!("is not TOML: {}", error.to_string().trim_end()),
            fix: "correct that line".to_owned(),
        })?;
        self.take_table("", &table, &source, problems);
        Ok(())
    }

    fn take_table(
        &mut self,
        prefix: &str,
        table: &toml::Table,
        source: &Source,
        problems: &mut Vec<Problem>,
    ) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match (schema::find(&path), value) {
                (Some(key), _) if key.secret => problems.push(Problem {
                    source: source.clone(),
                    what: format!("`{path}` is not taken from a file"),
                    fix: format!("use {} or `secret_file`", key.env()),
                }),
                (Some(key), value) => {
                    self.take(&path, key, key.kind.read(value), value, problems, source)
                }
                (None, toml::Value::Table(inner)) if schema::is_table(&path) => {
                    self.take_table(&path, inner, source, problems);
                }
                (None, toml::Value::Array(items)) if schema::is_table(&format!("{path}.0")) => {
                    for (n, item) in items.iter().enumerate() {
                        match item {
                            toml::Value::Table(inner) => {
                                self.take_table(&format!("{path}.{n}"), inner, source, problems);
                            }
                            _ => problems.push(not_a_table(source, &path)),
                        }
                    }
                }
                (None, _) if schema::is_table(&path) => problems.push(not_a_table(source, &path)),
                (None, _) => problems.push(Problem::unknown(source.clone(), &path)),
            }
        }
    }

    fn take(
        &mut self,
        path: &str,
        key: &Key,
        read: Result<Value, String>,
        shown: &toml::Value,
        problems: &mut Vec<Problem>,
        source: &Source,
    ) {
        match read {
            Ok(value) => drop(self.values.insert(path.to_owned(), (value, source.clone()))),
            Err(why) => problems.push(Problem::bad_value(
                source.clone(),
                path,
                key,
                &shown.to_string(),
                &why,
            )),
        }
    }

    /// A variable of ours that is no key is only warned of: Kubernetes sets `MAINSTAY_PORT` and
    /// the like wherever a service of the name `mainstay` exists.
    fn take_env(
        &mut self,
        env: impl IntoIterator<Item = (String, String)>,
        problems: &mut Vec<Problem>,
    ) {
        let ours = env.into_iter().filter(|(name, _)| {
            name.starts_with(ENV_PREFIX) && !ENV_RESERVED.contains(&name.as_str())
        });
        // By name, so that messages come in the same order each time.
        for (name, text) in ours.collect::<BTreeMap<_, _>>() {
            let path = name[ENV_PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            let source = Source::Env(name.clone());
            match schema::find(&path) {
                Some(key) => {
                    let shown = toml::Value::String(text.clone());
                    self.take(&path, key, key.kind.read_text(&text), &shown, problems, &source);
                }
                None => {
                    let problem = Problem::unknown(source, &path);
                    self.warnings
                        .push(format!("{name} is ignored: {}: {}", problem.what, problem.fix));
                }
            }
        }
    }

    /// The value at `path`: what was given, else the default.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<Value> {
        let given = self.values.get(path).map(|(value, _)| value.clone());
        given.or_else(|| {
            let key = schema::find(path)?;
            let default = key.default?;
            Some(key.kind.read_text(default).expect("a test reads every default"))
        })
    }

    /// Whether something was given at `path` or below it.
    #[must_use]
    pub fn is_given(&self, path: &str) -> bool {
        let below = format!("{path}.");
        self.values.keys().any(|key| key == path || key.starts_with(&below))
    }

    /// Where the value at `path` came from.
    #[must_use]
    pub fn source(&self, path: &str) -> Source {
        self.values.get(path).map_or(Source::Nowhere, |(_, source)| source.clone())
    }

    /// How many tables stand in the array at `path`.
    #[must_use]
    pub fn indexes(&self, path: &str) -> BTreeSet<usize> {
        let below = format!("{path}.");
        let rest = self.values.keys().filter_map(|key| key.strip_prefix(&below));
        rest.filter_map(|rest| rest.split('.').next()?.parse().ok()).collect()
    }

    /// The text at `path`.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        match self.value(path)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The path at `path`.
    #[must_use]
    pub fn path(&self, path: &str) -> Option<PathBuf> {
        self.text(path).map(PathBuf::from)
    }

    /// The words at `path`.
    #[must_use]
    pub fn words(&self, path: &str) -> Option<Vec<String>> {
        match self.value(path)? {
            Value::Words(words) => Some(words),
            _ => None,
        }
    }

    /// The time span at `path`.
    #[must_use]
    pub fn duration(&self, path: &str) -> Option<Duration> {
        match self.value(path)? {
            Value::Duration(span) => Some(span),
            _ => None,
        }
    }

    /// The size at `path`, in bytes.
    #[must_use]
    pub fn size(&self, path: &str) -> Option<u64> {
        match self.value(path)? {
            Value::Size(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The number at `path`.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<i64> {
        match self.value(path)? {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The yes or no at `path`.
    #[must_use]
    pub fn bool(&self, path: &str) -> Option<bool> {
        match self.value(path)? {
            Value::Bool(yes) => Some(yes),
            _ => None,
        }
    }

    /// Every key with what holds for it, as `config show` prints it: no secret among them.
    #[must_use]
    pub fn show(&self) -> String {
        let mut out = String::new();
        let given = self.values.keys().map(String::as_str);
        let fixed = schema::SCHEMA.iter().map(|key| key.path).filter(|path| !path.contains('*'));
        for path in fixed
            .chain(given.filter(|path| schema::find(path).is_some_and(|k| k.path.contains('*'))))
        {
            let Some(value) = self.value(path) else { continue };
            let secret = schema::find(path).is_some_and(|key| key.secret);
            let text = match &value {
                _ if secret => "\"(not shown)\"".to_owned(),
                Value::Text(text) => toml::Value::from(without_password(text)).to_string(),
                value => value.to_toml().to_string(),
            };
            let from = match self.source(path) {
                Source::Nowhere => "default".to_owned(),
                Source::File(file) => file.display().to_string(),
                Source::Env(name) => name,
                Source::CommandLine => "command line".to_owned(),
            };
            out.push_str(&format!("{path} = {text}  # {from}\n"));
        }
        out
    }
}

/// `etcds://user:password@host` without what stands before `@`.
#[must_use]
pub fn without_password(address: &str) -> String {
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, rest)), Some((_, hosts))) if rest.contains('@') => {
            format!("{scheme}://(not shown)@{hosts}")
        }
        _ => address.to_owned(),
    }
}

fn not_a_table(source: &Source, path: &str) -> Problem {
    Problem {
        source: source.clone(),
        what: format!("`{path}` holds keys of its own"),
        fix: format!("write it as a table; `mainstay config schema` lists what is below `{path}`"),
    }
}
