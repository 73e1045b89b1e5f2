//! `mainstay switchover`: checks, asks, and tells each step until it is done or has failed.

use std::time::{Duration, Instant};

use mainstay_election::coordinator::Coordinator;
use mainstay_election::values::{Epoch, NodeName, Request};
use mainstay_election::view::View;

use super::complaint::Complaint;
use super::observe::{SWITCHOVER, now, put, view, with_coordinator};
use super::say;
use crate::config::ClusterConfig;
use crate::switchover::check;

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The service's own stop may take its time; this long nobody waits at a terminal.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn ask(
    cluster: &ClusterConfig,
    to: Option<String>,
    wait: bool,
) -> Result<(), Complaint> {
    let target = to.map(|name| name.parse::<NodeName>()).transpose();
    let target = target.map_err(|bad| Complaint::misuse(bad.to_string()))?;
    with_coordinator(cluster, async |coordinator| {
        let view = view(coordinator).await?;
        let epoch = check(&view, target.as_ref())
            .map_err(|refusal| Complaint::failure(refusal.what).with_fix(refusal.fix))?;
        let to = target.as_ref().map_or("the best follower", |target| target.as_str()).to_owned();
        let request = Request::Switchover { target: target.clone(), epoch, at: now() };
        put(coordinator, &view, SWITCHOVER, &request).await?;
        say(&format!("asked to hand leadership of epoch {epoch} to {to}\n"))?;
        if wait { tell_steps(coordinator, epoch, target.as_ref()).await } else { Ok(()) }
    })
}

/// Follows the hand-over of `epoch` to its end.
async fn tell_steps(
    coordinator: &dyn Coordinator,
    epoch: Epoch,
    target: Option<&NodeName>,
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
                if let Some(target) = target.filter(|target| *target != node) {
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
