//! What is reported of a view.

use super::table::{bytes_text, span_text};
use super::*;

#[test]
fn amounts_are_short() {
    assert_eq!(bytes_text(0), "0 B");
    assert_eq!(bytes_text(1536), "1.5 KiB");
    assert_eq!(bytes_text(300 << 20), "300 MiB");
    assert_eq!(span_text(999), "999 ms");
    assert_eq!(span_text(12_340), "12.3 s");
    assert_eq!(span_text(180_000), "3 min");
}

#[test]
fn lists_read_as_people_write_them() {
    let names = |n: usize| ["a", "b", "c"][..n].iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    assert_eq!(listed(&names(1), "or"), "a");
    assert_eq!(listed(&names(2), "or"), "a or b");
    assert_eq!(listed(&names(3), "or"), "a, b or c");
}

#[test]
fn an_empty_view_tells_how_to_begin() {
    let view = View::default();
    let facts = Facts { service: "db", view: &view, ttl: Duration::from_secs(5), now: UnixMs(1) };
    let report = Report::of(&facts);
    assert_eq!(report.health, Health::Down);
    assert_eq!(report.summary, "it has not been started yet");
}
