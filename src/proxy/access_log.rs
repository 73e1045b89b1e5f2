//! The access log: lines of JSON, written by a thread of its own so that no disk and no reader of a
//! pipe ever holds a client up. What they do not take in time is dropped, counted and said.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use crate::config::AccessLogConfig;

/// Lines that may wait to be written.
const WAITING_MAX: usize = 16 * 1024;

enum Message {
    Line(String),
    Into(Box<dyn Write + Send>),
}

/// Where lines are handed in; clones are the same log.
#[derive(Clone)]
pub(super) struct AccessLines {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

/// The thread that writes them. It ends, with everything written, when the last [`AccessLines`]
/// is dropped.
pub(super) struct AccessWriter(JoinHandle<()>);

impl AccessLines {
    /// Starts a log that writes nowhere yet.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start() -> io::Result<(AccessLines, AccessWriter)> {
        let (messages, received) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("access-log".into());
        let writer = thread.spawn(move || write(&received))?;
        Ok((AccessLines { messages, lost: Arc::default() }, AccessWriter(writer)))
    }

    /// Writes what is handed in from now on to `config`, opened anew: a file that was moved away
    /// is left to whoever moved it.
    ///
    /// # Errors
    /// The file cannot be opened; the log goes on as it was.
    pub(super) fn open(&self, config: &AccessLogConfig) -> io::Result<()> {
        let into: Box<dyn Write + Send> = match config {
            AccessLogConfig::Off => Box::new(io::sink()),
            AccessLogConfig::Stdout => Box::new(io::stdout()),
            AccessLogConfig::File(path) => {
                Box::new(File::options().append(true).create(true).mode(0o640).open(path)?)
            }
        };
        // Behind the lines that wait. Only a reload comes here, and it may wait.
        let _the_writer_has_ended = self.messages.send(Message::Into(into));
        Ok(())
    }

    /// Hands a line in. Never waits.
    pub(super) fn put(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.messages.try_send(Message::Line(line)) {
            let lost = self.lost.fetch_add(1, Relaxed) + 1;
            if lost.is_power_of_two() {
                tracing::warn!(lost, "the access log does not keep up; lines are dropped");
            }
        }
    }

    /// Lines that were dropped.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

impl AccessWriter {
    /// Waits until everything is written. Every [`AccessLines`] must be gone.
    pub(super) fn finish(self) {
        if self.0.join().is_err() {
            tracing::error!("the access log's thread panicked");
        }
    }
}

fn write(messages: &Receiver<Message>) {
    let mut into: BufWriter<Box<dyn Write + Send>> = BufWriter::new(Box::new(io::sink()));
    let mut failed = false;
    while let Ok(first) = messages.recv() {
        let mut result = Ok(());
        for message in std::iter::once(first).chain(messages.try_iter()) {
            match message {
                Message::Line(line) => {
                    result = result.and_then(|()| writeln!(into, "{line}"));
                }
                Message::Into(next) => {
                    result = result.and_then(|()| into.flush());
                    into = BufWriter::new(next);
                }
            }
        }
        result = result.and_then(|()| into.flush());
        if let (Err(error), false) = (&result, failed) {
            tracing::error!(%error, "the access log cannot be written");
        }
        failed = result.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_left_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let config = AccessLogConfig::File(path.clone());
        let (lines, writer) = AccessLines::start().unwrap();
        lines.put("to nowhere".to_owned());
        lines.open(&config).unwrap();
        lines.put("one".to_owned());
        std::fs::rename(&path, &moved).unwrap();
        lines.put("two".to_owned());
        lines.open(&config).unwrap();
        lines.put("three".to_owned());
        let missing = AccessLogConfig::File(folder.path().join("none/log"));
        lines.open(&missing).expect_err("no such folder");
        lines.put("four".to_owned());
        drop(lines);
        writer.finish();
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!([read(&moved), read(&path)], ["one\ntwo\n", "three\nfour\n"]);
    }

    #[test]
    fn a_log_that_nobody_writes_away_loses_lines_and_counts_them() {
        let (messages, stuck) = sync_channel(2);
        let lines = AccessLines { messages, lost: Arc::default() };
        for _ in 0..5 {
            lines.put(String::new());
        }
        assert_eq!(lines.lost(), 3);
        drop(stuck);
    }
}
