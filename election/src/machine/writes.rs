//! The transactions: what each compares and what it writes.
//!
//! Every one of them may arrive late or twice, so each compares all that it was decided by, or is
//! harmless at any time (a registration, a ballot: the next view shows it, and the right one is
//! written again).

use crate::coordinator::{Compare, Write};
use crate::machine::tally::{self, Tally};
use crate::machine::{Directive, Machine, Report};
use crate::values::{
    Ballot, Config, Epoch, EpochTaken, Lag, Leader, Member, Position, Reign, Replica, Role, Tags,
    encode, keys,
};
use crate::view::View;

/// A lineage in the config keeps this many epochs; a replica that lags by more of them is built
/// anew.
const LINEAGE_KEPT: usize = 512;
/// So many past epochs are told of.
const HISTORY_KEPT: usize = 256;

/// What the machine wants to happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Seal the log through this epoch (no transaction).
    Promise(Epoch),
    /// Write `replicas/<node>`.
    Register,
    /// Write `ballots/<node>`.
    Ballot,
    /// Take the next epoch, or found the cluster with the first.
    TakeOver,
    /// Delete a leader's key that guards nobody any more.
    RemoveLeader,
    /// Bring the leader's key up to date.
    Announce,
    /// Change who may take over.
    Eligible,
}

type Transaction = (Vec<Compare>, Vec<Write>);

impl Machine {
    /// The transaction for a wish; none if the ground for it is gone.
    pub(super) fn transaction(&self, wish: &Wish) -> Option<Transaction> {
        let view = self.view.as_ref()?;
        let report = self.report.as_ref()?;
        match wish {
            Wish::Promise(_) => None,
            Wish::Register => {
                let key = keys::replica(&self.identity.node);
                let lease = self.lease.usable(self.now)?;
                Some((vec![], vec![Write::Put(key, encode(&self.registration()?), Some(lease))]))
            }
            Wish::Ballot => {
                let key = keys::ballot(&self.identity.node);
                Some((vec![], vec![Write::Put(key, encode(&self.ballot(report)?), None)]))
            }
            Wish::TakeOver => self.take_over(view, report),
            Wish::RemoveLeader => {
                let compares = vec![same_epoch(view), same_leader(view)];
                Some((compares, vec![Write::Delete(keys::LEADER.to_owned())]))
            }
            Wish::Announce => self.announce(view, report),
            Wish::Eligible => {
                let config = &view.config.as_ref()?.value;
                let changed = Config { eligible: self.eligible_changed(config), ..config.clone() };
                let compares = vec![same_epoch(view), same_leader(view), view.config_unchanged()];
                let write = Write::Put(keys::CONFIG.to_owned(), encode(&changed), None);
                Some((compares, vec![write]))
            }
        }
    }

    /// Takes the next epoch. That the epoch, the config and the leader's absence are as they were
    /// when this was decided makes it impossible for two to succeed, or for a late one to undo
    /// what came between.
    fn take_over(&self, view: &View, report: &Report) -> Option<Transaction> {
        let lease = self.lease.usable(self.now)?;
        let promise = self.promise.as_ref()?;
        let epoch = self.sealed(view).next();
        let (nonce, node) = (self.identity.incarnation, self.identity.node.clone());
        let taken = EpochTaken { epoch, nonce, holder: node.clone() };
        let leader = Leader {
            node,
            volume: report.volume,
            epoch,
            peer: self.identity.peer.clone(),
            service: report.service.clone(),
            ready: false,
            nonce,
        };
        let config = self.config_for(view, report, epoch)?;
        let reign = self.reign(view, epoch, promise.position);
        let put = |key: &str, value, lease| Write::Put(key.to_owned(), value, lease);
        let mut writes = vec![
            put(keys::EPOCH, encode(&taken), None),
            put(keys::LEADER, encode(&leader), Some(lease)),
            put(keys::CONFIG, encode(&config), None),
            put(&keys::reign(epoch), encode(&reign), None),
        ];
        let old = view.history.len().saturating_sub(HISTORY_KEPT);
        writes.extend(
            view.history
                .keys()
                .take(old)
                .map(|name| Write::Delete(format!("{}{name}", keys::HISTORY))),
        );
        let compares = vec![
            same_epoch(view),
            view.config_unchanged(),
            Compare::Absent(keys::LEADER.to_owned()),
        ];
        Some((compares, writes))
    }

