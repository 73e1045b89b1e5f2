//! Progress while a command waits: bars that are drawn over one another on a terminal, and a line
//! at every tenth where there is none. On standard error, so that output stays what was asked for.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use mainstay_election::values::{Progress, Task};

use crate::status::progress::bar;

/// How often a bar is drawn at most.
const EVERY: Duration = Duration::from_millis(200);

/// The bar of a command that goes through files here, and needs no other process to tell of it.
pub struct FilesBar {
    what: &'static str,
    bars: Bars,
    began: Instant,
    drawn: Option<Instant>,
}

impl FilesBar {
    /// `what` is done, in a word.
    #[must_use]
    pub fn new(what: &'static str) -> FilesBar {
        FilesBar { what, bars: Bars::new(), began: Instant::now(), drawn: None }
    }

    /// So many bytes of so many are done.
    pub fn show(&mut self, done: u64, total: u64) {
        if done < total && self.drawn.is_some_and(|drawn| drawn.elapsed() < EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let progress = Progress {
            task: Task::Copying,
            done,
            total,
            bytes_per_second: done.saturating_mul(1000) / ms,
            ms_left: ms.saturating_mul(total.saturating_sub(done)).checked_div(done),
        };
        self.bars.show(std::iter::once((self.what, progress)));
    }

    /// Takes it from the terminal.
    pub fn clear(&mut self) {
        self.bars.clear();
    }
}

/// The bars of one command.
pub(super) struct Bars {
    terminal: bool,
    /// Lines that are on the terminal now.
    drawn: usize,
    /// Without a terminal: which tenth was told of whom.
    told: BTreeMap<String, u64>,
}

impl Bars {
    pub(super) fn new() -> Bars {
        let terminal = std::io::stderr().is_terminal();
        Bars { terminal, drawn: 0, told: BTreeMap::new() }
    }

    /// Shows how far each is.
    pub(super) fn show<'a>(&mut self, now: impl Iterator<Item = (&'a str, Progress)>) {
        let mut text = self.up();
        self.drawn = 0;
        for (node, progress) in now {
            if self.terminal || self.is_news(node, &progress) {
                text.push_str(&format!("{node}: {}\n", bar(&progress)));
                self.drawn += 1;
            }
        }
        // Whoever does not look at it is not bothered.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// Takes the bars from the terminal.
    pub(super) fn clear(&mut self) {
        let text = self.up();
        self.drawn = 0;
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// Back to where the bars begin, with everything below gone.
    fn up(&self) -> String {
        if self.terminal && self.drawn > 0 {
            format!("\x1b[{}A\x1b[J", self.drawn)
        } else {
            String::new()
        }
    }

    fn is_news(&mut self, node: &str, progress: &Progress) -> bool {
        let tenth = (progress.done.min(progress.total) * 10).checked_div(progress.total);
        let tenth = tenth.unwrap_or(0);
        self.told.insert(node.to_owned(), tenth) != Some(tenth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_only_every_tenth_is_news() {
        let mut bars = Bars { terminal: false, drawn: 0, told: BTreeMap::new() };
        let at = |done| Progress {
            task: Task::Comparing,
            done,
            total: 100,
            bytes_per_second: 0,
            ms_left: None,
        };
        let news: Vec<_> =
            [0, 1, 9, 10, 19, 55, 100].map(|done| bars.is_news("b", &at(done))).to_vec();
        assert_eq!(news, [true, false, false, true, false, true, true]);
        assert!(bars.is_news("c", &at(0)), "each node has its own");
    }
}
