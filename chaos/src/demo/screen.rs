//! The demonstration's lines: coloured on a terminal, plain elsewhere.
#![allow(clippy::print_stdout, reason = "this is what the demonstration is for")]

use std::io::IsTerminal;
use std::time::Instant;

use crate::live::Status;

pub(super) struct Screen {
    colours: bool,
    start: Instant,
}

impl Screen {
    pub fn new() -> Screen {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Screen { colours, start: Instant::now() }
    }

    pub fn heading(&self, text: &str) {
        println!("\n{}", self.paint("1", &format!("== {text}")));
    }

    pub fn say(&self, text: &str) {
        println!("{:7.2} s  {text}", self.start.elapsed().as_secs_f64());
    }

    pub fn loud(&self, text: &str) {
        self.say(&self.paint("1;31", text));
    }

    pub fn good(&self, text: &str) {
        self.say(&self.paint("1;32", text));
    }

    /// Who leads, and how far everyone is.
    pub fn status(&self, status: &Status) {
        let leader = status.leader.as_deref().unwrap_or("nobody");
        self.say(&format!("epoch {}: {leader} leads", status.epoch));
        for replica in &status.replicas {
            let lag = match replica.lag {
                _ if replica.leads() => String::new(),
                Some(lag) => format!("lag {} ops, {} bytes, {} ms", lag.ops, lag.bytes, lag.ms),
                None => "lag unknown".to_owned(),
            };
            println!(
                "             {:4} {:9} {:12} at {:14} {lag}",
                replica.node,
                replica.role.as_deref().unwrap_or("-"),
                replica.state,
                replica.position.as_deref().unwrap_or("-")
            );
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
