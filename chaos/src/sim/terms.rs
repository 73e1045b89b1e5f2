//! By which terms a leader acknowledges, and what it tells the election of its voters.
//!
//! Mirrors `src/replica/quorum.rs` (the rule, `quorum_heard`, `caught_up`, `covered`) and
//! `src/replica/rules.rs` (`stored`).

use std::sync::Arc;
use std::time::Duration;

use mainstay_election::machine::Moment;
use mainstay_election::values::{Config, Member, Term, Terms};
use mainstay_election::view::View;
use mainstay_sync::commit::Rule;
use mainstay_sync::position::{Epoch, Seq, VolumeId};

use super::convert;
use super::plan::Cue;
use super::world::{Happening, World};

/// `PAUSE` and `INTERVAL` of `quorum.rs`: acknowledgements come all the time.
const KEEP_MS: (u64, u64) = (5, 100);

/// The part of a report that only a leader has.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// When the newest word was sent that every quorum has answered.
    pub quorum_heard: Moment,
    /// Whose copies hold all that is committed.
    pub caught_up: Vec<Member>,
    /// The terms in force, once what was acknowledged before is on every quorum.
    pub covered: Option<Terms>,
}

impl World {
    /// A round of `quorum::keep`: the terms that the election last said, and what is known by then.
    /// Both come some time late.
    pub fn keep_quorum(&mut self, node: usize, epoch: Epoch) {
        let (life, local) = (self.nodes[node].life, self.nodes[node].leadership());
        if local.is_none_or(|leading| leading.epoch != epoch) {
            return;
        }
        let Some(process) = &self.nodes[node].process else { return };
        let changed = process.wanted != process.terms;
        let changes = process.wanted.as_ref().is_some_and(|terms| terms.0.len() > 1);
        if changed {
            self.set_terms(node);
        }
        let standing = self.leaders_standing(node);
        if let Some(process) = &mut self.nodes[node].process {
            process.standing = standing;
        }
        self.report(node);
        let pause = self.rng.ms(KEEP_MS.0, KEEP_MS.1);
        self.later(pause, Happening::Quorum { node, life, epoch });
        if changed && changes {
            self.cue(Cue::Changes, node);
        }
    }

    /// `quorum::apply`, for a leader: from now on these terms.
    pub fn set_terms(&mut self, node: usize) {
        if let Some(process) = &mut self.nodes[node].process {
            process.terms = process.wanted.clone();
        }
        let rule = self.rule(node);
        if self.nodes[node].leadership().is_none() {
            return;
        }
        self.apply_committed_only(node, self.plan.sync && rule != Rule::Local);
        if let Some(process) = &mut self.nodes[node].process {
            process.tally.set_rule(rule);
            self.committed_moved(node);
        }
    }

    /// When an op is committed.
    pub fn rule(&self, node: usize) -> Rule {
        let at = &self.nodes[node];
        let terms = at.process.as_ref().and_then(|process| process.terms.as_ref());
        let rules = terms.into_iter().flat_map(|terms| &terms.0).map(|term| match term {
            Term::Local => Rule::Local,
            Term::Quorum { voters, needed } => Rule::Quorum {
                peers: voters
                    .iter()
                    .map(|volume| convert::to_log_volume(*volume))
                    .filter(|volume| *volume != at.disk.volume)
                    .collect(),
                needed: usize::try_from(*needed).unwrap_or(usize::MAX),
            },
        });
        rules
            .reduce(|old, new| Rule::Both(Box::new(old), Box::new(new)))
            .unwrap_or(Rule::Quorum { peers: Vec::new(), needed: usize::MAX })
    }

    /// What a leader knows of its voters.
    pub fn leaders_standing(&self, node: usize) -> Standing {
        let at = &self.nodes[node];
        let (Some(process), Some(leading)) = (&at.process, at.leadership()) else {
            return Standing::default();
        };
        let Some(terms) = &process.terms else { return Standing::default() };
        let servers = leading
            .seats
            .iter()
            .filter_map(|(of, id)| Some((*of, self.sessions.get(id)?.server.as_ref()?)));
        let committed = process.tally.committed();
        let member = |of: usize, volume| Member {
            node: self.nodes[of].name.clone(),
            volume: convert::volume(volume),
        };
        let mut caught_up = vec![member(node, at.disk.volume)];
        caught_up.extend(
            servers
                .clone()
                .filter(|_| committed > Seq(0))
                .filter(|(_, server)| {
                    let whole = server.snapshot.is_none() && server.durable >= committed;
                    whole || mutant!("voters-let-in-unseen")
                })
                .map(|(of, server)| member(of, server.volume)),
        );
        let now = at.local(self.now);
        let heard = |volume: VolumeId| match volume == at.disk.volume {
            true => now,
            false => servers
                .clone()
                .filter(|(_, server)| server.volume == volume)
                .map(|(_, server)| server.echoed)
                .max()
                .unwrap_or(Moment::NEVER),
        };
        let quorum_heard =
            terms.0.iter().map(|term| nth(term, now, heard)).min().unwrap_or_default();
        let covers = process.tally.covered() || mutant!("voters-let-in-unseen");
        Standing { quorum_heard, caught_up, covered: covers.then(|| terms.clone()) }
    }

    /// A replica keeps the newest config that it sees; durable some time later.
    pub fn remember_config(&mut self, node: usize, view: &View) {
        let at = &self.nodes[node];
        let Some(config) = view.config.as_ref().map(|config| &config.value) else { return };
        let newer = at.disk.config.as_ref().is_none_or(|stored| stored.mark() < config.mark());
        // A blank volume joins no cluster by reading of it.
        if at.disk.cluster.is_none_or(|ours| ours.0 != config.cluster.0) {
            return;
        }
        let leads = at.process.as_ref().is_some_and(|process| process.leading.is_some());
        let (life, sync, config) = (at.life, config.is_sync(), Arc::new(config.clone()));
        if !leads {
            self.apply_committed_only(node, sync);
        }
        if newer {
            let pause = self.rng.ms(0, 6) + Duration::from_micros(100);
            self.later(pause, Happening::Stored { node, life, config });
        }
    }

    /// It is durable.
    pub fn stored(&mut self, node: usize, config: Arc<Config>) {
        let disk = &mut self.nodes[node].disk;
        if disk.config.as_ref().is_none_or(|stored| stored.mark() < config.mark()) {
            disk.config = Some(config);
            self.report(node);
        }
    }
}

/// What as many of a term's voters as it needs have at least.
fn nth<T: Ord + Copy + Default>(term: &Term, here: T, of: impl Fn(VolumeId) -> T) -> T {
    let Term::Quorum { voters, needed } = term else { return here };
    let mut all: Vec<T> = voters.iter().map(|volume| of(convert::to_log_volume(*volume))).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    let at = usize::try_from(*needed).unwrap_or(usize::MAX).max(1) - 1;
    all.get(at).copied().unwrap_or_default()
}
