//! Who should lead next, by the ballots: the one place where an election is decided.
//!
//! Every candidate computes the same order from the same view, and the transaction that takes the
//! epoch lets only one of them through; hence a wrong order costs data or time, never two leaders.
//!
//! A ballot counts if its maker has promised to take nothing of any epoch up to `sealed`: only
//! then is the position in it final.

use std::cmp::Reverse;

use crate::values::{Ballot, Config, Durability, Epoch, Member, NodeName, Position, Request};
use crate::view::View;

/// The state of one election.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Who may bid and has a ballot that counts, the best first.
    pub(crate) order: Vec<(Member, Position)>,
    /// The ballots that count of those who do not want to lead (sync): what they hold matters all
    /// the same.
    pub(crate) witnesses: Vec<Position>,
    /// So many ballots must say no more than the winner's.
    pub(crate) needed: usize,
    /// Who may bid and is alive, but has not balloted.
    pub(crate) silent: Vec<NodeName>,
    /// Who may bid and is not there at all.
    pub(crate) absent: Vec<NodeName>,
}

impl Tally {
    pub(crate) fn count(view: &View, config: &Config, sealed: Epoch) -> Tally {
        let wish = Wish::of(view);
        let mut tally = Tally { needed: needed(view, config), ..Tally::default() };
        let mut ballots: Vec<&Ballot> = Vec::new();
        for member in candidates(view, config, &wish) {
            let Some(replica) = view.replicas.get(member.node.as_str()) else {
                tally.absent.push(member.node);
                continue;
            };
            let replica = &replica.value;
            if replica.volume != member.volume || replica.building {
                tally.absent.push(member.node);
            } else if replica.tags.nofailover && !wish.names(&member.node) {
                // It asked to be left out, and in async its data with it. In sync what it
                // acknowledged counts like anybody's.
                let witness = counted(view, &member, sealed).filter(|_| config.is_sync());
                tally.witnesses.extend(witness.map(|ballot| ballot.position));
            } else if let Some(ballot) = counted(view, &member, sealed) {
                ballots.push(ballot);
            } else {
                tally.silent.push(member.node);
            }
        }
        ballots.sort_by_key(|ballot| {
            (
                Reverse(wish.forces(&ballot.node)),
                Reverse(if mutant!("ballot-position-ignored") {
                    Position::default()
                } else {
                    ballot.position
                }),
                Reverse(wish.names(&ballot.node)),
                ballot.backlog,
                Reverse(ballot.priority),
                ballot.node.clone(),
            )
        });
        tally.order = ballots
            .into_iter()
            .map(|ballot| {
                (Member { node: ballot.node.clone(), volume: ballot.volume }, ballot.position)
            })
            .collect();
        tally
    }

    /// How many are placed better than `node`; none if it is no candidate.
    pub(crate) fn rank(&self, node: &NodeName) -> Option<u32> {
        let at = self.order.iter().position(|(member, _)| member.node == *node)?;
        u32::try_from(at).ok()
    }

    /// Whether `node` has everything that was ever acknowledged, by what the ballots say.
    ///
    /// Among its makers of `needed` ballots is one of every write quorum, and each of them has
    /// promised, so what those ballots do not show was not acknowledged and never will be. Hence
    /// whoever has as much as all of them lacks nothing, even if a ballot beyond these says more.
    /// In async durability its own ballot is enough.
    pub(crate) fn has_everything(&self, node: &NodeName) -> bool {
        if mutant!("ballot-position-ignored") {
            return true;
        }
        let Some((_, ours)) = self.order.iter().find(|(member, _)| member.node == *node) else {
            return false;
        };
        let all = self.order.iter().map(|(_, position)| position).chain(&self.witnesses);
        all.filter(|theirs| *theirs <= ours).count() >= self.needed
    }

    /// How many ballots count.
    pub(crate) fn ballots(&self) -> usize {
        self.order.len() + self.witnesses.len()
    }

