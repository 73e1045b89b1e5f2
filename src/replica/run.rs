//! A replica's whole life: open, take part, stop in order.

use std::sync::Arc;
use std::time::Duration;

use mainstay_election::coordinator::Coordinator;
use mainstay_election::machine::{Directive, Identity, Settings};
use mainstay_election::runner::{Runner, RunnerHandle};
use mainstay_election::values;
use mainstay_sync::capture::check_mountpoint;
use mainstay_sync::transport::{Endpoint, EndpointOptions, Peer, Secret};
use mainstay_sync::volume::{RootOwner, Volume, VolumeOptions};
use rustix::process::{getegid, geteuid};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use super::node::Node;
use super::situation::Board;
use super::stop::Stop;
use super::vows::VolumeVows;
use super::{ReplicaError, follow, lead, preflight, publish, rules};
use crate::api;
use crate::config::RunConfig;
use crate::proxy::{Beside, Reload};
use crate::supervise::{Fencer, Watchdog, account};

/// Threads that take the mount's requests. They wait only for reads from the disk.
const MOUNT_THREADS: usize = 4;

/// Runs the replica until it is asked to stop.
///
/// # Errors
/// It cannot run as configured here; nothing was changed that a later start would not mend.
pub async fn run(config: RunConfig, reload: Reload) -> Result<(), ReplicaError> {
    preflight::check(&config)?;
    // Before anything that can be asked to stop, so that no signal is missed.
    let stop = Stop::on_signals()
        .map_err(|error| ReplicaError::Io { what: "listen for signals", error })?;
    // Before /dev/fuse is opened: the fencer must hold nothing of it.
    let watchdog = config.watchdog.clone().map(|path| {
        // The fencer's deadline is half of the margin after the gate's: see `lead`.
        let margin = Settings::for_ttl(config.cluster.ttl).kill_margin / 2;
        Watchdog { path, margin }
    });
    let fencer = Fencer::start(std::path::Path::new("/proc/self/exe"), watchdog)?;
    let secret: Secret = config.secret.expose().parse()?;
    let volume = open_volume(&config).await?;
    // After the volume is locked: the live mount of a daemon with the same one is named by that.
    check_mountpoint(&config.mount)?;
    let coordinator = config.cluster.connect().await?;
    let peer = Peer { service: config.cluster.service.clone(), node: config.node.to_string() };
    let endpoint = Endpoint::bind(config.peer.listen, &secret, peer, &EndpointOptions::default())?;
    let listener =
        TcpListener::bind(config.api_listen).await.map_err(|error| api_taken(&config, &error))?;

    let board = Arc::new(Board::new(config.process.address.clone()));
    let mut settings = Settings::for_ttl(config.cluster.ttl);
    settings.max_lag = config.max_lag;
    settings.durability = config.durability;
    settings.suspect_after = config.suspect_after;
    settings.voters = usize::try_from(config.voters).unwrap_or(usize::MAX);
    settings.write_quorum = config.write_quorum;
    settings.on_quorum_loss = config.on_quorum_loss;
    rules::load(&volume, &board);
    let runner =
        Arc::new(take_part(Arc::clone(&coordinator), &config, &volume, &board, settings.clone()));
    let node = Node {
        observed: runner.view(),
        coordinator,
        settings,
        volume,
        endpoint,
        board,
        followers: watch::Sender::new(None),
        fencer: Arc::new(Mutex::new(fencer)),
        stop,
        mount_threads: MOUNT_THREADS,
        config: Arc::new(config),
        runner,
    };
    tracing::info!(
        node = %node.config.node,
        volume = %node.volume.id(),
        head = %node.volume.head(),
        "open"
    );
    let mut beside = JoinSet::new();
    beside.spawn(report(node.clone()));
    beside.spawn(rules::keep(node.clone()));
    let service = node.config.cluster.service.clone();
    let known = [(service, (Arc::clone(&node.coordinator), node.observed.clone()))].into();
    let proxy = Beside::start(node.config.ambassador.clone(), known, reload).await?;
    let running = proxy.running();
    let first = publish::snapshot(&node, running.borrow().as_deref());
    let (snapshots, published) = watch::channel(Arc::new(first));
    beside.spawn(publish::publish(node.clone(), running, snapshots));
    beside.spawn(api::serve(listener, published, api::Limits::default()));

    let result = play_roles(&node).await;
    // Nothing is led here any more; the API's tasks hold the proxy, so they end before it.
    beside.shutdown().await;
    proxy.shutdown().await;
    leave(node).await;
    result
}

