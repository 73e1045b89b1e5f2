//! The machine's own tools, run to their end.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a program; what it said is in the error.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    run_with_input(program, arguments, "")
}

/// The same with something to read.
pub fn run_with_input(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}: is it installed?"))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that ends without reading is judged by its status.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
