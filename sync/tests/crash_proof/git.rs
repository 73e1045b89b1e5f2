//! git, which packs now and then.

use std::path::Path;
use std::process::Command;

use crate::prove::{Points, ROWS, prove};
use crate::rig;

fn git_in(dir: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-c", "user.name=a", "-c", "user.email=a@localhost"])
        .args(["-c", "gc.auto=0", "-c", "core.fsync=all"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .current_dir(dir)
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("git {arguments:?}: {said}")),
    }
}

pub fn store(dir: &Path, said: impl Fn(u64)) {
    git_in(dir, &["init", "-q", "--bare", "-b", "main", "."]).unwrap();
    let mut parent: Option<String> = None;
    for row in 1..=ROWS {
        let tree = git_in(dir, &["write-tree"]).unwrap();
        let message = format!("row {row}");
        let mut arguments = vec!["commit-tree", &tree, "-m", &message];
        if let Some(parent) = &parent {
            arguments.extend(["-p", parent]);
        }
        let commit = git_in(dir, &arguments).unwrap();
        git_in(dir, &["update-ref", "refs/heads/main", &commit]).unwrap();
        parent = Some(commit);
        said(row);
        if row % 25 == 0 {
            git_in(dir, &["gc", "-q", "--prune=now"]).unwrap();
        }
    }
}

fn holds(dir: &Path) -> Result<u64, String> {
    git_in(dir, &["fsck", "--full", "--no-dangling"])?;
    let count = git_in(dir, &["rev-list", "--count", "main"])?;
    count.parse().map_err(|_| count)
}

#[test]
fn git_recovers_at_any_op_also_while_it_packs() {
    if Command::new("git").arg("--version").output().is_err() {
        rig::skipped("git_recovers", "git is not installed");
        return;
    }
    prove("git", holds, Points::Sample(24));
}
