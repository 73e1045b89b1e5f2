//! `mainstay switchover`: checks, asks, and tells each step until it is done or has failed.

use std::time::{Duration, Instant};

use mainstay_election::coordinator::{Compare, Coordinator, Outcome, Write};
use mainstay_election::values::{Epoch, NodeName, Request, keys};
use mainstay_election::view::View;

use super::complaint::Complaint;
use super::observe::{SWITCHOVER, now, put, unreachable, view, with_coordinator};
use super::say;
use crate::config::ClusterConfig;
use crate::switchover::choose;
use crate::when;

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The service's own stop may take its time; this long nobody waits at a terminal.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn ask(
    cluster: &ClusterConfig,
    to: Option<String>,
    at: Option<String>,
    wait: bool,
) -> Result<(), Complaint> {
    let target = to.map(|name| name.parse::<NodeName>()).transpose();
    let target = target.map_err(|bad| Complaint::misuse(bad.to_string()))?;
    let due = at.map(|at| when::parse(&at, now())).transpose().map_err(Complaint::misuse)?;
    if let Some(due) = due.filter(|due| *due < now()) {
        let what = format!("{} has passed", when::text(due));
        return Err(Complaint::misuse(what).with_fix("give a time to come, or leave out --at"));
    }
    with_coordinator(cluster, async |coordinator| {
        let view = view(coordinator).await?;
        let (epoch, chosen) = choose(&view, target.as_ref())
            .map_err(|refusal| Complaint::failure(refusal.what).with_fix(refusal.fix))?;
        refuse_second(&view, epoch)?;
        if let Some(due) = due {
            // Who is the best is seen when it is due.
            let to = target.as_ref().map_or("the best follower", |target| target.as_str());
            let (to, target) = (to.to_owned(), target.clone());
            let request = Request::SwitchoverScheduled { target, epoch, at: now(), due };
            put(coordinator, &view, SWITCHOVER, &request).await?;
            let due = when::text(due);
            return say(&format!(
                "leadership of epoch {epoch} goes to {to} at {due}, if it can then; a failover \
                 before that, or `mainstay switchover --cancel`, withdraws it\n"
            ));
        }
        let request = Request::Switchover { target: Some(chosen.clone()), epoch, at: now() };
        put(coordinator, &view, SWITCHOVER, &request).await?;
        say(&format!("asked to hand leadership of epoch {epoch} to {chosen}\n"))?;
        if wait { tell_steps(coordinator, epoch, &chosen).await } else { Ok(()) }
    })
}

/// One that is being carried out must be found as it was asked for when it is answered.
fn refuse_second(view: &View, current: Epoch) -> Result<(), Complaint> {
    match view.requests.get(SWITCHOVER).map(|request| &request.value) {
        Some(Request::Switchover { epoch, .. }) if *epoch == current => {
            let fix = "follow it with `mainstay status --watch`";
            Err(Complaint::failure("a switchover is under way").with_fix(fix))
        }
        _ => Ok(()),
    }
}

/// Withdraws what is asked for or scheduled, unless it has begun.
pub(super) fn cancel(cluster: &ClusterConfig) -> Result<String, Complaint> {
    with_coordinator(cluster, async |coordinator| {
        let view = view(coordinator).await?;
        let nothing = "no switchover is asked for or scheduled";
        let Some(request) = view.requests.get(SWITCHOVER) else {
            return Err(Complaint::failure(nothing));
        };
        let begun = Complaint::failure("the switchover has begun")
            .with_fix("follow it with `mainstay status --watch`");
        match &request.value {
            Request::SwitchoverScheduled { .. } => {}
            Request::Switchover { .. } => {
                // Who has begun is not ready any more; who has not may begin just now, and then
                // what it was asked for is not there any more when it ends: no harm.
                if !view.leader.as_ref().is_some_and(|leader| leader.value.ready) {
                    return Err(begun);
                }
            }
            _ => return Err(Complaint::failure(nothing)),
        }
        let unchanged = Compare::Value(keys::request(SWITCHOVER), request.raw.clone());
        let delete = Write::Delete(keys::request(SWITCHOVER));
        let outcome = coordinator.transact(vec![unchanged], vec![delete]).await;
        match outcome.map_err(unreachable)? {
            Outcome::Done(_) => Ok("the switchover is withdrawn\n".to_owned()),
            Outcome::Refused => Err(begun),
        }
    })
}

/// Follows the hand-over of `epoch` to its end.
async fn tell_steps(
    coordinator: &dyn Coordinator,
    epoch: Epoch,
    target: &NodeName,
) -> Result<(), Complaint> {
    let began = Instant::now();
    let (mut said, mut unready) = (String::new(), None);
    while began.elapsed() < PATIENCE {
        let view = view(coordinator).await?;
        let ready = view.leader.as_ref().is_some_and(|leader| leader.value.ready);
        if !ready {
            unready.get_or_insert_with(Instant::now);
        }
        match &view.leader {
            Some(leader) if ready && leader.value.epoch > epoch => {
                let pause_ms = unready.map_or(0, |since| since.elapsed().as_millis());
                let (node, epoch) = (&leader.value.node, leader.value.epoch);
                if target != node {
                    let what = format!("{node} leads in epoch {epoch}, and not {target}");
                    let fix = "see `mainstay status` for what became of it, and ask again";
                    return Err(Complaint::failure(what).with_fix(fix));
                }
                return say(&format!(
                    "{node} leads in epoch {epoch}; clients waited for about {pause_ms} ms\n"
                ));
            }
            _ => {}
        }
        if let Some(why) = refused(&view, epoch) {
            return Err(Complaint::failure(format!("leadership was not handed over: {why}"))
                .with_fix("the former leader goes on; ask again when the cause is gone"));
        }
        let step = step(&view);
        if step != said {
            say(&format!("{step}\n"))?;
            said = step;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Complaint::failure(format!("it has not ended within {} s", PATIENCE.as_secs()))
        .with_fix("it may still: follow it with `mainstay status --watch`"))
}

fn refused(view: &View, asked: Epoch) -> Option<&str> {
    match view.requests.get(SWITCHOVER).map(|request| &request.value) {
        Some(Request::SwitchoverRefused { epoch, why }) if *epoch == asked => Some(why),
        _ => None,
    }
}

fn step(view: &View) -> String {
    let Some(leader) = &view.leader else { return "nobody leads; clients wait".to_owned() };
    let node = &leader.value.node;
    let state = view.replicas.get(node.as_str()).map_or("leads", |it| it.value.state.as_str());
    format!("{node}: {state}")
}
