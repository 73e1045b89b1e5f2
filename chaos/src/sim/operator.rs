//! What operators ask for, and how a leader carries out a switchover.
//!
//! Mirrors `src/cli/emergency.rs` and `src/replica/switchover.rs`: a command only writes a request.

use std::time::Duration;

use mainstay_election::coordinator::Write;
use mainstay_election::machine::{Directive, Waiting};
use mainstay_election::values::{self, Request, UnixMs, encode, keys};
use mainstay_election::view::View;
use mainstay_sync::position::Epoch;

use super::convert;
use super::world::{Happening, World};

/// `CATCH_UP`: the successor has to have everything within this.
const CATCH_UP: Duration = Duration::from_secs(5);
const SWITCHOVER: &str = "switchover";

impl World {
    fn put_request(&mut self, name: &str, request: &Request) {
        self.say(&"OPERATOR", || format!("{request:?}"));
        let write = Write::Put(keys::request(name), encode(request), None);
        let _ = self.coordinator.transact(&[], &[write]);
    }

    fn epoch_taken(&self) -> values::Epoch {
        let view = self.coordinator.view();
        view.epoch.as_ref().map_or(values::Epoch(0), |taken| taken.value.epoch)
    }

    /// `mainstay switchover --to`.
    pub fn ask_switchover(&mut self, to: usize) {
        let (target, epoch) = (Some(self.nodes[to].name.clone()), self.epoch_taken());
        let request = Request::Switchover { target, epoch, at: UnixMs(0) };
        self.put_request(SWITCHOVER, &request);
    }

    /// `mainstay degrade`.
    pub fn ask_degrade(&mut self) {
        let request = Request::Degrade { epoch: self.epoch_taken(), at: UnixMs(0) };
        self.put_request("degrade", &request);
    }

    /// `mainstay recover`, when nothing else brings the config back: everybody who is left is there
    /// by now, and an operator names the one who has the newest.
    pub fn operator_looks(&mut self) {
        let lost = self.nodes.iter().filter_map(|node| node.process.as_ref()).any(|process| {
            let directive = process.directive.as_ref();
            matches!(directive, Some(Directive::Freeze(Waiting::ConfigLost { .. })))
        });
        let newest = self
            .nodes
            .iter()
            .max_by_key(|node| node.disk.config.as_ref().map(|config| config.mark()));
        let Some(node) = newest.filter(|_| lost).map(|node| node.name.clone()) else { return };
        self.put_request("recover", &Request::Recover { node, at: UnixMs(0) });
    }

    /// `switchover::wanted`: a request for this leadership, if it can be carried out.
    pub fn look_for_orders(&mut self, node: usize, view: &View) {
        let Some(process) = &self.nodes[node].process else { return };
        let Some(leading) = self.nodes[node].leadership() else { return };
        let request = view.requests.get(SWITCHOVER).map(|request| &request.value);
        let Some(Request::Switchover { target: Some(target), epoch, .. }) = request else { return };
        let ours = convert::to_log_epoch(*epoch) == leading.epoch;
        if !ours || !process.ready || leading.resigning {
            return;
        }
        let fit = view.config.as_ref().is_some_and(|config| {
            config.value.candidates().iter().any(|member| member.node == *target)
        });
        let target = self.nodes.iter().position(|other| other.name == *target);
        let (epoch, life) = (leading.epoch, self.nodes[node].life);
        let Some(target) = target.filter(|target| fit && *target != node) else {
            return self.refuse_switchover(epoch);
        };
        let now = self.now;
        let Some(process) = &mut self.nodes[node].process else { return };
        process.ready = false;
        let Some(leading) = process.leading_mut() else { return };
        leading.resigning = true;
        leading.heir = Some((target, now));
        self.tell(node, || "stops its service, to hand over".to_owned());
        self.report(node);
        self.later(CATCH_UP, Happening::HandedOver { node, life, epoch });
        self.give_up(node);
    }

    fn refuse_switchover(&mut self, epoch: Epoch) {
        let why = "the target does not have everything".to_owned();
        let request = Request::SwitchoverRefused { epoch: convert::epoch(epoch), why };
        self.put_request(SWITCHOVER, &request);
    }

    /// The successor had its time: if it did not come, the service is started again.
    pub fn not_handed_over(&mut self, node: usize, epoch: Epoch) {
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(leading) = process.leading_mut() else { return };
        if leading.over || leading.epoch != epoch || leading.heir.is_none() {
            return;
        }
        leading.heir = None;
        leading.resigning = false;
        self.refuse_switchover(epoch);
        let pause = self.rng.ms(20, 400);
        self.later(pause, Happening::Ready { node, life, epoch });
    }

    /// Whether whom leadership is handed to holds everything, and said so since it was asked for.
    pub fn heir_has_everything(&self, node: usize) -> bool {
        let at = &self.nodes[node];
        let Some(leading) = at.leadership() else { return false };
        let Some((heir, since)) = leading.heir else { return true };
        let seats = leading.seats.iter().filter(|(of, _)| *of == heir);
        let mut servers = seats.filter_map(|(_, id)| self.sessions.get(id)?.server.as_ref());
        let head = at.disk.head().seq;
        servers.any(|server| {
            let lags = server.durable < head;
            server.snapshot.is_none() && server.heard > since && !lags
        })
    }
}