    fn config_for(&self, view: &View, report: &Report, epoch: Epoch) -> Option<Config> {
        let promise = self.promise.as_ref()?;
        let first = promise.position.seq.next();
        let lineage = promise.lineage.extended(epoch, first, LINEAGE_KEPT);
        let me = self.member(report);
        Some(match &view.config {
            Some(config) => {
                let config = config.value.clone();
                let tally = Tally::count(view, &config, self.sealed(view));
                Config { eligible: tally.heirs(promise.position), lineage, ..config }
            }
            None => Config {
                cluster: report.cluster.unwrap_or(self.identity.cluster_if_founded),
                voters: vec![me.clone()],
                write_quorum: 1,
                durability: self.settings.durability,
                max_lag: self.settings.max_lag,
                eligible: vec![me],
                lineage,
                degraded: false,
            },
        })
    }

    fn reign(&self, view: &View, epoch: Epoch, ours: Position) -> Reign {
        let operator = tally::Wish::of(view);
        let cause = if view.config.is_none() {
            "first start"
        } else if operator.forces(&self.identity.node) {
            "forced failover"
        } else if operator.switchover {
            "switchover"
        } else {
            "failover"
        };
        let seen = self.predecessor.as_ref().and_then(|(_, position)| *position);
        Reign {
            epoch,
            node: self.identity.node.clone(),
            first: ours.seq.next(),
            at: self.wall,
            cause: cause.to_owned(),
            lost_ops: seen.map(|seen| seen.seq.0.saturating_sub(ours.seq.0)),
            previous: view.epoch.as_ref().map(|taken| taken.value.holder.clone()),
        }
    }

    fn announce(&self, view: &View, report: &Report) -> Option<Transaction> {
        let key = self.own_key()?;
        let leader = Leader {
            ready: report.ready && report.leading == Some(key.value.epoch),
            service: report.service.clone(),
            ..key.value.clone()
        };
        let compares = vec![same_epoch(view), same_leader(view)];
        let write = Write::Put(keys::LEADER.to_owned(), encode(&leader), key.lease);
        Some((compares, vec![write]))
    }

    /// The config's eligible set with our replica's wishes done. The leader is always in it.
    pub(super) fn eligible_changed(&self, config: &Config) -> Vec<Member> {
        let mut eligible = config.eligible.clone();
        for (node, (volume, wanted)) in &self.eligible_wanted {
            if *node == self.identity.node {
                continue;
            }
            let member = Member { node: node.clone(), volume: *volume };
            eligible.retain(|old| old.node != *node || (*wanted && *old == member));
            if *wanted && !eligible.contains(&member) {
                eligible.push(member);
            }
        }
        eligible
    }

    /// Our ballot by the newest promise.
    pub(super) fn ballot(&self, report: &Report) -> Option<Ballot> {
        let promise = self.promise.as_ref()?;
        Some(Ballot {
            node: self.identity.node.clone(),
            volume: promise.volume,
            promised: promise.through.next(),
            position: promise.position,
            lineage_end: promise.lineage.last(),
            backlog: promise.position.seq.0.saturating_sub(report.applied.0),
            priority: self.identity.tags.priority,
        })
    }

    /// Our registration as it should be.
    pub(super) fn registration(&self) -> Option<Replica> {
        let report = self.report.as_ref()?;
        let (role, state) = match &self.directive {
            Some(Directive::Lead { .. }) => (Role::Leader, report.state.clone()),
            Some(Directive::Follow { .. }) => (Role::Follower, report.state.clone()),
            Some(Directive::Freeze(waiting)) => (Role::Idle, waiting.to_string()),
            Some(Directive::StepDown { why, .. }) => (Role::Idle, why.to_string()),
            Some(Directive::Blocked(blocked)) => (Role::Idle, blocked.to_string()),
            None => (Role::Idle, report.state.clone()),
        };
        // Others need not wait for the ballot of a replica that says it is unfit.
        let nofailover = self.identity.tags.nofailover || report.unfit.is_some();
        let lag = if role == Role::Leader { Lag::default() } else { report.lag };
        Some(Replica {
            node: self.identity.node.clone(),
            volume: report.volume,
            cluster: report.cluster,
            peer: self.identity.peer.clone(),
            api: self.identity.api.clone(),
            role,
            state,
            position: report.position,
            applied: report.applied,
            head: report.head,
            lag,
            promised: report.promised,
            building: report.building,
            time: self.wall,
            version: self.identity.version.clone(),
            tags: Tags { nofailover, ..self.identity.tags },
        })
    }
}

/// The epoch is the one of the view, taken by the same process. By value and not by revision: a
/// coordinator restored from a backup counts its revisions anew, but never a nonce.
fn same_epoch(view: &View) -> Compare {
    match &view.epoch {
        Some(taken) => Compare::Value(keys::EPOCH.to_owned(), taken.raw.clone()),
        None => Compare::Absent(keys::EPOCH.to_owned()),
    }
}

fn same_leader(view: &View) -> Compare {
    match &view.leader {
        Some(leader) => Compare::Value(keys::LEADER.to_owned(), leader.raw.clone()),
        None => Compare::Absent(keys::LEADER.to_owned()),
    }
}
