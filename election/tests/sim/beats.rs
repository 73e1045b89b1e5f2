//! What leaders and followers say to one another outside the coordinator (sync).

use std::sync::Arc;

use mainstay_election::machine::Directive;
use mainstay_election::values::{Epoch, Term};
use mainstay_election::view::View;

use super::checks::is_met;
use super::node::{Disk, Node};
use super::world::{BEAT, Happening, World};

impl World {
    /// A replica keeps the newest config it saw on its disk.
    pub fn store(&mut self, name: &str, view: &View) {
        let Some(config) = view.config.as_ref().map(|config| &config.value) else { return };
        let node = self.node(name);
        if node.stored.as_ref().is_none_or(|stored| stored.mark() < config.mark()) {
            node.stored = Some(Arc::new(config.clone()));
            self.report(name);
        }
    }

    /// The leader's word goes round, and the answers of those who take it come back at once.
    pub fn beat(&mut self, leader: &str, epoch: Epoch) {
        if self.nodes[leader].leading != Some(epoch) {
            return;
        }
        self.later(leader, BEAT, Happening::Beat(epoch));
        let now = self.now;
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        let hear: Vec<String> =
            names.into_iter().filter(|name| self.hears(name, leader, epoch)).collect();
        let head = self.nodes[leader].disk.position;
        let mut caught_up = vec![self.member(leader)];
        for name in &hear {
            let local = self.nodes[name].local(now);
            self.node(name).heard = Some((epoch, local));
            self.report(name);
            if self.nodes[name].disk.position == head {
                caught_up.push(self.member(name));
            }
        }
        let volumes: Vec<_> = hear
            .iter()
            .map(String::as_str)
            .chain([leader])
            .map(|name| self.nodes[name].disk.volume)
            .collect();
        let from = &self.nodes[leader];
        let quorum = |term: &Term| is_met(term, &self.nodes, |disk| volumes.contains(&disk.volume));
        let heard = from.terms.as_ref().is_some_and(|terms| terms.0.iter().all(quorum));
        let acknowledged = self.checks.acknowledged;
        let has_all = |disk: &Disk| acknowledged.is_none_or(|position| disk.holds(position));
        let covered = from
            .terms
            .clone()
            .filter(|terms| terms.0.iter().all(|term| is_met(term, &self.nodes, has_all)));
        let local = self.nodes[leader].local(now);
        let node = self.node(leader);
        node.caught_up = caught_up;
        node.covered = covered;
        if heard {
            node.quorum_heard = local;
        }
        self.report(leader);
    }

    fn hears(&self, follower: &str, leader: &str, epoch: Epoch) -> bool {
        let (from, to, now) = (&self.nodes[leader], &self.nodes[follower], self.now);
        let follows =
            matches!(&to.directive, Some(Directive::Follow { epoch: of, .. }) if *of == epoch);
        let up = |node: &Node| node.machine.is_some() && !node.cut && node.paused_until <= now;
        follows && up(from) && up(to) && to.leading.is_none() && to.disk.promised < epoch
    }
}
