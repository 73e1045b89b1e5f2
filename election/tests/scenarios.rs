//! Elections as text: what is done to a cluster, and what every replica is then told to be.
//!
//! Each `testdata/*.txt` is a sequence of blocks: commands, a line `----`, what came of them.
//! `REWRITE=1` writes down what comes of them now, to be read in the diff.

mod sim;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_election::machine::Event;
use mainstay_election::values::{ClusterId, Durability, Epoch, Lineage, Position, Seq, VolumeId};
use sim::node::{Disk, Node};
use sim::world::World;

const RULE: &str = "----";

#[test]
fn every_scenario_comes_out_as_written() {
    let rewrite = std::env::var_os("REWRITE").is_some_and(|value| value == "1");
    let mut differ = Vec::new();
    let files = files();
    assert!(files.len() >= 12, "only {} scenarios were found", files.len());
    for file in files {
        let written = std::fs::read_to_string(&file).expect("a scenario");
        let played = play(&written, &file);
        if played == written {
            continue;
        }
        if rewrite {
            std::fs::write(&file, played).expect("a writable scenario");
        } else {
            differ.push(difference(&file, &written, &played));
        }
    }
    assert!(differ.is_empty(), "REWRITE=1 accepts this:\n{}", differ.join("\n"));
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the scenarios' folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    files.sort();
    files
}

fn difference(file: &Path, written: &str, played: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (written.lines().collect(), played.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let show =
        |lines: &[&str]| lines.iter().skip(same).take(6).copied().collect::<Vec<_>>().join("\n  ");
    format!(
        "{}, line {}:\n written:\n  {}\n played:\n  {}",
        file.display(),
        same + 1,
        show(&old),
        show(&new)
    )
}

/// The scenario with what comes of it now.
fn play(text: &str, file: &Path) -> String {
    let mut world = World::new(1, Duration::from_secs(4));
    world.settings.durability =
        if text.contains("\nvoters ") { Durability::Sync } else { Durability::Async };
    let mut played = String::new();
    let blocks = text.split("\n\n").map(str::trim).filter(|block| !block.is_empty());
    for block in blocks {
        let commands = block.split_once(RULE).map_or(block, |(commands, _)| commands).trim_end();
        let done: Vec<&str> = commands.lines().filter(|line| !line.starts_with('#')).collect();
        if !played.is_empty() {
            played.push('\n');
        }
        writeln!(played, "{commands}").expect("a string takes everything");
        if done.is_empty() {
            continue; // a comment of its own
        }
        for line in done {
            command(&mut world, line).unwrap_or_else(|| panic!("{}: {line:?}", file.display()));
            world.check();
        }
        writeln!(played, "{RULE}").expect("a string takes everything");
        for line in world.trace.drain(..) {
            writeln!(played, "{line}").expect("a string takes everything");
        }
    }
    played
}

fn command(world: &mut World, line: &str) -> Option<()> {
    let mut words = line.split_whitespace();
    let verb = words.next()?;
    if verb == "run" {
        world.run(milliseconds(words.next()?)?);
        return Some(());
    }
    if verb == "cluster" {
        return cluster(world, words);
    }
    if verb == "voters" {
        let write_quorum = words.next()?.parse().ok()?;
        world.rule_by_quorum(&words.collect::<Vec<_>>(), write_quorum);
        return Some(());
    }
    let name = words.next()?.to_owned();
    let rest: Vec<&str> = words.collect();
    match verb {
        "start" => world.start(new_node(&name, &rest)?),
        "alter" => alter(world.node(&name), &rest)?,
        "restart" => world.restart(&name),
        "crash" => world.node(&name).crash(),
        "cut" => world.node(&name).cut = true,
        "heal" => world.node(&name).cut = false,
        "hush" => world.node(&name).hushed = true,
        "pause" => world.node(&name).paused_until = world.now + milliseconds(rest.first()?)?,
        "jump" => {
            world.node(&name).clock += milliseconds(rest.first()?)?;
            world.step(&name, Event::Tick);
        }
        "late-bid" => world.late_bid_of = Some((name, milliseconds(rest.first()?)?)),
        "fit" => {
            world.node(&name).unfit = None;
            world.report(&name);
        }
        "lose-answer" => world.lose_answer_of = Some(name),
        "unfit" => {
            world.node(&name).unfit = Some(rest.join(" "));
            world.report(&name);
        }
        "write" => {
            let followers: Vec<String> = rest[1..].iter().map(ToString::to_string).collect();
            world.write(&name, rest.first()?.parse().ok()?, &followers);
        }
        "resign" => {
            let epoch = world.node(&name).leading?;
            world.step(&name, Event::Resign { epoch, why: rest.join(" ") });
        }
        "lags" => {
            let lagging = world.member(rest.first()?);
            let (node, volume) = (lagging.node, lagging.volume);
            world.step(&name, Event::Eligible { node, volume, eligible: false });
        }
        "put" => write_key(world, &name, Some(rest.join(" "))),
        "delete" => write_key(world, &name, None),
        "show" => show(world, &name),
        _ => return None,
    }
    Some(())
}

/// A cluster that has started as in `first_start.txt`; the first node leads.
fn cluster<'a>(world: &mut World, names: impl Iterator<Item = &'a str>) -> Option<()> {
    for name in names {
        world.start(new_node(name, &[])?);
    }
    world.run(milliseconds("4s")?);
    world.trace.clear();
    let leaders = world.leaders();
    world.say("cluster", &format!("{} leads", leaders.first()?));
    Some(())
}

fn new_node(name: &str, words: &[&str]) -> Option<Node> {
    let disk = Disk { volume: VolumeId([name.as_bytes()[0]; 16]), ..Disk::default() };
    let mut node = Node::new(name, disk);
    alter(&mut node, words)?;
    Some(node)
}

fn alter(node: &mut Node, words: &[&str]) -> Option<()> {
    let disk = &mut node.disk;
    for word in words {
        match word.split_once('=') {
            Some(("volume", byte)) => disk.volume = VolumeId([byte.parse().ok()?; 16]),
            Some(("cluster", byte)) => disk.cluster = Some(ClusterId([byte.parse().ok()?; 16])),
            Some(("promised", epoch)) => disk.promised = Epoch(epoch.parse().ok()?),
            Some(("priority", number)) => node.tags.priority = number.parse().ok()?,
            Some(("position", at)) => {
                let (epoch, seq) = at.split_once(':')?;
                let (epoch, seq) = (Epoch(epoch.parse().ok()?), Seq(seq.parse().ok()?));
                disk.position = Position { epoch, seq };
                disk.lineage = Lineage(vec![(epoch, Seq(1))]);
            }
            None if *word == "nofailover" => node.tags.nofailover = true,
            _ => return None,
        }
    }
    Some(())
}

fn write_key(world: &mut World, key: &str, value: Option<String>) {
    use mainstay_election::coordinator::Write;
    world.checks.meddled |= key == "leader";
    let write = match value {
        Some(value) => Write::Put(key.to_owned(), value.into_bytes(), None),
        None => Write::Delete(key.to_owned()),
    };
    let before = world.model.revision();
    world.model.transact(&[], &[write]).expect("no lease is asked for");
    world.changed(before);
}

fn show(world: &mut World, key: &str) {
    let value = world
        .model
        .get(key)
        .map_or("is absent".to_owned(), |entry| String::from_utf8_lossy(&entry.value).into_owned());
    world.say(key, &value);
}

fn milliseconds(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s')?, 1000),
    };
    Some(Duration::from_millis(number.parse::<u64>().ok()? * unit))
}