/// Follows the directives until the daemon is asked to stop.
async fn play_roles(node: &Node) -> Result<(), ReplicaError> {
    let mut directives = node.runner.directives();
    let mut stop = node.stop.clone();
    while !stop.is_requested() {
        let directive = directives.borrow_and_update().clone();
        match &directive {
            Directive::Lead { epoch, cluster } => {
                lead::lead(node, *epoch, *cluster, &mut directives).await?;
            }
            Directive::Follow { .. } => {
                follow::follow(node, &directive, &mut directives).await;
                // It ended because the directive was another one for a moment; by now it may be
                // this very one again, and that is no reason to wait for yet another.
                continue;
            }
            Directive::Freeze(waiting) => node.board.say(waiting.to_string()),
            Directive::Blocked(blocked) => {
                tracing::error!(%blocked, "blocked");
                node.board.say(format!("blocked: {blocked}"));
            }
            Directive::StepDown { epoch, why } => {
                node.board.say(format!("stepped down from epoch {epoch}: {why}"));
            }
        }
        tokio::select! {
            changed = directives.wait_for(|now| *now != directive) => {
                if changed.is_err() {
                    return Err(ReplicaError::Io {
                        what: "go on without the election's task",
                        error: std::io::Error::other("it ended; its log says why"),
                    });
                }
            }
            () = stop.requested() => {}
        }
    }
    Ok(())
}

async fn open_volume(config: &RunConfig) -> Result<Volume, ReplicaError> {
    let (uid, gid) = match &config.process.user {
        Some(user) => account::owner(user)?,
        None => (geteuid().as_raw(), getegid().as_raw()),
    };
    let options = VolumeOptions {
        log_bytes_max: config.log_bytes_max,
        quarantine_bytes_max: config.quarantine_bytes_max,
        root: RootOwner { mode: 0o700, uid, gid },
        // Until the cluster's config says otherwise.
        committed_only: true,
        ..VolumeOptions::default()
    };
    let state_dir = config.state_dir.clone();
    let open = tokio::task::spawn_blocking(move || Volume::open(&state_dir, options));
    Ok(open.await.map_err(|_| ReplicaError::Demoted)??)
}

fn take_part(
    coordinator: Arc<dyn Coordinator>,
    config: &RunConfig,
    volume: &Volume,
    board: &Arc<Board>,
    settings: Settings,
) -> RunnerHandle {
    let identity = Identity {
        node: config.node.clone(),
        peer: config.peer.advertise.clone(),
        api: Some(config.api_listen.to_string()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tags: config.tags,
        incarnation: values::Nonce(rand::random()),
        cluster_if_founded: values::ClusterId(rand::random()),
    };
    let vows = Arc::new(VolumeVows { volume: volume.clone(), board: Arc::clone(board) });
    Runner::start(coordinator, vows, identity, settings)
}

/// Keeps the election informed: at once when the role changes something, else a few times a
/// second, since positions move with every op.
async fn report(node: Node) {
    const INTERVAL: Duration = Duration::from_millis(100);
    let mut situation = node.board.subscribe();
    loop {
        situation.borrow_and_update();
        node.runner.report(node.board.report(&node.volume));
        let _ = tokio::time::timeout(INTERVAL, situation.changed()).await;
    }
}

/// Gives the registration up and closes the volume, so that the next start replays nothing.
async fn leave(node: Node) {
    // The last word: nothing is led here, so the lease can end at once.
    node.runner.report(node.board.report(&node.volume));
    let Node { runner, volume, endpoint, followers, .. } = node;
    drop(followers);
    if let Some(runner) = Arc::into_inner(runner) {
        runner.shutdown().await;
    }
    endpoint.close().await;
    let closed = tokio::task::spawn_blocking(move || volume.close()).await;
    if let Ok(Err(error)) = closed {
        tracing::warn!(%error, "the volume was not closed in order; the next start replays");
    }
    tracing::info!("stopped");
}

fn api_taken(config: &RunConfig, error: &std::io::Error) -> ReplicaError {
    ReplicaError::Preflight {
        what: format!("the API cannot listen on {}: {error}", config.api_listen),
        fix: "choose another `api.listen`, or stop what has the port (ss -ltnp)".to_owned(),
    }
}
