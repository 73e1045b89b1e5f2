//! What a failover's time went into, as the coordinator saw it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Report;
use crate::judge::availability::next_after;
use crate::nemesis::Kind;
use crate::observe::coordinator::Change;

/// One failover, from the fault that caused it. Times count from when the fault was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// What caused it.
    pub kind: Kind,
    /// Who led before.
    pub from: String,
    /// Who led after.
    pub to: String,
    /// The new epoch.
    pub epoch: u64,
    /// The first replica that said that it suspects the leader.
    pub suspected: Option<Duration>,
    /// The leader's key was gone.
    pub key_gone: Option<Duration>,
    /// The first ballot of the election.
    pub balloted: Option<Duration>,
    /// The new epoch was taken.
    pub taken: Duration,
    /// The new leader's service was ready.
    pub ready: Option<Duration>,
    /// The next write was acknowledged.
    pub acknowledged: Option<Duration>,
}

impl Parts {
    /// All of it in a line, in seconds since the fault.
    #[must_use]
    pub fn line(&self) -> String {
        let part = |name: &str, at: Option<Duration>| {
            at.map_or(String::new(), |at| format!(", {name} {:.2}", at.as_secs_f64()))
        };
        format!(
            "{:16} {} to {}, epoch {}{}{}{}, epoch taken {:.2}{}{}",
            self.kind.name(),
            self.from,
            self.to,
            self.epoch,
            part("suspected", self.suspected),
            part("key gone", self.key_gone),
            part("first ballot", self.balloted),
            self.taken.as_secs_f64(),
            part("ready", self.ready),
            part("write acknowledged", self.acknowledged)
        )
    }
}

impl Report {
    /// Finds each fault's failover among the reigns, and its parts among the changes.
    pub fn parts(&mut self, changes: &[Change], acknowledged: &[Duration]) {
        let ends: Vec<_> = self.faults.iter().skip(1).map(|fault| fault.at).collect();
        let mut parts = Vec::new();
        for (index, fault) in self.faults.iter().enumerate() {
            if fault.skipped.is_some() {
                continue;
            }
            let until = ends.get(index).copied().unwrap_or(Duration::MAX);
            let next = self.reigns.iter().position(|reign| reign.began >= fault.at);
            let Some(next) = next.filter(|next| self.reigns[*next].began < until) else { continue };
            let reign = &self.reigns[next];
            let since = |at: Duration| at.saturating_sub(fault.done);
            let first = |is_it: &dyn Fn(&Change) -> bool| {
                let window = |at| at >= fault.at && at <= reign.began;
                let found = changes.iter().find(|change| window(change.at) && is_it(change));
                found.map(|change| since(change.at))
            };
            let ready = reign.ready;
            parts.push(Parts {
                kind: fault.kind,
                from: next.checked_sub(1).map(|i| self.reigns[i].node.clone()).unwrap_or_default(),
                to: reign.node.clone(),
                epoch: reign.epoch,
                suspected: first(&|change| {
                    let value = change.value.as_ref();
                    change.key.starts_with("replicas/")
                        && value.is_some_and(|value| value["suspects"].is_u64())
                }),
                key_gone: first(&|change| change.key == "leader" && change.value.is_none()),
                balloted: first(&|change| {
                    change.key.starts_with("ballots/") && change.value.is_some()
                }),
                taken: since(reign.began),
                ready: ready.map(since),
                acknowledged: ready
                    .and_then(|ready| Some(since(ready + next_after(acknowledged, ready)?))),
            });
        }
        self.failovers = parts;
    }
}
