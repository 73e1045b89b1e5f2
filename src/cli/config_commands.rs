//! `config schema`: the table of keys as text.

use crate::config::schema::SCHEMA;

/// Every key, with what it takes, its default, its variable and its meaning.
pub(super) fn schema() -> String {
    let mut out = String::new();
    for key in SCHEMA {
        let default =
            key.default.map_or_else(String::new, |default| format!(" (default {default})"));
        let place = if key.secret { " (environment only)" } else { "" };
        out.push_str(&format!(
            "{}{place}\n    {}\n    takes {}{default}\n    {}\n",
            key.path,
            key.help,
            key.kind.accepted(),
            key.env(),
        ));
    }
    out
}
