//! What an operator needs to know of a service: who leads, what is safe, what to do. Pure: from
//! the coordinator's view to a report, and from that to text or JSON.
//!
//! It says only what the view shows. A replica's own words are as old as they say.

use std::time::Duration;

use mainstay_election::values::{
    Config, Durability, Lag, Member, Progress, Replica, Request, Role, Seq, UnixMs, Verification,
};
use mainstay_election::view::View;
use serde::Serialize;

use crate::when;

pub(crate) mod progress;
mod sync;
mod table;
pub(crate) mod verified;

pub use table::render;

/// What a report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The service's name.
    pub service: &'a str,
    /// Its state in the coordinator.
    pub view: &'a View,
    /// The lease's length.
    pub ttl: Duration,
    /// When the view was read, by our clock.
    pub now: UnixMs,
}

/// How a service is, all in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It runs, and somebody could take over.
    Ok,
    /// It runs, but something is missing.
    Degraded,
    /// It does not serve clients.
    Down,
}

/// A service's state, for people and machines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The service's name.
    pub service: String,
    /// All in all.
    pub health: Health,
    /// The same in a sentence.
    pub summary: String,
    /// The newest epoch; 0 before the first leader.
    pub epoch: u64,
    /// Who leads.
    pub leader: Option<LeaderLine>,
    /// What holds now.
    pub guarantee: Guarantee,
    /// Every replica that is known, by name.
    pub replicas: Vec<ReplicaLine>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
    /// What to do now.
    pub to_do: Vec<String>,
    /// When the view was read.
    #[serde(skip)]
    pub now: UnixMs,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeaderLine {
    /// The node.
    pub node: String,
    /// Where clients reach the service.
    pub service_address: Option<String>,
    /// The service answers.
    pub ready: bool,
}

/// What holds now, and why nothing stronger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guarantee {
    /// The durability in force; absent before the cluster is founded.
    pub durability: Option<Durability>,
    /// What an acknowledged fsync is worth now.
    pub now: String,
    /// Why it is not worth more.
    pub why_not_more: String,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplicaLine {
    /// The node.
    pub node: String,
    /// What it does; absent if it is not registered, hence down or cut off.
    pub role: Option<Role>,
    /// The same in its own words.
    pub state: String,
    /// What is durable on its disk, as `epoch:seq`.
    pub position: Option<String>,
    /// How far it is behind; absent for the leader and where nobody leads.
    pub lag: Option<Lag>,
    /// It may take over, should the leader go.
    pub may_take_over: bool,
    /// How long ago it wrote this, in milliseconds by two clocks.
    pub age_ms: Option<u64>,
    /// When its content was last compared with the leader's, and what came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verification>,
    /// What it is busy with, if that takes long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

impl Report {
    /// What the facts come to.
    #[must_use]
    pub fn of(facts: &Facts<'_>) -> Report {
        let view = facts.view;
        let replicas = replicas(facts);
        let leader = view.leader.as_ref().map(|leader| LeaderLine {
            node: leader.value.node.to_string(),
            service_address: leader.value.service.clone(),
            ready: leader.value.ready,
        });
        let heirs: Vec<_> =
            replicas.iter().filter(|r| r.may_take_over).map(|r| r.node.clone()).collect();
        let epoch = view.epoch.as_ref().map_or(0, |epoch| epoch.value.epoch.0);
        let warnings = warnings(facts, &replicas);
        let health = match &leader {
            None => Health::Down,
            Some(leader) if !leader.ready => Health::Down,
            Some(_) if heirs.is_empty() || !all_heard(facts, &replicas) => Health::Degraded,
            Some(_) if sync::is_short(view) => Health::Degraded,
            Some(_) => Health::Ok,
        };
        Report {
            service: facts.service.to_owned(),
            health,
            summary: summary(facts, leader.as_ref(), &heirs, epoch),
            epoch,
            guarantee: guarantee(facts, &replicas, &heirs),
            to_do: to_do(facts, leader.as_ref(), &replicas, &heirs),
            leader,
            replicas,
            warnings,
            now: facts.now,
        }
    }

    /// The report as JSON, one key per line.
    ///
    /// # Panics
    /// Never: it has string keys only.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has string keys only")
    }
}

/// A replica writes its words at least every ttl; older ones than this are doubtful.
fn stale_ms(facts: &Facts<'_>) -> u64 {
    u64::try_from(facts.ttl.as_millis() * 2).unwrap_or(u64::MAX)
}

fn all_heard(facts: &Facts<'_>, replicas: &[ReplicaLine]) -> bool {
    replicas.iter().all(|line| is_heard(facts, line))
}

fn is_heard(facts: &Facts<'_>, line: &ReplicaLine) -> bool {
    line.age_ms.is_some_and(|age| age <= stale_ms(facts))
}