    /// Whose ballot says the most, if that is more than `node` has.
    pub(crate) fn better_than(&self, node: &NodeName) -> Option<&NodeName> {
        let (best, _) = self.order.iter().max_by_key(|(_, position)| *position)?;
        (best.node != *node).then_some(&best.node)
    }

    /// Who may take over from the winner at `position`: those whose ballots say that they have no
    /// more than it has. Anyone else first has to be seen catching up, because what it lacks by
    /// now, or has too much, nobody has measured.
    pub(crate) fn heirs(&self, position: Position) -> Vec<Member> {
        let mut heirs: Vec<Member> = self
            .order
            .iter()
            .filter(|(_, theirs)| *theirs <= position)
            .map(|(member, _)| member.clone())
            .collect();
        heirs.sort();
        heirs
    }
}

/// What the operator asked for, as far as it concerns the epoch that just ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// A planned hand-over is under way.
    pub(crate) switchover: bool,
    /// Failovers are paused.
    pub(crate) paused: bool,
    target: Option<NodeName>,
    forced: Option<NodeName>,
    loss_allowed: bool,
}

impl Wish {
    pub(crate) fn of(view: &View) -> Wish {
        let current = view.epoch.as_ref().map(|taken| taken.value.epoch).unwrap_or_default();
        let mut wish = Wish::default();
        for request in view.requests.values() {
            match &request.value {
                Request::Pause { .. } => wish.paused = true,
                Request::Switchover { target, epoch, .. } if *epoch == current => {
                    wish.switchover = true;
                    wish.target.clone_from(target);
                }
                Request::Failover { target, allow_data_loss, epoch, .. } if *epoch == current => {
                    wish.forced = Some(target.clone());
                    wish.loss_allowed = *allow_data_loss;
                }
                _ => {} // for an epoch that is over
            }
        }
        wish
    }

    /// `node` is asked for by name, if its position is as good as any.
    pub(crate) fn names(&self, node: &NodeName) -> bool {
        self.target.as_ref() == Some(node) || self.forces(node)
    }

    /// `node` is to lead although others may be placed better.
    pub(crate) fn forces(&self, node: &NodeName) -> bool {
        self.forced.as_ref() == Some(node)
    }

    /// `node` may lead although nobody knows how much it lacks.
    pub(crate) fn allows_loss(&self, node: &NodeName) -> bool {
        self.loss_allowed && self.forces(node)
    }

    /// An operator takes the loss of what nobody here has.
    pub(crate) fn loss_allowed(&self) -> bool {
        self.loss_allowed && self.forced.is_some()
    }

    /// An election may go on: nothing is paused, or an operator wants this very one.
    pub(crate) fn lets_elect(&self) -> bool {
        !self.paused || self.switchover || self.forced.is_some()
    }
}

/// How many ballots an election takes: more from a leader that may still be there.
pub(super) fn needed(view: &View, config: &Config) -> usize {
    match &view.leader {
        Some(_) if config.is_sync() => config.ballots_to_depose(),
        _ => config.ballots_needed(),
    }
}

/// Those whom the config lets take over, and in async a replica that an operator forces into their
/// place. The latter must be of this cluster: a blank volume is no choice, whatever loss is allowed.
/// In sync it is no choice at all: a leader that is no voter would count itself as a copy.
fn candidates(view: &View, config: &Config, wish: &Wish) -> Vec<Member> {
    let mut members = config.candidates().to_vec();
    members.extend(
        view.replicas
            .values()
            .map(|replica| &replica.value)
            .filter(|_| config.durability == Durability::Async)
            .filter(|replica| wish.allows_loss(&replica.node))
            .filter(|replica| replica.cluster == Some(config.cluster))
            .map(|replica| Member { node: replica.node.clone(), volume: replica.volume }),
    );
    members.sort();
    members.dedup();
    members
}

fn counted<'a>(view: &'a View, member: &Member, sealed: Epoch) -> Option<&'a Ballot> {
    let ballot = &view.ballots.get(member.node.as_str())?.value;
    (ballot.volume == member.volume && ballot.promised == sealed.next()).then_some(ballot)
}
