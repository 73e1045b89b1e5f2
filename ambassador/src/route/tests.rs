//! Runs the scenarios in `testdata/`: each a list of events and what the route answers.
//!
//! A scenario is a text file of paragraphs: commands, a line `----`, the effects. Lines that begin
//! with `#` are comments. `REWRITE=1 cargo test -p mainstay-ambassador scenarios` writes the
//! effects anew; read the difference before committing it.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::{Attested, ClientId, Effect, Event, Limits, Order, Route, RouteState};
use crate::moment::Moment;

const USAGE: &str = "commands: `route KIND [held_max=N] [hold=MS] [open_max=N] [KEY=..]`, `at MS`, \
    `leader epoch=N [at=ADDRESS] [ready] [trusted=MS] [attested=EPOCH@MS]`, `check N pass|fail`, \
    `arrive N..`, `unreached N..`, `overtaken N..`, `wake N..`, `left N..`, `tick`, `stop`, `show`";

struct Scenario {
    route: Route,
    now: u64,
}

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("testdata is part of the crate")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 5, "the scenarios are missing from {}", folder.display());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable scenario");
        let played = play(&text);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&file, &played).expect("a writable scenario");
            continue;
        }
        assert_eq!(text, played, "{}: REWRITE=1 takes the new effects", file.display());
    }
}

fn play(text: &str) -> String {
    let mut played = String::new();
    let mut scenario = Scenario { route: route("leader", &[]), now: 0 };
    for paragraph in text.trim_end().split("\n\n") {
        if !played.is_empty() {
            played.push('\n');
        }
        let mut effects = String::new();
        let mut commands = false;
        for line in paragraph.lines().take_while(|line| *line != "----") {
            let _ = writeln!(played, "{line}");
            if !line.starts_with('#') {
                commands = true;
                scenario.command(line, &mut effects);
            }
        }
        if commands {
            let _ =
                write!(played, "----\n{}", if effects.is_empty() { "nothing\n" } else { &effects });
        }
    }
    played
}

impl Scenario {
    fn command(&mut self, line: &str, out: &mut String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (first, rest) = words.split_first().expect("a paragraph has no empty line");
        let clients = |event: fn(ClientId) -> Event| -> Vec<Event> {
            let id =
                |word: &&str| ClientId(word.parse().unwrap_or_else(|_| panic!("{line}: {USAGE}")));
            rest.iter().map(id).map(event).collect()
        };
        let events = match *first {
            "route" => {
                self.route = route(rest[0], &rest[1..]);
                return;
            }
            "at" => {
                self.now = rest[0].parse().unwrap_or_else(|_| panic!("{line}: {USAGE}"));
                return;
            }
            "show" => {
                let (held, forwarded) = (self.route.held(), self.route.forwarded());
                let tick =
                    self.route.next_tick().map_or("none".into(), |tick| millis(tick).to_string());
                let _ = writeln!(out, "held {held}, forwarded {forwarded}, next tick {tick}");
                return;
            }
            "leader" => vec![Event::Leader(news(rest))],
            "check" => {
                let upstream = rest[0].parse().expect("an upstream's place");
                vec![Event::Checked { upstream, passed: rest[1] == "pass" }]
            }
            "arrive" => clients(Event::Arrive),
            "unreached" => clients(Event::Unreached),
            "overtaken" => clients(Event::Overtaken),
            "wake" => clients(Event::Wake),
            "left" => clients(Event::Left),
            "tick" => vec![Event::Tick],
            "stop" => vec![Event::Stop],
            _ => panic!("`{line}` is no command; {USAGE}"),
        };
        for event in events {
            for effect in self.route.step(at(self.now), event) {
                let _ = match effect {
                    Effect::Forward { client, to, generation } => {
                        writeln!(out, "forward {} to {to}, generation {}", client.0, generation.0)
                    }
                    Effect::Hold { client, wake } => {
                        writeln!(out, "hold {}, wake at {}", client.0, millis(wake))
                    }
                    Effect::Refuse { client, reason } => {
                        writeln!(out, "refuse {}: {reason:?}", client.0)
                    }
                    Effect::Cut { through } => {
                        writeln!(out, "cut through generation {}", through.0)
                    }
                };
            }
        }
    }
}

fn route(kind: &str, options: &[&str]) -> Route {
    let number = |key: &str| -> Option<u64> {
        let value = options.iter().find_map(|o| o.strip_prefix(key)?.strip_prefix('='));
        value.map(|value| value.parse().unwrap_or_else(|_| panic!("{key}: {USAGE}")))
    };
    let limits = Limits {
        held_max: number("held_max").unwrap_or(10) as usize,
        hold: Duration::from_millis(number("hold").unwrap_or(30_000)),
        open_max: number("open_max").map(|max| max as usize),
    };
    let upstreams = options.iter().filter(|option| !option.contains('='));
    let addresses: Vec<_> = upstreams.map(|text| text.parse().expect("an address")).collect();
    let order = match kind {
        "leader" => return Route::to_leader(limits),
        "first-alive" => Order::FirstAlive,
        "least-connections" => Order::LeastConnections,
        _ => panic!("{kind}: {USAGE}"),
    };
    let (rise, fall) = (number("rise").unwrap_or(1) as u32, number("fall").unwrap_or(1) as u32);
    Route::to_upstreams(limits, addresses, order, rise, fall)
}

fn news(words: &[&str]) -> RouteState {
    let mut news = RouteState::unknown();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{word}: {USAGE}"));
        match key {
            "epoch" => news.epoch = number(value),
            "at" => news.leader = Some(value.parse().expect("an address")),
            "ready" => news.ready = true,
            "trusted" => news.trusted_until = at(number(value)),
            "attested" => {
                let (epoch, until) = value.split_once('@').expect(USAGE);
                news.attested = Some(Attested { epoch: number(epoch), until: at(number(until)) });
            }
            _ => panic!("{word}: {USAGE}"),
        }
    }
    news
}

fn at(millis: u64) -> Moment {
    Moment::from_boot(Duration::from_millis(millis))
}

fn millis(moment: Moment) -> u128 {
    moment.since(Moment::BOOT).as_millis()
}
