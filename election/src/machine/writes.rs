//! The transactions: what each compares and what it writes.
//!
//! Every one of them may arrive late or twice, so each compares all that it was decided by, or is
//! harmless at any time (a registration, a ballot: the next view shows it, and the right one is
//! written again).

use crate::coordinator::{Compare, LeaseId, Write};
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
    /// Change voters, write quorum or durability.
    Reconfigure,
    /// Put the leader's key of our own epoch again (sync).
    Restore,
    /// Take another epoch for the leadership that goes on, so that voters which promised the old
    /// one away follow again (sync).
    Renew,
    /// Put back what the coordinator lost.
    Rebuild,
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
            Wish::Reconfigure => {
                let config = &view.config.as_ref()?.value;
                let changed = self.config_due(config)?;
                let compares = vec![same_epoch(view), same_leader(view), view.config_unchanged()];
                let mut writes = vec![put(keys::CONFIG, encode(&changed), None)];
                writes.extend(self.change_of_copies(view, config, &changed));
                Some((compares, writes))
            }
            Wish::Restore => {
                let (epoch, lease) = (self.leads()?, self.lease.usable(self.now)?);
                let leader = Leader {
                    ready: report.ready && report.leading == Some(epoch),
                    ..self.leader_key(report, epoch)
                };
                let compares = vec![same_epoch(view), Compare::Absent(keys::LEADER.to_owned())];
                Some((compares, vec![put(keys::LEADER, encode(&leader), Some(lease))]))
            }
            Wish::Renew => self.renewal(view, report),
            Wish::Rebuild => self.rebuilt(view, report),
            Wish::RemoveLeader => {
                let compares = vec![same_epoch(view), same_leader(view)];
                Some((compares, vec![Write::Delete(keys::LEADER.to_owned())]))
            }
            Wish::Announce => self.announce(view, report),
            Wish::Eligible => {
                let changed = self.heirs_changed(&view.config.as_ref()?.value);
                let compares = vec![same_epoch(view), same_leader(view), view.config_unchanged()];
                Some((compares, vec![put(keys::CONFIG, encode(&changed), None)]))
            }
        }
    }

    /// The leader's key of this process' leadership of `epoch`, not ready.
    fn leader_key(&self, report: &Report, epoch: Epoch) -> Leader {
        Leader {
            node: self.identity.node.clone(),
            volume: report.volume,
            epoch,
            peer: self.identity.peer.clone(),
            service: report.service.clone(),
            ready: false,
            nonce: self.identity.incarnation,
        }
    }

    /// The next epoch for the leadership that goes on. Nothing is given up by it: whoever wanted
    /// to take this epoch over finds another one.
    fn renewal(&self, view: &View, report: &Report) -> Option<Transaction> {
        let (key, lease) = (self.own_key()?, self.lease.usable(self.now)?);
        let epoch = self.sealed(view).next();
        let nonce = self.identity.incarnation;
        let taken = EpochTaken { epoch, nonce, holder: self.identity.node.clone() };
        let leader = Leader { epoch, ..key.value.clone() };
        let reign = Reign {
            cause: "renewed for a voter that had promised".to_owned(),
            lost_ops: None,
            ..self.reign(view, epoch, Position { seq: report.head, ..report.position })
        };
        let compares = vec![same_epoch(view), same_leader(view), view.config_unchanged()];
        let writes = vec![
            put(keys::EPOCH, encode(&taken), None),
            put(keys::LEADER, encode(&leader), Some(lease)),
            put(&keys::reign(epoch), encode(&reign), None),
        ];
        Some((compares, writes))
    }

    /// The config of our disk, with an epoch that is past everything known: nobody's, so that it
    /// is only a floor for the next. A leader in office puts its own.
    fn rebuilt(&self, view: &View, report: &Report) -> Option<Transaction> {
        let stored = self.lost_config(view, report)?;
        let nonce = self.identity.incarnation;
        let mut writes = vec![put(keys::CONFIG, encode(&**stored), None)];
        let epoch = match self.leads() {
            Some(epoch) => {
                let lease = self.lease.usable(self.now)?;
                let leader = self.leader_key(report, epoch);
                writes.push(put(keys::LEADER, encode(&leader), Some(lease)));
                epoch
            }
            None => {
                if view.leader.is_some() {
                    writes.push(Write::Delete(keys::LEADER.to_owned()));
                }
                self.sealed(view).next()
            }
        };
        let taken = EpochTaken { epoch, nonce, holder: self.identity.node.clone() };
        writes.push(put(keys::EPOCH, encode(&taken), None));
        let compares = vec![same_epoch(view), same_leader(view), view.config_unchanged()];
        Some((compares, writes))
    }

    /// A line of history for a change that makes acknowledgements worth less, or more again.
    fn change_of_copies(&self, view: &View, old: &Config, new: &Config) -> Option<Write> {
        if old.degraded == new.degraded {
            return None;
        }
        let epoch = self.leads()?;
        let report = self.report.as_ref()?;
        let cause = match new.degraded {
            true => "degraded: fewer copies than asked for",
            false => "as many copies as asked for again",
        };
        let reign = Reign {
            cause: cause.to_owned(),
            lost_ops: None,
            previous: Some(self.identity.node.clone()),
            ..self.reign(view, epoch, report.position)
        };
        Some(put(&keys::reign_change(epoch, new.version), encode(&reign), None))
    }

    /// Takes the next epoch. That the epoch and the config (in async also the leader's absence) are
    /// as they were when this was decided makes it impossible for two to succeed, or for a late
    /// one to undo what came between.
    fn take_over(&self, view: &View, report: &Report) -> Option<Transaction> {
        let lease = self.lease.usable(self.now)?;
        let promise = self.promise.as_ref()?;
        let epoch = self.sealed(view).next();
        let (nonce, holder) = (self.identity.incarnation, self.identity.node.clone());
        let taken = EpochTaken { epoch, nonce, holder };
        let leader = self.leader_key(report, epoch);
        let config = self.config_for(view, report, epoch)?;
        let reign = self.reign(view, epoch, promise.position);
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
        let mut compares = vec![same_epoch(view), view.config_unchanged()];
        if mutant!("takeover-compares-nothing") {
            compares.clear();
        }
        // In sync the voters' promises depose a leader, whose key may well stand.
        let deposes = view.config.as_ref().is_some_and(|config| config.value.is_sync());
        if view.leader.is_none() || !deposes {
            compares.push(Compare::Absent(keys::LEADER.to_owned()));
        }
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
                version: 1,
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
        let lost = seen.map(|seen| seen.seq.0.saturating_sub(ours.seq.0));
        // What a leader last said of itself is older than what it last acknowledged, so that nothing
        // is lost is known only where the ballots say so: in sync, unless that was waived.
        let is_sync = view.config.as_ref().is_none_or(|config| config.value.is_sync());
        let proved = is_sync && !operator.allows_loss(&self.identity.node);
        let lost = lost.filter(|lost| *lost > 0 || proved);
        Reign {
            epoch,
            node: self.identity.node.clone(),
            first: ours.seq.next(),
            at: self.wall,
            cause: cause.to_owned(),
            lost_ops: lost,
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

    /// The config with our replica's wishes done of who may take over, and how far behind.
    pub(super) fn heirs_changed(&self, config: &Config) -> Config {
        Config {
            eligible: self.eligible_changed(config),
            max_lag: self.settings.max_lag,
            ..config.clone()
        }
    }

    /// The config's eligible set with our replica's wishes done. The leader is always in it.
    fn eligible_changed(&self, config: &Config) -> Vec<Member> {
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
            suspects: self.suspects(),
            stored: report.stored.as_ref().map(|config| config.mark()),
            quorum_lost_ms: self
                .quorum_lost()
                .map(|lost| u64::try_from(lost.as_millis()).unwrap_or(u64::MAX)),
            verified: report.verified.clone(),
            progress: report.progress,
            time: self.wall,
            version: self.identity.version.clone(),
            tags: Tags { nofailover, ..self.identity.tags },
        })
    }
}

fn put(key: &str, value: Vec<u8>, lease: Option<LeaseId>) -> Write {
    Write::Put(key.to_owned(), value, lease)
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
