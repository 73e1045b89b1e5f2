//! One run: a cluster in a world, clients that remember, faults from a seed, and the judgement.
//!
//! Used by `chaos live`, by the tests and by `chaos-night`.

mod command;
mod end;
mod faults;
pub mod inside;
pub mod night;
pub mod options;
mod record;
pub mod seeds;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::judge::Promise;
use crate::live::cluster::Plan;
use crate::live::{Cluster, Coordination, Service};
use crate::nemesis::plan::plan;
use crate::nemesis::{Kind, Nemesis};
use crate::observe::coordinator::CoordinatorWatch;
use crate::observe::metrics::Samples;
use crate::report::Report;
use crate::workload::History;
use crate::world::World;
pub use command::command;
pub use options::Options;
use record::Crowd;

/// Runs it all, on threads of its own that live on the clients' host of the run's world.
///
/// # Errors
/// The cluster did not come up or did not recover, or a tool is missing. What the judges found is
/// not an error here but in the report.
pub fn run(options: &Options) -> Result<Report> {
    let cluster = cluster_plan(options)?;
    let world = cluster.world()?;
    inside::on_host(crate::live::cluster::CLIENT, world, async |world| {
        run_in(world, &cluster, options).await
    })
}

fn cluster_plan(options: &Options) -> Result<Plan> {
    let binary = options.binary.canonicalize();
    let binary = binary.with_context(|| format!("find {}", options.binary.display()))?;
    let mut plan = Plan::new(binary, options.service);
    plan.replicas = options.replicas;
    plan.coordination = options.coordination.into();
    plan.ttl = options.ttl.clone();
    plan.durability = options.durability.to_string();
    plan.clocks_can_jump = options.kinds().contains(&Kind::JumpClock);
    plan.disks_can_fail = options.kinds().into_iter().any(Kind::needs_layer);
    let max_lag = options.max_lag.as_millis();
    plan.extra = format!("voters = {}\nmax_lag = {{ time = \"{max_lag}ms\" }}", options.replicas);
    Ok(plan)
}

async fn run_in(world: World, plan_of_cluster: &Plan, options: &Options) -> Result<Report> {
    let mut cluster = Cluster::create_in(world, plan_of_cluster).await?;
    cluster.launch(options.service)?;
    // On a starved machine a daemon may be late for its own lease, and is ended for it, before
    // anything was done to it: somebody must start it again from the beginning.
    let mut nemesis = Nemesis::new(cluster);
    let up = nemesis.whole().await;
    up.with_context(|| nemesis.cluster.last_words())?;
    let cluster = &nemesis.cluster;
    let history = History::default();
    let watch = cluster.etcd.as_ref().map(|etcd| {
        let address = etcd.address();
        CoordinatorWatch::start(address.trim_start_matches("etcd://"), history.clone())
    });
    let nodes: Vec<_> =
        cluster.replicas.iter().map(|replica| (replica.node.clone(), replica.api())).collect();
    let samples = Samples::start(&nodes, &history);
    let crowd = Crowd::start(cluster, options, &history).await?;
    crowd.advance(20).await?;

    let kinds = options.kinds();
    let planned = plan(options.seed, options.duration, &kinds, options.calm());
    let faults =
        faults::play(&mut nemesis, &planned, options.duration, &history, watch.as_ref()).await?;
    let healed = history.now();
    let recovered = end::recover(&mut nemesis, &crowd).await;
    let recovery = history.now() - healed;

    let mut report = Report::new(options);
    report.faults = faults;
    let Nemesis { mut cluster, .. } = nemesis;
    if let Err(error) = recovered {
        report.failed(&format!("the cluster did not recover: {error:#}"));
        let writing_until = history.now();
        record::fill(&mut report, &history, writing_until, watch.as_ref(), &samples, options);
        end::judge_answers(&mut report, &history, options);
        report.keep_logs(&cluster);
        return Ok(report);
    }
    report.recovery = Some(recovery);
    let writing_until = history.now();
    let present = crowd.finish().await?;
    record::fill(&mut report, &history, writing_until, watch.as_ref(), &samples, options);
    end::judge(&mut report, &history, &present, options);
    end::judge_answers(&mut report, &history, options);
    if options.promise() == Promise::Async {
        end::judge_losses(&mut report, &history, &present, watch.as_ref(), &cluster, options)?;
    }
    end::inspect(&mut report, &mut cluster, options).await;
    report.keep_logs(&cluster);
    Ok(report)
}

/// A coordination that a command line can name.
impl From<options::CoordinationName> for Coordination {
    fn from(name: options::CoordinationName) -> Coordination {
        match name {
            options::CoordinationName::Etcd => Coordination::Etcd(3),
            options::CoordinationName::Sqlite => Coordination::Sqlite,
        }
    }
}

/// Whether a service has clients that connect.
fn has_clients(service: Service) -> bool {
    service != Service::Files
}

/// A ttl as in a configuration, such as `5s` or `1500ms`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no span of time"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" | "min" => Ok(Duration::from_secs(60 * number)),
        "h" => Ok(Duration::from_secs(3600 * number)),
        _ => Err(format!("{text:?} has no unit: ms, s, m or h")),
    }
}
