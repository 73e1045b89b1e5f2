//! Moments that operators write and read. Nothing that must be safe depends on a wall clock.

use std::time::Duration;

use mainstay_election::values::UnixMs;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::{Kind, Value};

/// A span from now is at most this long.
const SPAN: Kind = Kind::Duration { least_ms: 0, most_ms: 30 * 24 * 3_600_000 };

/// Reads a time of day with its date and offset, or a span from `now`.
///
/// # Errors
/// It is neither, in words that say what would do.
pub fn parse(text: &str, now: UnixMs) -> Result<UnixMs, String> {
    if let Ok(Value::Duration(span)) = SPAN.read_text(text) {
        return Ok(UnixMs(now.0.saturating_add(millis(span))));
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        format!("`{text}` is no time: write 2030-01-31T03:00:00Z, or a span such as 90m")
    })?;
    let ms = at.unix_timestamp_nanos() / 1_000_000;
    u64::try_from(ms).map(UnixMs).map_err(|_| format!("`{text}` is before 1970"))
}

/// The moment in UTC, to the second.
#[must_use]
pub fn text(moment: UnixMs) -> String {
    let seconds = i64::try_from(moment.0 / 1000).unwrap_or(i64::MAX);
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{} ms", moment.0))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_read() {
        let now = UnixMs(1_000_000);
        assert_eq!(parse("90m", now), Ok(UnixMs(1_000_000 + 90 * 60_000)));
        assert_eq!(parse("1970-01-01T00:10:00Z", now), Ok(UnixMs(600_000)));
        assert_eq!(parse("1970-01-01T02:10:00+02:00", now), Ok(UnixMs(600_000)));
        for wrong in ["03:00", "tomorrow", "2030-01-31 03:00", "90", "31d"] {
            let said = parse(wrong, now).expect_err(wrong);
            assert!(said.contains("is no time"), "{said}");
        }
        assert_eq!(text(UnixMs(600_999)), "1970-01-01T00:10:00Z");
    }
}
