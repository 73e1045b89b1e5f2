//! By which terms a leader acknowledges, and what it tells the election of its voters.
//!
//! Mirrors what `src/replica/lead.rs` makes of `Effect::Terms`, and what it puts on the board for
//! `Report::{quorum_heard, caught_up, covered, stored}`.

use std::sync::Arc;
use std::time::Duration;

use mainstay_election::machine::Moment;
use mainstay_election::values::{Config, Member, Term, Terms};
use mainstay_election::view::View;
use mainstay_sync::commit::Rule;
use mainstay_sync::position::{Seq, VolumeId};

use super::convert;
use super::world::{Happening, World};

/// The part of a report that only a leader has.
#[derive(Debug, Default)]
pub struct Standing {
    /// When the newest word was sent that every quorum has answered.
    pub quorum_heard: Moment,
    /// Whose copies hold all that is committed.
    pub caught_up: Vec<Member>,
    /// The terms in force, once what was acknowledged before is on every quorum.
    pub covered: Option<Terms>,
}

impl World {
    /// `Effect::Terms`: from now on these, beginning with the next acknowledgement.
    pub fn set_terms(&mut self, node: usize) {
        let rule = self.rule(node);
        if let Some(process) = &mut self.nodes[node].process
            && let Some(leading) = process.leading_mut()
        {
            leading.acknowledged_before = leading.tally.committed().max(Seq(leading.start.0 - 1));
            leading.tally.set_rule(rule);
            self.committed_moved(node);
            self.report(node);
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
            .filter_map(|(of, id)| Some((*of, self.sessions.get(id)?.server.as_ref()?)))
            .filter(|(_, server)| server.started);
        let committed = leading.tally.committed();
        let caught_up = servers
            .clone()
            .filter(|(_, server)| committed >= leading.start && server.durable >= committed)
            .map(|(of, server)| Member {
                node: self.nodes[of].name.clone(),
                volume: convert::volume(server.volume),
            })
            .collect();
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
        let durable = |volume: VolumeId| match volume == at.disk.volume {
            true => at.disk.durable,
            false => leading
                .copies
                .iter()
                .find(|(of, _)| *of == volume)
                .map_or(Seq(0), |(_, durable)| *durable),
        };
        let quorum_heard =
            terms.0.iter().map(|term| nth(term, now, heard)).min().unwrap_or_default();
        // The terms that were in force before were met when it was acknowledged.
        let newest = terms.0.last().map(|term| nth(term, at.disk.durable, durable));
        let covers = newest.is_some_and(|seq| seq >= leading.acknowledged_before)
            || mutant!("covered-without-looking");
        Standing { quorum_heard, caught_up, covered: covers.then(|| terms.clone()) }
    }

    /// A replica keeps the newest config that it sees; durable some time later.
    pub fn remember_config(&mut self, node: usize, view: &View) {
        let at = &self.nodes[node];
        let Some(config) = view.config.as_ref().map(|config| &config.value) else { return };
        let newer = at.disk.config.as_ref().is_none_or(|stored| stored.mark() < config.mark());
        // A blank volume is of no cluster whose config it could keep.
        if newer && at.disk.cluster.is_none_or(|ours| ours.0 == config.cluster.0) {
            let (life, config) = (at.life, Arc::new(config.clone()));
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
