//! Compares text with a file, and runs the binary for text to compare.

use std::path::Path;
use std::process::{Command, Stdio};

/// Fails unless `actual` is what the file `name` holds.
pub fn compare(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/expected").join(name);
    if std::env::var_os("REWRITE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs; REWRITE=1 writes it anew. It is now:\n{actual}",
        path.display()
    );
}

/// Runs the binary with nothing in its environment but `env`, and tells all that it said.
pub fn transcript(words: &[&str], env: &[(&str, &str)]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(words)
        .env_clear()
        .envs(env.iter().copied())
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut text = String::new();
    for (name, value) in env {
        text.push_str(&format!("{name}={value} "));
    }
    text.push_str(&format!("mainstay {}\n", words.join(" ")));
    text.push_str(&format!("exit code {}\n", output.status.code().expect("no signal ended it")));
    for (name, bytes) in [("output", output.stdout), ("errors", output.stderr)] {
        if !bytes.is_empty() {
            text.push_str(&format!("--- {name}\n{}", String::from_utf8(bytes).unwrap()));
        }
    }
    text
}
