//! What the election's view means for an ambassador's route.
//!
//! Pure but for [`keep`]: a [`Route`] remembers who led, takes views and attestations, and says the
//! route's state and whom to ask for an attestation.
//!
//! A view is trusted for one ttl from when its read was *sent*: in async durability a leader whose
//! lease ran out meanwhile has stopped answering by then, and another may lead. In sync durability
//! a leader leads on while a write quorum hears it, whether or not the coordinator is there. So
//! when the coordinator has been silent for a while, the ambassador asks the leader itself, and
//! believes it for as long as it says that nobody else can lead.

use std::time::Duration;

use mainstay_ambassador::{Address, Attested, Moment, RouteState};
use mainstay_election::runner::Observed;
use mainstay_election::values::{Durability, Leader};
use mainstay_election::view::View;
use tokio::sync::watch;
use tokio::time::sleep;

use super::attest::{self, Witness};

/// The leader is asked when the coordinator has been silent for this part of the ttl; reads come
/// every third of it.
const DOUBT_PARTS: u32 = 2;
/// How long one question may take, and the next comes after as much again.
const ASK_PARTS: u32 = 8;
/// A leader whose key is gone may answer within this before its clients are cut.
const KEY_GONE: Duration = Duration::from_millis(300);

/// Keeps a route's state in step with what is observed, for as long as somebody wants it.
pub(super) async fn keep(
    service: String,
    mut observed: watch::Receiver<Observed>,
    route: watch::Sender<RouteState>,
    ttl: Duration,
) {
    let mut known = Route::new(service, ttl);
    loop {
        let seen = observed.borrow_and_update().clone();
        if let Some(view) = &seen.view {
            known.see(view, Moment::from_boot(seen.fresh_at.since_boot()));
        }
        known.tell(&route);
        // Whatever the coordinator says meanwhile comes first: no answer is waited for when there
        // is news.
        tokio::select! {
            biased;
            changed = observed.changed() => if changed.is_err() { return },
            () = route.closed() => return,
            () = ask_while_silent(&mut known, &route) => {}
        }
    }
}

/// Asks the leader, again and again, when the coordinator is silent or has lost it. Cancel-safe.
async fn ask_while_silent(known: &mut Route, route: &watch::Sender<RouteState>) {
    if !known.orphaned {
        let doubt = known.fresh_at + known.ttl / DOUBT_PARTS;
        sleep(doubt.since(Moment::now())).await;
    }
    loop {
        let Some(witness) = known.witness() else { return std::future::pending().await };
        let within = known.ttl / ASK_PARTS;
        let within = if known.hesitates { within.min(KEY_GONE) } else { within };
        let answer = attest::ask(&witness, known.ttl, within).await;
        known.attest(answer);
        known.tell(route);
        sleep(known.ttl / ASK_PARTS).await;
    }
}

/// One service's leader, as far as an ambassador knows it.
struct Route {
    service: String,
    ttl: Duration,
    /// When the newest read was sent.
    fresh_at: Moment,
    state: RouteState,
    /// Who can attest that it leads on without the coordinator: only a leader in sync durability.
    witness: Option<Witness>,
    /// The coordinator has lost the leader's key, but nobody took over: nothing counts but the
    /// leader's own word.
    orphaned: bool,
    /// Just orphaned, and not asked yet: the state in force stays, and runs out by itself.
    hesitates: bool,
}

impl Route {
    fn new(service: String, ttl: Duration) -> Route {
        Route {
            service,
            ttl,
            fresh_at: Moment::BOOT,
            state: RouteState::unknown(),
            witness: None,
            orphaned: false,
            hesitates: false,
        }
    }

    /// Takes a view whose read was sent at `fresh_at`.
    fn see(&mut self, view: &View, fresh_at: Moment) {
        self.fresh_at = fresh_at;
        let epoch = view.epoch.as_ref().map_or(0, |stored| stored.value.epoch.0);
        let may_lead_on = self.witness.as_ref().is_some_and(|asked| asked.epoch.0 == epoch);
        if view.leader.is_none() && may_lead_on && is_sync(view) {
            self.hesitates |= !self.orphaned;
            self.orphaned = true;
            return;
        }
        (self.orphaned, self.hesitates) = (false, false);
        let leader = view.leader.as_ref().filter(|_| is_sync(view));
        self.witness = leader.and_then(|leader| witness(&self.service, view, &leader.value));
        let (attested, trusted_until) = (self.state.attested, fresh_at + self.ttl);
        self.state = RouteState { trusted_until, attested, ..state(view) };
    }

    /// Takes the leader's answer, or that there was none.
    fn attest(&mut self, answer: Option<Attested>) {
        self.state.attested = answer.or(self.state.attested);
        if std::mem::take(&mut self.hesitates) {
            self.state.trusted_until = Moment::BOOT;
        }
    }

    fn tell(&self, route: &watch::Sender<RouteState>) {
        if !self.hesitates {
            route.send_replace(self.state.clone());
        }
    }

    /// Whom to ask, if anybody.
    fn witness(&self) -> Option<Witness> {
        self.witness.clone()
    }
}

fn is_sync(view: &View) -> bool {
    view.config.as_ref().is_some_and(|config| config.value.durability == Durability::Sync)
}

/// The API of the very process that leads, and of nobody else: registered under the leader's name
/// and with its volume.
fn witness(service: &str, view: &View, leader: &Leader) -> Option<Witness> {
    let replica = &view.replicas.get(leader.node.as_str())?.value;
    let api = replica.api.as_deref().filter(|_| replica.volume == leader.volume)?;
    Some(Witness {
        service: service.to_owned(),
        epoch: leader.epoch,
        address: attest::reachable(api, &replica.peer)?,
    })
}

/// The view's word, without trust.
fn state(view: &View) -> RouteState {
    let stored = view.leader.as_ref();
    let leader = stored.map(|stored| &stored.value);
    let address = leader.and_then(|leader| leader.service.as_deref());
    let parsed = address.and_then(|text| match text.parse::<Address>() {
        Ok(address) => Some(address),
        Err(error) => {
            tracing::error!(%error, "the leader's service address is unusable");
            None
        }
    });
    // Also while nobody leads: word of an older epoch than the last one heard of is taken for late
    // and ignored, and that there is no leader must not be.
    let epoch = view.epoch.as_ref().map_or(0, |stored| stored.value.epoch.0);
    let revision = stored.map_or(0, |stored| stored.modified.0);
    RouteState {
        epoch: leader.map_or(epoch, |leader| leader.epoch.0),
        ready: parsed.is_some() && leader.is_some_and(|leader| leader.ready),
        leader: parsed,
        version: u64::try_from(revision).unwrap_or(0),
        ..RouteState::unknown()
    }
}

#[cfg(test)]
mod tests;