/// Those that the config names and those that are registered.
fn replicas(facts: &Facts<'_>) -> Vec<ReplicaLine> {
    let view = facts.view;
    let mut lines: Vec<_> =
        view.replicas.values().map(|replica| replica_line(facts, &replica.value)).collect();
    let config = view.config.as_ref().map(|config| &config.value);
    let members =
        config.into_iter().flat_map(|config| config.voters.iter().chain(&config.eligible));
    for member in members {
        if !lines.iter().any(|line| line.node == member.node.as_str()) {
            lines.push(ReplicaLine {
                node: member.node.to_string(),
                role: None,
                state: "not registered: down, or cut off from the coordinator".to_owned(),
                position: None,
                lag: None,
                may_take_over: false,
                age_ms: None,
                verified: None,
                progress: None,
            });
        }
    }
    lines.sort_by(|a, b| a.node.cmp(&b.node));
    lines
}

fn replica_line(facts: &Facts<'_>, replica: &Replica) -> ReplicaLine {
    let leads = is_leader(facts.view, replica);
    ReplicaLine {
        node: replica.node.to_string(),
        role: Some(replica.role),
        state: replica.state.clone(),
        position: Some(replica.position.to_string()),
        lag: (!leads && facts.view.leader.is_some()).then_some(replica.lag),
        may_take_over: !leads && may_take_over(facts.view, replica),
        age_ms: Some(facts.now.0.saturating_sub(replica.time.0)),
        verified: replica.verified.clone(),
        progress: replica.progress,
    }
}

fn is_leader(view: &View, replica: &Replica) -> bool {
    view.leader.as_ref().is_some_and(|leader| leader.value.node == replica.node)
}

fn may_take_over(view: &View, replica: &Replica) -> bool {
    let Some(config) = view.config.as_ref().map(|config| &config.value) else { return false };
    let member = Member { node: replica.node.clone(), volume: replica.volume };
    let listed = match config.durability {
        Durability::Async => config.eligible.contains(&member),
        Durability::Sync => config.voters.contains(&member),
    };
    listed
        && !replica.building
        && !replica.tags.nofailover
        && replica.cluster.as_ref() == Some(&config.cluster)
}

fn is_paused(view: &View) -> bool {
    view.requests.values().any(|request| matches!(request.value, Request::Pause { .. }))
}

fn summary(facts: &Facts<'_>, leader: Option<&LeaderLine>, heirs: &[String], epoch: u64) -> String {
    match leader {
        None if facts.view.config.is_none() => "it has not been started yet".to_owned(),
        None if is_paused(facts.view) => "nobody leads, and failover is paused".to_owned(),
        None => "nobody leads; clients wait".to_owned(),
        Some(LeaderLine { node, ready: false, .. }) => {
            format!("{node} leads in epoch {epoch}, but its service is not ready; clients wait")
        }
        Some(LeaderLine { node, .. }) if heirs.is_empty() => {
            format!("{node} leads in epoch {epoch} and is ready; nobody could take over")
        }
        Some(LeaderLine { node, .. }) => {
            let heirs = listed(heirs, "or");
            format!("{node} leads in epoch {epoch} and is ready; {heirs} could take over")
        }
    }
}

fn guarantee(facts: &Facts<'_>, replicas: &[ReplicaLine], heirs: &[String]) -> Guarantee {
    let config = facts.view.config.as_ref().map(|config| &config.value);
    let Some(config) = config else {
        return Guarantee {
            durability: None,
            now: "none yet".to_owned(),
            why_not_more: "there is no leader that could acknowledge anything".to_owned(),
        };
    };
    let (now, why_not_more) = match config.durability {
        Durability::Sync => sync::guarantee(facts.view, config),
        Durability::Async => (
            async_guarantee(facts, config, replicas, heirs),
            "an fsync is acknowledged before followers have it (durability is async)".to_owned(),
        ),
    };
    Guarantee { durability: Some(config.durability), now, why_not_more }
}

/// What would be lost if the leader's disk went now.
fn async_guarantee(
    facts: &Facts<'_>,
    config: &Config,
    replicas: &[ReplicaLine],
    heirs: &[String],
) -> String {
    // What was said long ago says nothing of now.
    let heard = replicas.iter().filter(|line| line.may_take_over && is_heard(facts, line));
    let lags = heard.filter_map(|line| line.lag);
    let bound = match (config.max_lag.bytes, config.max_lag.ms) {
        (None, None) => "no bound is set".to_owned(),
        (bytes, ms) => {
            let bytes = bytes.map(table::bytes_text);
            let span = ms.map(table::span_text);
            let both: Vec<_> = bytes.into_iter().chain(span).collect();
            format!("writes wait so that it is never more than {}", both.join(" or "))
        }
    };
    // The best of the heirs takes over.
    match lags.min_by_key(|lag| lag.ops) {
        Some(lag) if lag.ops == 0 => {
            format!("by the latest reports a failover would lose nothing; {bound}")
        }
        Some(lag) => format!(
            "by the latest reports a failover would lose {} ops, {}, of the last {}; {bound}",
            lag.ops,
            table::bytes_text(lag.bytes),
            table::span_text(lag.ms)
        ),
        None if heirs.is_empty() => {
            "the only copy that counts is the leader's: losing its disk loses data".to_owned()
        }
        None => format!("what a failover would lose is not known now; {bound}"),
    }
}

