//! Who may take over in async durability, and how far the service may run ahead of them.
//!
//! Mirrors `src/replica/eligible.rs` around the very rule that the daemon decides by
//! (`src/replica/bound.rs`, which is compiled in here). Every op is as large as a write can be.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_election::machine::Event;
use mainstay_election::values::{self, NodeName};
use mainstay_sync::position::Seq;

use super::bound::{self, Heir, WRITE_BYTES};
use super::convert;
use super::world::World;

impl World {
    /// One round of `eligible::keep`.
    pub fn keep_heirs(&mut self, node: usize) {
        if self.plan.sync {
            return;
        }
        let heirs = self.heirs(node);
        let (head, ttl, now) = (self.nodes[node].disk.head().seq, self.settings.ttl, self.now);
        let patience = self.settings.suspect_after;
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(view) = process.looker.view.clone() else { return };
        let Some(config) = view.config.as_ref().map(|config| &config.value) else { return };
        let committed = process.tally.committed();
        let Some(leading) = process.leading_mut() else { return };
        let decision = bound::decide(config.max_lag, &heirs, leading.wants, patience);
        let out_of_time = decision.time.is_some_and(|left| left.is_zero());
        let room = decision.bytes.map(|bytes| if out_of_time { 0 } else { bytes / WRITE_BYTES });
        leading.allowed = room.map(|room| Seq(head.0 + room));
        let waits_for = decision.slowed_by;
        let mut events = Vec::new();
        for name in &decision.dismissed {
            let listed = config.eligible.iter().find(|member| member.node == *name);
            let volume = match (listed, leading.asked.get_mut(name)) {
                (Some(member), _) => member.volume,
                (None, Some((_, Some(_)))) | (None, None) => continue,
                (None, Some((volume, off))) => {
                    *off = Some(now);
                    *volume
                }
            };
            events.push(Event::Eligible { node: name.clone(), volume, eligible: false });
        }
        let is_listed = |name: &NodeName, volume: values::VolumeId| {
            config.eligible.iter().any(|member| member.node == *name && member.volume == volume)
        };
        leading.asked.retain(|name, (volume, off)| {
            !is_listed(name, *volume) && off.is_none_or(|off| now < off + ttl)
        });
        let mut new = false;
        let seats = leading.seats.clone();
        for (follower, id) in seats {
            let Some(server) = self.sessions.get(&id).and_then(|it| it.server.as_ref()) else {
                continue;
            };
            let (name, volume) =
                (self.nodes[follower].name.clone(), convert::volume(server.volume));
            let lag = (head.0 - server.durable.0.min(head.0)) * WRITE_BYTES;
            let caught_up =
                committed > Seq(0) && server.snapshot.is_none() && server.durable >= committed;
            let fits = config.max_lag.bytes.is_none_or(|max| lag + WRITE_BYTES <= max / 2);
            if is_listed(&name, volume) || decision.dismissed.contains(&name) {
                continue;
            }
            let process = self.nodes[node].process.as_mut();
            let Some(leading) = process.and_then(|process| process.leading_mut()) else { continue };
            let bounded = leading.asked.get(&name) == Some(&(volume, None));
            let comes = !bounded && caught_up && fits;
            if comes {
                leading.asked.insert(name.clone(), (volume, None));
                new = true;
            }
            if bounded {
                events.push(Event::Eligible { node: name, volume, eligible: true });
            }
        }
        if let Some(slow) = waits_for {
            self.tell(node, || format!("its service waits for {slow}"));
        }
        events.into_iter().for_each(|event| self.machine(node, event));
        if new {
            self.keep_heirs(node);
        }
    }

    /// Everybody who may take over, or may have been let in by now, with what it lacks.
    fn heirs(&self, node: usize) -> Vec<Heir> {
        let at = &self.nodes[node];
        let (Some(process), Some(leading)) = (&at.process, at.leadership()) else {
            return Vec::new();
        };
        let Some(view) = &process.looker.view else { return Vec::new() };
        let Some(config) = view.config.as_ref().map(|config| &config.value) else {
            return Vec::new();
        };
        let head = at.disk.head().seq;
        let asked = leading.asked.iter().map(|(name, (volume, _))| (name.clone(), *volume));
        let mut all: BTreeMap<NodeName, values::VolumeId> = asked.collect();
        let listed = config.eligible.iter().map(|member| (member.node.clone(), member.volume));
        all.extend(listed.filter(|(name, _)| *name != at.name));
        let lag = |durable: Seq| (head.0 - durable.0.min(head.0)) * WRITE_BYTES;
        let heir = |(name, volume): (NodeName, values::VolumeId)| {
            let seats = leading.seats.iter().filter(|(of, _)| self.nodes[*of].name == name);
            let server = seats
                .filter_map(|(_, id)| self.sessions.get(id)?.server.as_ref())
                .find(|server| convert::volume(server.volume) == volume);
            let registered = view
                .replicas
                .get(name.as_str())
                .map(|replica| &replica.value)
                .filter(|replica| replica.volume == volume)
                .map(|replica| convert::to_log_position(replica.position))
                .filter(|position| at.disk.lineage().epoch_at(position.seq) == Some(position.epoch))
                .map_or(Seq(0), |position| position.seq);
            let began = self.now.saturating_sub(leading.began);
            let (durable, connected, silent) = match server {
                Some(server) => (server.durable, true, self.now.saturating_sub(server.heard)),
                None => (registered, false, began),
            };
            let fine =
                mutant!("last-report-counts-for-ever") && silent > Duration::from_millis(300);
            let lag_bytes = if fine { 0 } else { lag(durable) };
            Heir { node: name, lag_bytes, lag_ms: 0, connected, silent }
        };
        all.into_iter().map(heir).collect()
    }

    /// Whether the service may append one more op (`Progress::allowed`).
    pub fn may_append(&mut self, node: usize) -> bool {
        let head = self.nodes[node].disk.head().seq;
        let Some(process) = &mut self.nodes[node].process else { return false };
        let Some(leading) = process.leading_mut() else { return false };
        let room = leading.allowed.is_none_or(|allowed| head < allowed);
        leading.wants = !room;
        room || mutant!("writes-run-ahead")
    }
}
