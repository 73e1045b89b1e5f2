//! May leadership be handed over, and to whom? Asked by the command before it requests it, and by
//! the leader again before it stops anything. Pure.

use mainstay_election::values::{Config, Epoch, Member, NodeName, Replica, Role};
use mainstay_election::view::View;

/// A candidate further behind would make clients wait for longer than a hand-over should take.
const LAG_MS_MAX: u64 = 5_000;

/// Why leadership is not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {fix}")]
pub struct Refusal {
    /// What stands against it.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl Refusal {
    /// With what to do about it.
    pub fn new(what: impl Into<String>, fix: impl Into<String>) -> Refusal {
        Refusal { what: what.into(), fix: fix.into() }
    }
}

/// Says which epoch would end if leadership went to `target`, or to the best if none is named.
///
/// # Errors
/// Nobody leads, or who is named, or everybody, is unfit to take over.
pub fn check(view: &View, target: Option<&NodeName>) -> Result<Epoch, Refusal> {
    let (Some(leader), Some(config)) = (&view.leader, &view.config) else {
        let fix = "see `mainstay status` for why nobody does";
        return Err(Refusal::new("nobody leads, so there is nothing to hand over", fix));
    };
    let (leader, config) = (&leader.value, &config.value);
    let Some(target) = target else {
        let mut others = view.replicas.values().filter(|other| other.value.node != leader.node);
        return match others.any(|other| check_candidate(config, &other.value).is_ok()) {
            true => Ok(leader.epoch),
            false => Err(Refusal::new(
                "nobody could take over now",
                "see in `mainstay status` what each replica lacks",
            )),
        };
    };
    if leader.node == *target {
        return Err(Refusal::new(format!("{target} leads already"), "name another node"));
    }
    let Some(replica) = view.replicas.get(target.as_str()) else {
        let live: Vec<_> = view.replicas.keys().map(String::as_str).collect();
        return Err(Refusal::new(
            format!("{target} is not registered as a replica"),
            format!("name one of those that are: {}", live.join(", ")),
        ));
    };
    check_candidate(config, &replica.value).map(|()| leader.epoch)
}

fn check_candidate(config: &Config, replica: &Replica) -> Result<(), Refusal> {
    let node = &replica.node;
    let wait = "wait until `mainstay status` shows it as an heir, or name another node";
    if replica.tags.nofailover {
        let fix = "remove `tags.nofailover` there, or name another node";
        return Err(Refusal::new(format!("{node} must not lead (nofailover, or unfit)"), fix));
    }
    if replica.building {
        return Err(Refusal::new(format!("{node}'s copy is not complete yet"), wait));
    }
    if replica.role != Role::Follower {
        return Err(Refusal::new(format!("{node} does not follow: {}", replica.state), wait));
    }
    let member = Member { node: node.clone(), volume: replica.volume };
    if !config.eligible.contains(&member) {
        return Err(Refusal::new(format!("{node} has not caught up yet: it is no heir"), wait));
    }
    if replica.lag.ms > LAG_MS_MAX {
        let behind = replica.lag.ms;
        return Err(Refusal::new(format!("{node} is {behind} ms behind the leader"), wait));
    }
    Ok(())
}
