//! Taste that a machine can hold: sizes of files, edges between crates, words left behind.

use std::path::{Path, PathBuf};

const LINES_MAX: usize = 600;
const MEDIAN_LINES_MAX: usize = 200;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below the folders of our own, without what a build leaves.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = ["src", "election", "sync", "ambassador", "chaos", "tests"]
        .map(|name| root().join(name))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("our folders can be read") {
            let path = entry.expect("our folders can be read").path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{extension} files below {}", root().display());
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn files_can_be_held_in_the_head() {
    let mut lines: Vec<_> =
        files("rs").into_iter().map(|path| (read(&path).lines().count(), path)).collect();
    lines.sort();
    let long: Vec<_> = lines.iter().filter(|(count, _)| *count > LINES_MAX).collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:?}");
    let median = lines[lines.len() / 2].0;
    assert!(median < MEDIAN_LINES_MAX, "the median file has {median} lines");
}

#[test]
fn election_sync_and_ambassador_know_nothing_of_one_another() {
    for (name, others) in [
        ("election", ["sync", "ambassador"]),
        ("sync", ["election", "ambassador"]),
        ("ambassador", ["election", "sync"]),
    ] {
        let manifest = read(&root().join(name).join("Cargo.toml"));
        for other in others {
            let edge = format!("mainstay-{other}");
            assert!(!manifest.contains(&edge), "{name} depends on {edge}");
        }
    }
    let manifest = read(&root().join("chaos/Cargo.toml"));
    assert!(!manifest.contains("\nmainstay ="), "chaos runs the daemon as a binary");
}

#[test]
fn only_the_wire_module_names_bincode() {
    for path in files("rs") {
        if path.ends_with("sync/src/wire.rs") || path.ends_with("tests/tidy.rs") {
            continue;
        }
        assert!(!read(&path).contains("bincode::"), "{} names bincode", path.display());
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("unimple", "mented!"),
        concat!("#[ig", "nore"),
    ];
    for path in files("rs") {
        let text = read(&path);
        for mark in marks {
            assert!(!text.contains(mark), "{} contains {mark}", path.display());
        }
    }
}

#[test]
fn modules_have_no_names_that_say_nothing() {
    let nothing = ["utils", "util", "helpers", "helper", "common", "misc", "manager"];
    for path in files("rs") {
        for part in path.strip_prefix(root()).expect("below the root").iter() {
            let name = part.to_string_lossy();
            let stem = name.trim_end_matches(".rs");
            assert!(!nothing.contains(&stem), "{}", path.display());
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for path in files("rs") {
        // A test module is for what it stands beside; its tests' names say the rest.
        let is_of_tests = path.iter().any(|part| part == "tests" || part == "tests.rs");
        if is_of_tests {
            continue;
        }
        let text = read(&path);
        let is_documented = text.starts_with("//!") || text.starts_with("#!");
        assert!(is_documented, "{} does not begin with a module doc", path.display());
    }
}
