//! A coordinator that lost its data, or was restored from an older backup.
//!
//! Every replica keeps the newest config it saw on its disk, and its vow and position say which
//! epochs there were. So the config can be put back, and no epoch is used twice: the next one is
//! past everything that anybody knows.
//!
//! The hazard is to put back a config that a later one replaced: its voters could elect a leader
//! that lacks what the later one's acknowledged. A new config comes into use only once it is
//! durable on a write quorum of the one before, so whoever sees *all* voters of a config, and none
//! of them with a newer one, has the newest. Fewer are enough only for an operator who says so. A
//! leader knows that its own config is the newest once a write quorum has answered it after it saw
//! the loss: then nobody was elected before it, of whom the coordinator says nothing any more.

use std::sync::Arc;

use crate::machine::judge::Judgement;
use crate::machine::writes::Wish;
use crate::machine::{Directive, Machine, Report, Waiting};
use crate::values::{Config, ConfigMark, NodeName, Request};
use crate::view::View;

impl Machine {
    /// The config on this disk, if the coordinator has none or an older one of this cluster; or if
    /// it knows an older epoch than the one that is led here.
    pub(super) fn lost_config<'a>(
        &self,
        view: &View,
        report: &'a Report,
    ) -> Option<&'a Arc<Config>> {
        let stored = report.stored.as_ref()?;
        let taken = view.epoch.as_ref().map(|taken| taken.value.epoch);
        if self.leads().is_some_and(|epoch| taken.is_none_or(|taken| taken < epoch)) {
            return Some(stored);
        }
        // The replica may have stored what a newer view than this one showed it.
        if self.viewed_at < self.stored_at {
            return None;
        }
        match &view.config {
            None => Some(stored),
            Some(config) => {
                let (ours, theirs) = (stored, &config.value);
                (ours.cluster == theirs.cluster && ours.mark() > theirs.mark()).then_some(stored)
            }
        }
    }

    /// What to do about a config that the coordinator lost; none if it did not.
    ///
    /// Who hears its leader goes on following it: that leader puts the config back, once enough
    /// such followers have answered it.
    pub(super) fn judge_lost(&self, view: &View, report: &Report) -> Option<Judgement> {
        let newest = newest_elsewhere(view, report);
        let heard = self.directive.as_ref().filter(|directive| {
            matches!(directive, Directive::Follow { epoch, .. } if self.hears(report, *epoch))
        });
        let lost = |holder, missing| match heard {
            Some(follow) => Judgement::be(follow.clone()),
            None => Judgement::freeze(Waiting::ConfigLost { holder, missing }),
        };
        let stored = match self.lost_config(view, report) {
            Some(stored) => stored,
            None => {
                // Another disk may have what the coordinator lost while ours is blank.
                let known = view.config.as_ref().map(|config| config.value.mark());
                let (_, holder) = newest.filter(|(mark, _)| Some(*mark) > known)?;
                return Some(lost(holder, Vec::new()));
            }
        };
        let operator = view.requests.values().any(|request| {
            matches!(&request.value, Request::Recover { node, .. } if *node == self.identity.node)
        });
        if let Some((_, holder)) = newest.filter(|(mark, _)| *mark > stored.mark()) {
            return Some(lost(holder, Vec::new()));
        }
        let me = self.member(report);
        let missing: Vec<NodeName> = stored
            .candidates()
            .iter()
            .filter(|member| {
                let seen = view.replicas.get(member.node.as_str()).map(|seen| &seen.value);
                **member != me && seen.is_none_or(|seen| seen.volume != member.volume)
            })
            .map(|member| member.node.clone())
            .collect();
        let all = missing.is_empty() || mutant!("rebuilt-without-all-voters");
        let here = all && heard.is_none() && self.lease.usable(self.now).is_some();
        let judgement = lost(self.identity.node.clone(), missing);
        Some(if here || operator { judgement.wishing(Wish::Rebuild) } else { judgement })
    }
}

/// The newest config that another live replica of this cluster has on its disk.
fn newest_elsewhere(view: &View, report: &Report) -> Option<(ConfigMark, NodeName)> {
    let ours = report.cluster;
    view.replicas
        .values()
        .map(|replica| &replica.value)
        .filter(|replica| replica.volume != report.volume)
        .filter(|replica| ours.is_none() || replica.cluster == ours)
        .filter_map(|replica| Some((replica.stored?, replica.node.clone())))
        .max()
}
