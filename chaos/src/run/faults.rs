//! Plays a plan: each fault at its time, each undone at its own.

use std::time::Duration;

use anyhow::Result;

use crate::nemesis::plan::Planned;
use crate::nemesis::{Kind, Nemesis, Undo};
use crate::observe::coordinator::CoordinatorWatch;
use crate::report::Fault;
use crate::workload::History;

/// How often ended programs are looked for.
const STEP: Duration = Duration::from_millis(100);

/// Plays `planned` from now, and returns when `duration` is over and everything is undone.
pub(super) async fn play(
    nemesis: &mut Nemesis,
    planned: &[Planned],
    duration: Duration,
    history: &History,
    watch: Option<&CoordinatorWatch>,
) -> Result<Vec<Fault>> {
    let mut start = history.now();
    let mut waiting = planned.iter();
    let mut next = waiting.next();
    let mut faults: Vec<Fault> = Vec::new();
    // Each with its place among the faults and when it is due.
    let mut open: Vec<(usize, Duration, Undo)> = Vec::new();
    loop {
        let now = history.now() - start;
        let is_over = |until, undo: &Undo| until <= history.now() && undo.is_due();
        while let Some(index) = open.iter().position(|(_, until, undo)| is_over(*until, undo)) {
            let (fault, _, undo) = open.swap_remove(index);
            tracing::info!(kind = %faults[fault].kind, "undone");
            nemesis.undo(undo)?;
            faults[fault].until = Some(history.now());
        }
        if let Some(fault) = next.filter(|fault| fault.at <= now) {
            next = waiting.next();
            let at = history.now();
            // What comes late, or takes its time, must not push the next ones into one another.
            let late = now - fault.at;
            let done = nemesis.inject(fault.kind, fault.choice).await;
            let done_at = history.now();
            if fault.kind == Kind::WipeEtcd
                && let Some(watch) = watch
            {
                watch.start_over();
            }
            let (on, skipped) = match &done {
                Ok(done) => (done.on.clone(), None),
                Err(error) => (String::new(), Some(format!("{error:#}"))),
            };
            start += late + (done_at - at);
            tracing::info!(kind = %fault.kind, on, ?skipped, "fault");
            let until = skipped.is_some().then_some(done_at);
            faults.push(Fault::new(fault.kind, on, at, done_at, until, skipped));
            if let Ok(done) = done {
                open.push((faults.len() - 1, done_at + fault.lasts, done.undo));
            }
        }
        nemesis.tend()?;
        if next.is_none() && open.is_empty() && now >= duration {
            return Ok(faults);
        }
        tokio::time::sleep(STEP).await;
    }
}
