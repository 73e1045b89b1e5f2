//! Carries out what the machine wants, against a real coordinator and the real boot clock.
//!
//! One task awaits in one place and then steps the machine without awaiting: a call that is
//! dropped or late can leave nothing half done, since its outcome is only ever an event. The
//! hazard is this task not running: a paused or starved process sends nothing, hears nothing and
//! shuts nothing, hence the [`LeaseGate`], which shuts by itself.

mod calls;
mod gate;
mod look;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

pub use gate::{LeaseGate, boot_now};
pub use look::{Observed, observe};

use crate::coordinator::Coordinator;
use crate::machine::{
    Directive, Effect, Event, Identity, Machine, Moment, Report, Settings, Waiting,
};
use crate::values::{Epoch, Lineage, NodeName, Position, Terms, VolumeId};
use calls::{Call, Caller};
use look::Looker;

/// Asked for between two steps; more waits for its turn.
const COMMANDS: usize = 64;
/// The machine is ticked at least this often within a ttl: tokio's timers do not count the time
/// that the machine was suspended, the boot clock does.
const TICK_PARTS: u32 = 10;

/// The log sealed: where it ends and which epochs wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The volume that promised.
    pub volume: VolumeId,
    /// The position, read *after* the promise was durable.
    pub position: Position,
    /// The lineage of the records up to there.
    pub lineage: Lineage,
}

/// Makes promises; the replica's volume does.
#[async_trait]
pub trait Vows: Send + Sync {
    /// Takes no record of epoch `through` or an earlier one from now on, has that durable, and
    /// only then reads where the log ends. A leadership that is still being wound up here is to
    /// be waited for.
    ///
    /// # Errors
    /// A text for the log; it is tried again.
    async fn promise(&self, through: Epoch) -> Result<Sealed, String>;
}

enum Command {
    Eligible { node: NodeName, volume: VolumeId, eligible: bool },
    StepDown { epoch: Epoch, why: String, done: oneshot::Sender<()> },
    Shutdown,
}

/// A replica's hold on its part in the election. Dropping it ends the runner without giving
/// anything up: the lease then runs out.
pub struct RunnerHandle {
    directives: watch::Receiver<Directive>,
    terms: watch::Receiver<Option<Terms>>,
    observed: watch::Receiver<Observed>,
    gate: Arc<LeaseGate>,
    reports: watch::Sender<Option<Report>>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

impl RunnerHandle {
    /// What the replica is to be. If the sender is gone the runner has ended: a leader then steps
    /// down, as with [`Directive::StepDown`].
    #[must_use]
    pub fn directives(&self) -> watch::Receiver<Directive> {
        self.directives.clone()
    }

    /// By which terms a leader acknowledges. They are there before the [`Directive::Lead`] that
    /// they are for.
    #[must_use]
    pub fn terms(&self) -> watch::Receiver<Option<Terms>> {
        self.terms.clone()
    }

    /// May the leader's mount answer? It belongs to the [`Directive::Lead`] in force: a mount of
    /// an earlier one must be gone before `leading: None` is reported.
    #[must_use]
    pub fn gate(&self) -> Arc<LeaseGate> {
        Arc::clone(&self.gate)
    }

    /// What the coordinator holds, and how fresh that is.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Observed> {
        self.observed.clone()
    }

    /// Says how the replica is. Cheap, to be called whenever that changes; the last one counts.
    pub fn report(&self, report: Report) {
        self.reports.send_if_modified(|last| {
            let changed = last.as_ref() != Some(&report);
            *last = Some(report);
            changed
        });
    }

    /// Asks, as the leader, that a follower's copy may take over or no longer may. Done when the
    /// view's config says so.
    pub async fn set_eligible(&self, node: NodeName, volume: VolumeId, eligible: bool) {
        self.command(Command::Eligible { node, volume, eligible }).await;
    }

    /// Gives up the leadership of `epoch`, whose service is stopped and drained. On return the
    /// gate is shut; the leader's key goes as soon as the report says `leading: None`, and then
    /// others elect at once.
    pub async fn step_down(&self, epoch: Epoch, why: String) {
        let (done, told) = oneshot::channel();
        self.command(Command::StepDown { epoch, why, done }).await;
        let _runner_ended = told.await;
    }

    /// Ends the runner. If the last report says that nothing is led here any more, the lease is
    /// ended too, so that nobody waits for it; otherwise it is left to run out.
    pub async fn shutdown(self) {
        self.command(Command::Shutdown).await;
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the election's task ended badly");
        }
    }

    async fn command(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::warn!("the election's task has ended");
        }
    }
}

