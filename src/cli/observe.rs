//! The commands that only speak with the coordinator: status, and requests to the replicas.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_election::coordinator::{Coordinator, Outcome, Write};
use mainstay_election::values::{Request, UnixMs, encode, keys};
use mainstay_election::view::View;

use super::complaint::Complaint;
use super::say;
use crate::config::ClusterConfig;
use crate::status::{Facts, Health, Report, render};

/// The code with which `status` exits when the service is down.
const DOWN: u8 = 3;
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// The names below `requests/`: one request of each kind at a time.
pub(super) const SWITCHOVER: &str = "switchover";
const PAUSE: &str = "pause";

pub(super) fn status(
    cluster: &ClusterConfig,
    json: bool,
    watch: bool,
) -> Result<ExitCode, Complaint> {
    with_coordinator(cluster, async |coordinator| {
        loop {
            let seen = view(coordinator).await;
            if watch && !json && std::io::stdout().is_terminal() {
                say("\x1b[H\x1b[2J")?;
            }
            let code = match seen {
                Ok(view) => {
                    let facts = Facts {
                        service: &cluster.service,
                        view: &view,
                        ttl: cluster.ttl,
                        now: now(),
                    };
                    let report = Report::of(&facts);
                    say(&if json { report.to_json() + "\n" } else { render(&report) })?;
                    if report.health == Health::Down {
                        ExitCode::from(DOWN)
                    } else {
                        ExitCode::SUCCESS
                    }
                }
                // A watch outlives the coordinator's troubles.
                Err(complaint) if watch && !json => {
                    say(&complaint.to_string())?;
                    ExitCode::FAILURE
                }
                Err(complaint) => return Err(complaint),
            };
            if !watch {
                return Ok(code);
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    })
}

pub(super) fn pause(cluster: &ClusterConfig, reason: String) -> Result<String, Complaint> {
    with_coordinator(cluster, async |coordinator| {
        let view = view(coordinator).await?;
        put(coordinator, &view, PAUSE, &Request::Pause { reason, at: now() }).await?;
        Ok("failover is paused until `mainstay resume`\n".to_owned())
    })
}

pub(super) fn resume(cluster: &ClusterConfig) -> Result<String, Complaint> {
    with_coordinator(cluster, async |coordinator| {
        let delete = Write::Delete(keys::request(PAUSE));
        coordinator.transact(Vec::new(), vec![delete]).await.map_err(unreachable)?;
        Ok("failover is allowed\n".to_owned())
    })
}

/// Writes a request, in the epoch that was looked at and in no other.
pub(super) async fn put(
    coordinator: &dyn Coordinator,
    view: &View,
    name: &str,
    request: &Request,
) -> Result<(), Complaint> {
    let write = Write::Put(keys::request(name), encode(request), None);
    let outcome = coordinator.transact(vec![view.epoch_unchanged()], vec![write]).await;
    match outcome.map_err(unreachable)? {
        Outcome::Done(_) => Ok(()),
        Outcome::Refused => Err(Complaint::failure("leadership changed just now")
            .with_fix("look at `mainstay status` and ask again if it is still wanted")),
    }
}

pub(super) async fn view(coordinator: &dyn Coordinator) -> Result<View, Complaint> {
    let contents = coordinator.read().await.map_err(unreachable)?;
    View::parse(&contents).map_err(|bad| {
        Complaint::failure(bad.to_string())
            .with_fix("a newer version may have written it: use that one's `mainstay`")
    })
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn unreachable(error: mainstay_election::coordinator::CoordinatorError) -> Complaint {
    Complaint::failure(error.to_string())
        .with_fix("check that the address in `coordination` is right and reachable from here")
}

pub(super) fn with_coordinator<T>(
    cluster: &ClusterConfig,
    ask: impl AsyncFnOnce(&dyn Coordinator) -> Result<T, Complaint>,
) -> Result<T, Complaint> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Complaint::failure(format!("cannot start an event loop: {error}")))?;
    runtime.block_on(async {
        let coordinator = cluster.connect().await.map_err(unreachable)?;
        ask(&*coordinator).await
    })
}

pub(super) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
