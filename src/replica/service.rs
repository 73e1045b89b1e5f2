//! The service's life within one leadership: init, start, probe, restart in place, stop.

use std::time::Duration;

use mainstay_election::values::Epoch;

use super::ReplicaError;
use super::lead::{End, Scope};
use super::switchover;
use crate::config::{ProcessConfig, ReadyProbe};
use crate::supervise::fencer::boot_time;
use crate::supervise::{Probe, Restart, Restarts, Service, Spec, signal_named};

/// Runs `init` to its end and waits until all that it wrote is committed.
pub(super) async fn initialise(scope: &mut Scope<'_>) -> Result<(), ReplicaError> {
    let process = &scope.node.config.process;
    let Some(command) = process.init.clone() else { return Ok(()) };
    tracing::info!(command = command.join(" "), "initialising an empty volume");
    start(scope, Spec { command, ..spec(process) }).await?;
    let exit = match &scope.service {
        Some(service) => service.ended().await,
        None => return Err(ReplicaError::Demoted),
    };
    scope.service = None;
    if !exit.success() {
        return Err(ReplicaError::Init(exit.to_string()));
    }
    if let Some(mount) = scope.mount.clone() {
        scope.blocking(move || mount.barrier()).await??;
    }
    Ok(())
}

/// Starts the service and keeps it running; returns when leadership has to be given up.
pub(super) async fn run(scope: &mut Scope<'_>) -> End {
    let process = scope.node.config.process.clone();
    let mut restarts = Restarts::new(
        usize::try_from(process.restarts.max).unwrap_or(usize::MAX),
        process.restarts.within,
    );
    loop {
        let why = match run_once(scope, &process).await {
            Ok(Run::Ended(why)) => why,
            Ok(Run::Renewed(epoch)) => match scope.renew(epoch).await {
                Ok(()) => continue,
                Err(error) => return End::Resigned(error.to_string()),
            },
            Ok(Run::Wanted(order)) => match switchover::prepare(scope, &order).await {
                Ok(()) => return End::Resigned(order.to_string()),
                Err(refusal) => {
                    switchover::refuse(scope.node, &order, &refusal).await;
                    // That the service ended was our doing.
                    continue;
                }
            },
            Err(error) => error.to_string(),
        };
        scope.node.board.set(|situation| situation.ready = false);
        match restarts.ended(boot_time()) {
            Restart::After(wait) => {
                tracing::warn!(%why, ?wait, "the service ended; it is started again");
                scope.node.board.say(format!("restarting the service: {why}"));
                tokio::time::sleep(wait).await;
            }
            Restart::GiveUp => {
                tracing::error!(%why, "the service ended too often; leadership is given up");
                let (max, within) = (process.restarts.max, process.restarts.within);
                return End::Unfit(format!(
                    "the service ended more than {max} times within {within:?}, the last time \
                     with {why}; see its output above"
                ));
            }
        }
    }
}

/// How one run came to its end.
enum Run {
    /// The service ended, in these words.
    Ended(String),
    /// It runs and is ready, and leadership is to be handed over.
    Wanted(switchover::Order),
    /// It runs, and the leadership goes on in another epoch.
    Renewed(Epoch),
}

/// One run, from start to end.
async fn run_once(scope: &mut Scope<'_>, process: &ProcessConfig) -> Result<Run, ReplicaError> {
    if scope.service.is_none() {
        tracing::info!("starting the service");
        scope.node.board.say("starting the service");
        start(scope, spec(process)).await?;
    }
    let Some(service) = &scope.service else { return Err(ReplicaError::Demoted) };
    let exit = tokio::select! {
        exit = service.ended() => exit,
        epoch = scope.renewed() => return Ok(Run::Renewed(epoch)),
        () = until_ready(process) => {
            tracing::info!(epoch = %scope.epoch, "ready");
            scope.node.board.set(|situation| {
                situation.ready = true;
                situation.state = "serving".to_owned();
            });
            tokio::select! {
                exit = service.ended() => exit,
                epoch = scope.renewed() => return Ok(Run::Renewed(epoch)),
                order = switchover::wanted(scope.node, scope.epoch) => return Ok(Run::Wanted(order)),
            }
        }
    };
    scope.service = None;
    Ok(Run::Ended(exit.to_string()))
}

fn spec(process: &ProcessConfig) -> Spec {
    Spec {
        command: process.command.clone(),
        user: process.user.clone(),
        workdir: process.workdir.clone(),
    }
}

async fn start(scope: &mut Scope<'_>, spec: Spec) -> Result<(), ReplicaError> {
    let fencer = scope.node.fencer.lock().await;
    let service = Service::start(&spec, &fencer).await?;
    drop(fencer);
    scope.service = Some(service);
    Ok(())
}

/// Asks the service to stop, as configured, and waits for the end of all of it.
pub(super) async fn stop(scope: &mut Scope<'_>) {
    let process = &scope.node.config.process;
    if let Some(service) = &scope.service {
        tracing::info!(grace = ?process.stop_grace, "stopping the service");
        let signal = signal_named(&process.stop_signal).unwrap_or(rustix::process::Signal::TERM);
        let exit = service.stop(signal, process.stop_grace).await;
        tracing::info!(%exit, "the service stopped");
    }
    scope.service = None;
}

async fn until_ready(process: &ProcessConfig) {
    let timeout = process.ready.timeout;
    let probe = match process.ready.probe.clone() {
        ReadyProbe::Tcp(address) => Probe::Tcp { address, timeout },
        ReadyProbe::Command(command) => Probe::Command { command, timeout },
        ReadyProbe::Started => Probe::None,
    };
    let mut said = String::new();
    while let Err(why) = probe.ask().await {
        if why != said {
            tracing::info!(%why, "not ready yet");
            said = why;
        }
        // A service that starts in milliseconds should not wait for a long interval.
        tokio::time::sleep(process.ready.interval.min(Duration::from_secs(5))).await;
    }
}