/// The task.
pub struct Runner {
    coordinator: Arc<dyn Coordinator>,
    ttl: Duration,
    machine: Machine,
    caller: Caller,
    calls: FuturesUnordered<Call>,
    looker: Looker,
    gate: Arc<LeaseGate>,
    directives: watch::Sender<Directive>,
    terms: watch::Sender<Option<Terms>>,
    reports: watch::Receiver<Option<Report>>,
    commands: mpsc::Receiver<Command>,
}

impl Runner {
    /// Starts taking part as `identity`, inside a tokio runtime. Nothing is registered before the
    /// first report.
    pub fn start(
        coordinator: Arc<dyn Coordinator>,
        vows: Arc<dyn Vows>,
        identity: Identity,
        settings: Settings,
    ) -> RunnerHandle {
        let ttl = settings.ttl;
        let gate = Arc::new(LeaseGate::default());
        let looker = Looker::start(Arc::clone(&coordinator), ttl);
        let observed = looker.observed.clone();
        let (directives, directed) = watch::channel(Directive::Freeze(Waiting::Report));
        let (terms, acknowledged_by) = watch::channel(None);
        let (reports, reported) = watch::channel(None);
        let (commands, commanded) = mpsc::channel(COMMANDS);
        let runner = Runner {
            caller: Caller { coordinator: Arc::clone(&coordinator), vows, ttl },
            coordinator,
            ttl,
            machine: Machine::new(identity, settings),
            calls: FuturesUnordered::new(),
            looker,
            gate: Arc::clone(&gate),
            directives,
            terms,
            reports: reported,
            commands: commanded,
        };
        let task = tokio::spawn(runner.run());
        RunnerHandle {
            directives: directed,
            terms: acknowledged_by,
            observed,
            gate,
            reports,
            commands,
            task,
        }
    }

    async fn run(mut self) {
        self.step(Event::Tick);
        loop {
            let nap = self.machine.wake().since(boot_now()).min(self.ttl / TICK_PARTS);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown) => break,
                    Some(command) => self.obey(command),
                    None => return self.gate.set(Moment::NEVER),
                },
                Ok(()) = self.reports.changed() => self.take_report(),
                Ok(()) = self.looker.observed.changed() => self.take_view(),
                Some(event) = self.calls.next() => self.step(event),
                () = sleep(nap) => self.step(Event::Tick),
            }
        }
        self.leave().await;
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Eligible { node, volume, eligible } => {
                self.step(Event::Eligible { node, volume, eligible });
            }
            Command::StepDown { epoch, why, done } => {
                self.step(Event::Resign { epoch, why });
                let _nobody_waits = done.send(());
            }
            Command::Shutdown => {}
        }
    }

    fn take_report(&mut self) {
        let report = self.reports.borrow_and_update().clone();
        if let Some(report) = report {
            self.step(Event::Report(Box::new(report)));
        }
    }

    fn take_view(&mut self) {
        let Some(observed) = self.looker.latest() else { return };
        match (observed.silence, observed.view) {
            (Some(why), _) => self.step(Event::Unreadable(why)),
            (None, Some(view)) => self.step(Event::Viewed { sent: observed.fresh_at, view }),
            (None, None) => {}
        }
    }

    fn step(&mut self, event: Event) {
        let effects = self.machine.step(boot_now(), calls::wall_now(), event);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Gate(deadline) => self.gate.set(deadline),
            Effect::Terms(terms) => {
                tracing::info!(?terms, "acknowledging by these terms");
                self.terms.send_replace(Some(terms));
            }
            Effect::Direct(directive) => {
                tracing::info!(?directive, "directed");
                self.directives.send_replace(directive);
            }
            Effect::Read => self.looker.look_again(),
            effect => self.calls.extend(self.caller.call(effect)),
        }
    }

    async fn leave(self) {
        self.gate.set(Moment::NEVER);
        // While something of a leadership is alive here its key must stay, for as long as the
        // lease does: it is what keeps others from starting beside it.
        let idle = self.reports.borrow().as_ref().is_none_or(|last| last.leading.is_none());
        let Some(lease) = self.machine.lease().filter(|_| idle) else { return };
        match timeout(self.ttl, self.coordinator.revoke(lease)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot end the lease; it will run out"),
            Err(_) => tracing::warn!("ending the lease takes too long; it will run out"),
        }
    }
}

impl Sealed {
    fn promised(self, through: Epoch) -> Event {
        let Sealed { volume, position, lineage } = self;
        Event::Promised { volume, through, position, lineage }
    }
}