fn warnings(facts: &Facts<'_>, replicas: &[ReplicaLine]) -> Vec<String> {
    let mut warnings = Vec::new();
    for line in replicas {
        match line.age_ms {
            None => warnings.push(format!("{} is {}", line.node, line.state)),
            Some(age) if !is_heard(facts, line) => warnings.push(format!(
                "{} has not been heard for {}; what is said of it is that old",
                line.node,
                table::span_text(age)
            )),
            Some(_) => {}
        }
    }
    let view = facts.view;
    let config = view.config.as_ref().map(|config| &config.value);
    for replica in view.replicas.values().map(|replica| &replica.value) {
        let (theirs, ours) = (replica.cluster.as_ref(), config.map(|config| &config.cluster));
        if theirs.is_some() && ours.is_some() && theirs != ours {
            warnings.push(format!("{} belongs to another cluster and is left out", replica.node));
        }
        if replica.tags.nofailover {
            warnings.push(format!("{} is told never to take over (nofailover)", replica.node));
        }
        if replica.position.seq == Seq(0) && config.is_some() {
            warnings.push(format!("{} has no copy yet", replica.node));
        }
    }
    for replica in view.replicas.values().map(|replica| &replica.value) {
        warnings.extend(verified::warning(replica));
    }
    for request in view.requests.values() {
        warnings.push(match &request.value {
            Request::Pause { reason, .. } => format!("failover is paused: {reason}"),
            Request::Switchover { target: Some(to), .. } => format!("switchover to {to} is asked"),
            Request::Switchover { target: None, .. } => "a switchover is asked for".to_owned(),
            Request::SwitchoverScheduled { target, due, .. } => {
                let to = target.as_ref().map_or("the best follower", |target| target.as_str());
                format!("a switchover to {to} is scheduled for {}", when::text(*due))
            }
            Request::SwitchoverRefused { why, .. } => format!("the last switchover failed: {why}"),
            Request::Failover { target, .. } => format!("a forced failover to {target} is asked"),
            Request::Verify { .. } => "every replica's content is being compared".to_owned(),
            Request::Degrade { .. } => "fewer copies are asked for (degrade)".to_owned(),
            Request::Recover { node, .. } => {
                format!("{node} is asked to put back the config on its disk")
            }
        });
    }
    if let Some((key, bad)) = view.unreadable.iter().next() {
        warnings.push(format!("the coordinator's key {key} cannot be read: {}", bad.cause));
    }
    if let Some(lost) = view.history.values().last().and_then(|reign| reign.value.lost_ops)
        && lost > 0
    {
        warnings.push(format!("the last failover lost {lost} ops at least"));
    }
    warnings
}

fn to_do(
    facts: &Facts<'_>,
    leader: Option<&LeaderLine>,
    replicas: &[ReplicaLine],
    heirs: &[String],
) -> Vec<String> {
    let missing = replicas.iter().filter(|line| line.role.is_none());
    let missing: Vec<_> = missing.map(|line| line.node.clone()).collect();
    let mut to_do = Vec::new();
    match leader {
        None if facts.view.config.is_none() => {
            to_do.push("start `mainstay run` on the node whose data is to be used".to_owned());
        }
        None if is_paused(facts.view) => {
            to_do.push("allow failover: mainstay resume".to_owned());
        }
        None if heirs.is_empty() => to_do.push(
            "start a node that may take over; see each one's state above for what it waits for"
                .to_owned(),
        ),
        None => {
            to_do.push(format!("wait: {} should take over within seconds", listed(heirs, "or")))
        }
        Some(LeaderLine { node, ready: false, .. }) => {
            to_do.push(format!("if this lasts, read the service's messages on {node}"));
        }
        Some(_) => {}
    }
    if !missing.is_empty() {
        to_do.push(format!("start mainstay on {}, or mend its network", listed(&missing, "and")));
    }
    let silent = replicas.iter().filter(|line| line.role.is_some() && !is_heard(facts, line));
    let silent: Vec<_> = silent.map(|line| line.node.clone()).collect();
    if !silent.is_empty() {
        to_do.push(format!("see whether mainstay hangs on {}", listed(&silent, "or")));
    }
    to_do.extend(sync::to_do(facts.view));
    if leader.is_some() && heirs.is_empty() && to_do.is_empty() {
        to_do.push("see each replica's state and the warnings: no copy could take over".to_owned());
    }
    to_do
}

/// `a, b or c`
fn listed(names: &[String], last: &str) -> String {
    match names {
        [] => "nobody".to_owned(),
        [one] => one.clone(),
        [most @ .., end] => format!("{} {last} {end}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests;
