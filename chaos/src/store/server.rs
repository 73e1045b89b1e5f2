//! The store's process.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::journal::Journal;
use super::{Options, Value};
use crate::workload::churn::Churn;

struct Store {
    journal: Journal,
    values: Vec<Value>,
    run: String,
}

/// Serves until it is killed.
///
/// # Errors
/// The files are damaged, or the address is taken.
pub fn serve(options: &Options) -> Result<()> {
    let (journal, values) = Journal::open(&options.folder)?;
    let listener = TcpListener::bind(options.listen)
        .with_context(|| format!("listen on {}", options.listen))?;
    let run = format!("{:032x}", rand::random::<u128>());
    let store = Arc::new(Mutex::new(Store { journal, values, run }));
    let folder = options.folder.join("churn");
    let appends = Arc::clone(&store);
    std::thread::spawn(move || {
        churn(&folder, || appends.lock().unwrap_or_else(PoisonError::into_inner).values.len());
    });
    for stream in listener.incoming() {
        let (stream, store) = (stream?, Arc::clone(&store));
        std::thread::spawn(move || {
            if let Err(error) = converse(&stream, &store) {
                tracing::debug!(%error, "a client left");
            }
        });
    }
    Ok(())
}

fn converse(stream: &TcpStream, store: &Mutex<Store>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut answers = stream;
    for line in BufReader::new(stream).lines() {
        let answer = store.lock().unwrap_or_else(PoisonError::into_inner).answer(&line?)?;
        answers.write_all(answer.as_bytes())?;
    }
    Ok(())
}

impl Store {
    fn answer(&mut self, line: &str) -> Result<String> {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["append", client, number] => {
                let value = (client.parse()?, number.parse()?);
                // What could not be stored, or perhaps not, must not be built upon.
                if let Err(error) = self.store(value) {
                    tracing::error!(%error, "the store ends: it cannot write");
                    std::process::exit(1);
                }
                Ok("ok\n".to_owned())
            }
            ["all"] => {
                let lines =
                    self.values.iter().map(|(client, number)| format!("{client} {number}\n"));
                Ok(lines.chain(["\n".to_owned()]).collect())
            }
            ["run"] => Ok(format!("{}\n", self.run)),
            _ => bail!("{line:?} is no request"),
        }
    }

    fn store(&mut self, value: Value) -> Result<()> {
        self.journal.append(value)?;
        self.values.push(value);
        self.journal.tidy(&self.values)
    }
}

/// Works on a tree of files, as file servers' users do, for as long as clients append: when they have
/// left, all must come to rest, for the replicas are compared then.
fn churn(folder: &PathBuf, appended: impl Fn() -> usize) {
    let mut seed = rand::random();
    let mut before = appended();
    let mut is_busy = || {
        let now = appended();
        std::mem::replace(&mut before, now) != now
    };
    loop {
        std::thread::sleep(Duration::from_millis(200));
        if !is_busy() {
            continue;
        }
        // A full disk ends a round, as it would end a user's.
        let _ = std::fs::remove_dir_all(folder);
        if std::fs::create_dir(folder).is_ok() {
            let mut churn = Churn::new(seed);
            while churn.count() < 2_000 {
                std::thread::sleep(Duration::from_millis(200));
                if is_busy() && churn.run(folder, 50).is_err() {
                    break;
                }
            }
        }
        seed = seed.wrapping_add(1);
    }
}
