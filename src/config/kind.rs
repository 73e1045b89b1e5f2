//! What kinds of values the configuration knows, how each is read, and what to say when it cannot
//! be.

use std::net::SocketAddr;
use std::time::Duration;

use mainstay_election::CoordinationAddress;
use mainstay_election::values::check_name;

/// What values a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// A node's or service's name.
    Name,
    /// An absolute path.
    Path,
    /// `etcd://…`, `etcds://…` or `sqlite:///…`.
    Coordination,
    /// An IP address and a port to listen at.
    Socket,
    /// As `Socket`, or `unix:/path`.
    Listen,
    /// A host, or an IP address, and a port.
    HostPort,
    /// As `HostPort`, or `unix:/path`.
    Service,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Number {
        /// The least that is taken.
        least: i64,
        /// The most that is taken.
        most: i64,
    },
    /// A time span such as `"5s"`.
    Duration {
        /// The least that is taken, in milliseconds.
        least_ms: u64,
        /// The most that is taken, in milliseconds.
        most_ms: u64,
    },
    /// A number of bytes such as `"64MiB"`.
    Size,
    /// A list of words: a command and its arguments, or addresses.
    Words,
    /// Where lines go: `off`, `stdout`, or an absolute path.
    Log,
}

/// A value that was read and fits its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of every kind that is text.
    Text(String),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Number`].
    Number(i64),
    /// Of [`Kind::Duration`].
    Duration(Duration),
    /// Of [`Kind::Size`], in bytes.
    Size(u64),
    /// Of [`Kind::Words`].
    Words(Vec<String>),
}

impl Kind {
    /// Reads a value of the file.
    ///
    /// # Errors
    /// The reason, as a clause after "it ".
    pub fn read(&self, value: &toml::Value) -> Result<Value, String> {
        match (self, value) {
            (Kind::Bool, toml::Value::Boolean(yes)) => Ok(Value::Bool(*yes)),
            (Kind::Number { .. }, toml::Value::Integer(number)) => self.number(*number),
            (Kind::Size, toml::Value::Integer(bytes)) => {
                u64::try_from(*bytes).map(Value::Size).map_err(|_| "is below zero".into())
            }
            (Kind::Words, toml::Value::Array(items)) => words(items),
            (Kind::Words | Kind::Bool | Kind::Number { .. }, _) => {
                Err(format!("is {}", a_type(value)))
            }
            (_, toml::Value::String(text)) => self.read_text(text),
            _ => Err(format!("is {}", a_type(value))),
        }
    }

    /// Reads a value of the environment, or a default.
    ///
    /// # Errors
    /// The reason, as a clause after "it ".
    pub fn read_text(&self, text: &str) -> Result<Value, String> {
        let checked = |fits: bool, reason: &str| {
            if fits { Ok(Value::Text(text.to_owned())) } else { Err(reason.to_owned()) }
        };
        match self {
            Kind::Text => checked(!text.is_empty(), "is empty"),
            Kind::Name => checked(check_name(text).is_ok(), "is not a name"),
            Kind::Path => checked(text.starts_with('/'), "is not an absolute path"),
            Kind::Coordination => match text.parse::<CoordinationAddress>() {
                Ok(_) => Ok(Value::Text(text.to_owned())),
                Err(error) => Err(format!("cannot be used: {error}")),
            },
            Kind::Socket => checked(is_socket(text), "is not an IP address and port"),
            Kind::Listen => checked(
                is_socket(text) || is_unix(text),
                "is neither an IP address and port nor a Unix socket",
            ),
            Kind::HostPort => checked(is_host_port(text), "is not a host and port"),
            Kind::Service => checked(
                is_host_port(text) || is_unix(text),
                "is neither a host and port nor a Unix socket",
            ),
            Kind::Choice(words) => checked(words.contains(&text), "is not one of the words"),
            Kind::Bool => text.parse().map(Value::Bool).map_err(|_| "is not a yes or no".into()),
            Kind::Number { .. } => {
                self.number(text.parse().map_err(|_| "is not a whole number".to_owned())?)
            }
            Kind::Duration { least_ms, most_ms } => duration(text, *least_ms, *most_ms),
            Kind::Size => size(text),
            Kind::Words if text.trim_start().starts_with('[') => {
                let list = format!("list = {text}").parse::<toml::Table>();
                match list.as_ref().map(|table| table.get("list")) {
                    Ok(Some(toml::Value::Array(items))) => words(items),
                    _ => Err("begins as a list but is none".into()),
                }
            }
            Kind::Log => checked(
                matches!(text, "off" | "stdout") || text.starts_with('/'),
                "is neither \"off\" nor \"stdout\" nor an absolute path",
            ),
            Kind::Words => Ok(Value::Words(text.split_whitespace().map(str::to_owned).collect())),
        }
    }

    /// What would be accepted, as a clause after "give ".
    #[must_use]
    pub fn accepted(&self) -> String {
        match self {
            Kind::Text => "a text".into(),
            Kind::Name => {
                "1 to 63 letters, digits, `.`, `_` or `-`, a letter or digit first".into()
            }
            Kind::Path => "a path that begins with `/`".into(),
            Kind::Coordination => {
                "etcd://HOST:PORT,…, etcds://HOST:PORT,… or sqlite:///PATH".into()
            }
            Kind::Socket => "an address such as \"127.0.0.1:7400\" or \"[::]:7400\"".into(),
            Kind::Listen => "an address such as \"127.0.0.1:6432\", or \"unix:/PATH\"".into(),
            Kind::HostPort => "a host and port such as \"10.0.1.5:7400\" or \"db-a:5432\"".into(),
            Kind::Service => "a host and port such as \"10.0.1.5:5432\", or \"unix:/PATH\"".into(),
            Kind::Choice(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Kind::Bool => "true or false".into(),
            Kind::Number { least, most } => format!("a number from {least} to {most}"),
            Kind::Duration { least_ms, most_ms } => format!(
                "a time span from {} to {}, such as \"200ms\", \"5s\" or \"1m\"",
                span_text(Duration::from_millis(*least_ms)),
                span_text(Duration::from_millis(*most_ms)),
            ),
            Kind::Log => "\"off\", \"stdout\", or the path of a file".into(),
            Kind::Size => "a size such as \"512KiB\", \"64MiB\" or \"4GiB\"".into(),
            Kind::Words => {
                "a list of texts such as [\"redis-server\", \"--port\", \"6379\"]".into()
            }
        }
    }

    fn number(&self, number: i64) -> Result<Value, String> {
        match self {
            Kind::Number { least, most } if number < *least || number > *most => {
                Err("is out of range".into())
            }
            _ => Ok(Value::Number(number)),
        }
    }
}

impl Value {
    /// The value as the file would have it.
    #[must_use]
    pub fn to_toml(&self) -> toml::Value {
        match self {
            Value::Text(text) => text.clone().into(),
            Value::Bool(yes) => (*yes).into(),
            Value::Number(number) => (*number).into(),
            Value::Duration(span) => span_text(*span).into(),
            Value::Size(bytes) => size_text(*bytes).into(),
            Value::Words(words) => words.clone().into(),
        }
    }
}

const SPANS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const SIZES: [(&str, u64); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// A number with a unit after it, times what the unit stands for.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 =
        digits.parse().map_err(|_| "does not begin with a whole number".to_owned())?;
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(|| match unit {
        "" => "has no unit".to_owned(),
        unit => format!("has the unit {unit:?}, which is not known"),
    })?;
    number.checked_mul(*factor).ok_or_else(|| "is too large".to_owned())
}

fn duration(text: &str, least_ms: u64, most_ms: u64) -> Result<Value, String> {
    let ms = with_unit(text, &SPANS)?;
    if ms < least_ms {
        return Err("is too short".into());
    }
    if ms > most_ms {
        return Err("is too long".into());
    }
    Ok(Value::Duration(Duration::from_millis(ms)))
}

fn size(text: &str) -> Result<Value, String> {
    with_unit(text, &SIZES).map(Value::Size)
}

/// `5s`, in the largest unit that is exact.
#[must_use]
pub fn span_text(span: Duration) -> String {
    in_unit(u64::try_from(span.as_millis()).unwrap_or(u64::MAX), &SPANS)
}

/// `64MiB`, in the largest unit that is exact.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    in_unit(bytes, &SIZES)
}

fn in_unit(number: u64, units: &[(&str, u64)]) -> String {
    let exact =
        units.iter().rev().find(|(_, factor)| number != 0 && number.is_multiple_of(*factor));
    let (unit, factor) = exact.unwrap_or(&units[0]);
    format!("{}{unit}", number / factor)
}

fn words(items: &[toml::Value]) -> Result<Value, String> {
    let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
    match texts.collect::<Option<Vec<_>>>() {
        Some(words) if words.is_empty() => Err("is empty".into()),
        Some(words) => Ok(Value::Words(words)),
        None => Err("has an item that is no text".into()),
    }
}

fn is_socket(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok()
}

fn is_unix(text: &str) -> bool {
    text.strip_prefix("unix:/").is_some_and(|path| !path.is_empty())
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let port = port.parse::<u16>().is_ok_and(|port| port != 0);
    port && !host.is_empty() && (is_socket(text) || (!host.contains(':') && !bracketed))
}

fn a_type(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a text",
        toml::Value::Integer(_) => "a number without a unit",
        toml::Value::Float(_) => "a fraction",
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    }
}
