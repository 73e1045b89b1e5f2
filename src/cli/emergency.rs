//! The commands for bad days, each of which gives something up: `failover`, `degrade`, `recover`.
//!
//! None of them acts by itself: it writes a request, which the replicas carry out if they come to
//! the same view. Each first says what it would cost, and asks.

use std::io::{BufRead, IsTerminal, Write as _};

use mainstay_election::values::{NodeName, Request};
use mainstay_election::view::View;

use super::complaint::Complaint;
use super::observe::{now, put, view, with_coordinator};
use super::say;
use crate::config::ClusterConfig;

/// Makes `to` lead now.
pub(super) fn failover(
    cluster: &ClusterConfig,
    to: &str,
    allow_data_loss: bool,
    yes: bool,
) -> Result<(), Complaint> {
    let target = node(to)?;
    with_coordinator(cluster, async |coordinator| {
        let view = view(coordinator).await?;
        let epoch = epoch(&view)?;
        if let Some(leader) = view.leader.as_ref().map(|leader| &leader.value.node) {
            return Err(Complaint::failure(format!(
                "{leader} leads; a failover is for when nobody does"
            ))
            .with_fix(format!(
                "`mainstay switchover --to {target}` moves leadership and loses nothing; if \
                 {leader} is broken, stop it first"
            )));
        }
        say(&cost_of_failover(&view, &target)?)?;
        if allow_data_loss {
            confirm(yes, "give up what this node does not have?")?;
        }
        let at = now();
        let request = Request::Failover { target: target.clone(), allow_data_loss, epoch, at };
        put(coordinator, &view, "failover", &request).await?;
        say(&format!("{target} is asked to lead in place of epoch {epoch}'s leader\n"))
    })
}

/// Lets the leader go on with fewer copies.
pub(super) fn degrade(cluster: &ClusterConfig, yes: bool) -> Result<(), Complaint> {
    with_coordinator(cluster, async |coordinator| {
        let view = view(coordinator).await?;
        let epoch = epoch(&view)?;
        let config = view.config.as_ref().map(|config| &config.value);
        let Some(config) = config.filter(|config| config.is_sync()) else {
            return Err(Complaint::failure("the cluster's durability is async: nothing waits")
                .with_fix("see `mainstay status`"));
        };
        if config.degraded {
            return Err(Complaint::failure("the cluster keeps fewer copies already")
                .with_fix("it ends by itself when enough voters are back"));
        }
        say(&format!(
            "Writes now need {} of {} voters. Degraded, the leader acknowledges with its own copy \
             alone until enough voters are back; until then the loss of its disk loses what was \
             acknowledged, and no other replica takes over without it.\n",
            config.write_quorum,
            config.voters.len()
        ))?;
        confirm(yes, "go on with one copy?")?;
        put(coordinator, &view, "degrade", &Request::Degrade { epoch, at: now() }).await?;
        say("the leader is asked to; it does so only while it hears too few voters\n")
    })
}

/// Puts back the config on `node`'s disk into a coordinator that lost it.
pub(super) fn recover(cluster: &ClusterConfig, from: &str, yes: bool) -> Result<(), Complaint> {
    let node = node(from)?;
    with_coordinator(cluster, async |coordinator| {
        let view = view(coordinator).await?;
        let Some(replica) = view.replicas.get(node.as_str()).map(|replica| &replica.value) else {
            return Err(Complaint::failure(format!("{node} is not registered"))
                .with_fix("start it; it must reach the coordinator"));
        };
        let Some(stored) = replica.stored else {
            return Err(Complaint::failure(format!("{node} has no config on its disk"))
                .with_fix("name a node that was a member; see `mainstay status`"));
        };
        let newest = view.replicas.values().filter_map(|other| other.value.stored).max();
        say(&format!(
            "The config on {node} is of epoch {}, version {}{}. With it, {node} and the other \
             voters that it names can elect a leader. If a later config was in use whose voters \
             are not here, what those acknowledged is not known to them and may be lost.\n",
            stored.epoch,
            stored.version,
            if newest > Some(stored) { "; ANOTHER REPLICA HAS A NEWER ONE" } else { "" },
        ))?;
        confirm(yes, "put this config back?")?;
        put(coordinator, &view, "recover", &Request::Recover { node: node.clone(), at: now() })
            .await?;
        say(&format!("{node} is asked to put its config back\n"))
    })
}

fn node(name: &str) -> Result<NodeName, Complaint> {
    name.parse().map_err(|error| Complaint::misuse(format!("{error}")))
}

fn epoch(view: &View) -> Result<mainstay_election::values::Epoch, Complaint> {
    view.epoch.as_ref().map(|taken| taken.value.epoch).ok_or_else(|| {
        Complaint::failure("no epoch was ever taken, so there is nothing to take over")
            .with_fix("see `mainstay status`")
    })
}

/// What would be lost, as far as the coordinator shows it.
fn cost_of_failover(view: &View, target: &NodeName) -> Result<String, Complaint> {
    let Some(replica) = view.replicas.get(target.as_str()).map(|replica| &replica.value) else {
        let live: Vec<_> = view.replicas.keys().map(String::as_str).collect();
        return Err(Complaint::failure(format!("{target} is not registered as a replica"))
            .with_fix(format!("name one of those that are: {}", live.join(", "))));
    };
    if replica.building {
        return Err(Complaint::failure(format!("{target}'s copy is not complete"))
            .with_fix("name another node; an incomplete copy is of no moment that ever was"));
    }
    let best = view.replicas.values().map(|other| &other.value).max_by_key(|it| it.position);
    let best = best.filter(|best| best.position > replica.position);
    Ok(match best {
        Some(best) => format!(
            "{target} is at {}; the furthest that is registered, {}, is at {}: at least {} ops \
             are not on {target}. What a replica that is not registered has is not known.\n",
            replica.position,
            best.node,
            best.position,
            best.position.seq.0.saturating_sub(replica.position.seq.0)
        ),
        None => format!(
            "{target} is at {}, as far as any that is registered. What a replica that is not \
             registered has is not known.\n",
            replica.position
        ),
    })
}

/// Asks, unless it was answered beforehand.
fn confirm(yes: bool, question: &str) -> Result<(), Complaint> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Complaint::misuse("this cannot be undone, and nobody can be asked here")
            .with_fix("add --yes if it is really wanted"));
    }
    say(&format!("{question} [yes/no] "))?;
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "yes") => Ok(()),
        _ => Err(Complaint::failure("nothing was asked for").with_fix("answer `yes` to go on")),
    }
}
