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

/// Says which epoch would end if leadership went to `target`, or to the best if none is named, and
/// who that is. The request must name it: the election by itself might well take the old leader
/// again, who holds as much as anybody.
///
/// # Errors
/// Nobody leads, or who is named, or everybody, is unfit to take over.
pub fn choose(view: &View, target: Option<&NodeName>) -> Result<(Epoch, NodeName), Refusal> {
    let (Some(leader), Some(config)) = (&view.leader, &view.config) else {
        let fix = "see `mainstay status` for why nobody does";
        return Err(Refusal::new("nobody leads, so there is nothing to hand over", fix));
    };
    let (leader, config) = (&leader.value, &config.value);
    let Some(target) = target else {
        let others = view.replicas.values().map(|other| &other.value);
        let fit = others
            .filter(|other| other.node != leader.node && check_candidate(config, other).is_ok());
        let best = fit.min_by_key(|other| (-other.tags.priority, other.lag.ops, &other.node));
        let nobody = || {
            let fix = "see in `mainstay status` what each replica lacks";
            Refusal::new("nobody could take over now", fix)
        };
        return best.map(|best| (leader.epoch, best.node.clone())).ok_or_else(nobody);
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
    check_candidate(config, &replica.value).map(|()| (leader.epoch, target.clone()))
}

/// Ambassadors that may still forward new clients to the leader: they have not said yet that they
/// act by its newest word, or it is not the word to hold.
#[must_use]
pub fn still_forwarding(view: &View) -> Vec<&str> {
    let Some(leader) = &view.leader else { return Vec::new() };
    let newest = u64::try_from(leader.modified.0).unwrap_or(0);
    let all = view.ambassadors.values().map(|stored| &stored.value);
    let late = all.filter(|one| one.forwards || one.acts_on < newest);
    late.map(|one| one.id.as_str()).collect()
}

/// Clients that are connected through ambassadors, as those say who hold.
#[must_use]
pub fn still_connected(view: &View) -> u64 {
    view.ambassadors.values().filter_map(|stored| stored.value.open).sum()
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
    if !config.candidates().contains(&member) {
        return Err(Refusal::new(format!("{node} has not caught up yet: it is no heir"), wait));
    }
    if replica.lag.ms > LAG_MS_MAX {
        let behind = replica.lag.ms;
        return Err(Refusal::new(format!("{node} is {behind} ms behind the leader"), wait));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mainstay_election::coordinator::{Contents, Entry, Revision};
    use mainstay_election::values::{self, encode, keys};

    use super::*;

    fn entry(key: String, value: Vec<u8>, modified: i64) -> Entry {
        let (created, modified) = (Revision(1), Revision(modified));
        Entry { key, value, created, modified, lease: None }
    }

    fn ambassador(id: &str, acts_on: u64, open: Option<u64>) -> Entry {
        let (listen, version) = (String::new(), String::new());
        let forwards = open.is_none();
        let value =
            values::Ambassador { id: id.to_owned(), listen, version, acts_on, forwards, open };
        entry(keys::ambassador(id), encode(&value), 1)
    }

    #[test]
    fn an_ambassador_holds_only_by_the_leaders_newest_word() {
        let leader = values::Leader {
            node: "a".parse().unwrap(),
            volume: values::VolumeId([1; 16]),
            epoch: Epoch(3),
            peer: String::new(),
            service: None,
            ready: false,
            nonce: values::Nonce([1; 16]),
        };
        let entries = vec![
            entry(keys::LEADER.to_owned(), encode(&leader), 20),
            ambassador("forwards", 20, None),
            // It held before the leader last was ready, and may have begun to forward since.
            ambassador("held-before", 19, Some(0)),
            ambassador("holds", 20, Some(3)),
            ambassador("holds-too", 21, Some(2)),
        ];
        let view = View::parse(&Contents { revision: Revision(22), entries }).unwrap();
        assert_eq!(still_forwarding(&view), ["forwards", "held-before"]);
        assert_eq!(still_connected(&view), 5);
    }
}
