//! Leading, as a scope: whoever enters promotes, and no way leads out that does not demote.
//!
//! The order of promotion: the epoch's first record, followers, that record committed (in sync only
//! they can do that), mount, service, readiness. The order
//! of demotion depends on why. *Fenced* (the leadership is over already, somebody else may lead in
//! a moment): kill the service, abort the mount so that what waits in it can die, and only then
//! wait. *In order* (we give it up while it is ours): stop the service, wait until followers have
//! everything, and give up leadership last.

use std::sync::Arc;
use std::time::Duration;

use mainstay_election::machine::{Directive, Moment};
use mainstay_election::values::{ClusterId, Epoch, Terms};
use mainstay_sync::capture::{Gate, Mount, MountError, MountOptions};
use mainstay_sync::replicate::{Leader, LeaderOptions};
use mainstay_sync::volume::{Ending, Leading};
use tokio::sync::{Semaphore, watch};

use super::initialise::{self, Progress};
use super::node::Node;
use super::{ReplicaError, clock, convert, eligible, follow, quorum, service, verify};
use crate::supervise::Service;

/// How long a leader that goes in order waits for its followers to hold everything.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(10);
/// How often, and how long after one another, a busy mount is tried to be unmounted.
const UNMOUNT_TRIES: u32 = 20;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(10);

/// Why a leadership ends.
#[derive(Debug)]
pub(super) enum End {
    /// It is over already: act at once.
    Fenced(String),
    /// We give it up, for this reason; this replica may be fit to lead again.
    Resigned(String),
    /// We give it up, and should not lead again before somebody looks.
    Unfit(String),
}

/// Leads `epoch` until that ends. When this returns, nothing of it is left here.
pub(super) async fn lead(
    node: &Node,
    epoch: Epoch,
    cluster: ClusterId,
    directives: &mut watch::Receiver<Directive>,
) -> Result<(), ReplicaError> {
    node.board.set(|situation| {
        situation.leading = Some(epoch);
        situation.ready = false;
        situation.state = "promoting".to_owned();
        situation.heard = None;
    });
    let mut scope = Scope::new(node, epoch);
    let fencing = tokio::spawn(keep_fencer_told(node.clone()));
    let mut stop = node.stop.clone();
    let end = tokio::select! {
        biased;
        why = fenced(directives, epoch) => End::Fenced(why),
        () = stop.requested() => End::Resigned("the daemon was asked to stop".to_owned()),
        end = scope.serve(cluster) => end,
    };
    let unfit = scope.demote(end, directives).await;
    fencing.abort();
    let _cancelled = fencing.await;
    // Nothing is left that would have to be killed.
    let unguarded = node.fencer.lock().await.deadline(None).await;
    if let Err(error) = unguarded {
        tracing::error!(%error, "the fencer is replaced");
        node.replace_fencer().await?;
    }
    node.board.set(|situation| {
        situation.leading = None;
        situation.ready = false;
        situation.state = "following".to_owned();
        situation.unfit = unfit;
        situation.quorum_heard = Moment::NEVER;
        situation.caught_up = Vec::new();
        situation.covered = None;
    });
    Ok(())
}

/// Waits until the directive is anything but to lead, in `epoch` or in a later one that the same
/// leadership goes on in: between two leaderships of one process there is always another directive.
async fn fenced(directives: &mut watch::Receiver<Directive>, epoch: Epoch) -> String {
    let over = |directive: &Directive| !matches!(directive, Directive::Lead { epoch: ours, .. } if *ours >= epoch);
    match directives.wait_for(over).await.as_deref() {
        Ok(Directive::StepDown { why, .. }) => why.to_string(),
        Ok(other) => format!("directed otherwise: {other:?}"),
        Err(_) => "the election's task ended".to_owned(),
    }
}

/// Tells the fencer the gate's deadline as it moves, with half of what is left until the lease's
/// end added: the daemon itself gets the first half for killing the service.
async fn keep_fencer_told(node: Node) {
    let grace = node.settings.kill_margin / 2;
    loop {
        let deadline = node.runner.gate().deadline().since_boot();
        // A gate that is shut for good is being acted on; the last deadline stays in force.
        if !deadline.is_zero() {
            let told = node.fencer.lock().await.deadline(Some(deadline + grace)).await;
            if let Err(error) = told {
                tracing::error!(%error, "nobody guards this leadership; stepping down");
                let epoch = node.board.read().leading;
                if let Some(epoch) = epoch {
                    node.runner.step_down(epoch, error.to_string()).await;
                }
                return;
            }
        }
        tokio::time::sleep(node.settings.ttl / 20).await;
    }
}

/// What a leadership holds, in the order in which it was taken.
pub(super) struct Scope<'a> {
    pub node: &'a Node,
    pub epoch: Epoch,
    leading: Option<Leading>,
    /// Ends the leadership while its start is still being waited for.
    ending: Option<Ending>,
    /// The terms that were in force when it began.
    terms: Option<Terms>,
    pub followers: Option<Arc<Leader>>,
    pub mount: Option<Arc<Mount>>,
    pub service: Option<Service>,
    tasks: tokio::task::JoinSet<()>,
    /// One permit, held by blocking work that may outlive the future that began it. Demoting
    /// takes it first, so that nothing appears after the demotion.
    busy: Arc<Semaphore>,
}

impl<'a> Scope<'a> {
    fn new(node: &'a Node, epoch: Epoch) -> Scope<'a> {
        Scope {
            node,
            epoch,
            leading: None,
            ending: None,
            terms: None,
            followers: None,
            mount: None,
            service: None,
            tasks: tokio::task::JoinSet::new(),
            busy: Arc::new(Semaphore::new(1)),
        }
    }

    /// Promotes and serves until the leadership has to be given up.
    async fn serve(&mut self, cluster: ClusterId) -> End {
        match self.promote(cluster).await {
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, "cannot lead");
                return End::Unfit(error.to_string());
            }
        }
        service::run(self).await
    }

    async fn promote(&mut self, cluster: ClusterId) -> Result<(), ReplicaError> {
        let (volume, epoch) = (self.node.volume.clone(), convert::to_log_epoch(self.epoch));
        let name = self.node.config.node.to_string();
        // Before the first record, so that nothing is ever committed by less.
        self.terms = self.node.runner.terms().borrow().clone();
        if let Some(terms) = &self.terms {
            quorum::apply(self.node, terms);
        }
        let promotion = self
            .blocking(move || {
                volume.found(convert::to_log_cluster(cluster))?;
                volume.promote(epoch, &name)
            })
            .await??;
        self.ending = Some(promotion.ending());
        self.take_followers();
        self.node.board.say("waiting until the start of the epoch is committed");
        let leading = self.blocking(move || promotion.complete()).await??;
        let mut image = leading.image.clone();
        let journal = Arc::clone(&leading.journal);
        let objects = Arc::clone(&leading.objects);
        self.leading = Some(leading);

        let init = self.node.config.process.init.is_some();
        let progress = if init { Progress::of(&image) } else { Progress::Done };
        if progress == Progress::CutShort {
            let files = initialise::empty(&*journal, &mut image, clock::now())?;
            tracing::warn!(files, "an init that was cut short left files; they are removed");
        }
        if progress != Progress::Done {
            initialise::begin(&*journal, clock::now())?;
        }
        let mut options =
            MountOptions::new(&self.node.config.mount, &self.node.config.cluster.service, epoch);
        options.threads = self.node.mount_threads;
        let gate: Arc<dyn Gate> = Arc::new(LeaseDoor(self.node.runner.gate()));
        let to_mount = Arc::clone(&journal);
        let mount = self
            .blocking(move || Mount::new(options, image, to_mount, objects, gate).map(Arc::new))
            .await??;
        self.mount = Some(mount);
        if progress != Progress::Done {
            self.node.board.say("initialising the volume");
            service::initialise(self).await?;
            initialise::finish(&*journal, clock::now())?;
        }
        Ok(())
    }

    /// Followers are served from here on; who has caught up may take over.
    fn take_followers(&mut self) {
        let source = Arc::new(self.node.volume.clone());
        let options = LeaderOptions {
            beat: follow::beat(&self.node.settings),
            bandwidth: self.node.config.bandwidth,
            ..LeaderOptions::default()
        };
        let epoch = convert::to_log_epoch(self.epoch);
        let (leader, mut events) = Leader::start(&self.node.endpoint, source, epoch, options);
        let leader = Arc::new(leader);
        self.node.followers.send_replace(Some(Arc::clone(&leader)));
        self.followers = Some(Arc::clone(&leader));
        self.tasks.spawn(eligible::keep(self.node.clone(), Arc::clone(&leader)));
        self.tasks.spawn(verify::keep(self.node.clone(), Arc::clone(&leader)));
        let terms = self.node.runner.terms();
        let in_force = self.terms.clone();
        self.tasks.spawn(quorum::keep(self.node.clone(), Arc::clone(&leader), terms, in_force));
        self.tasks.spawn(async move {
            while let Some(event) = events.recv().await {
                tracing::warn!(?event, "a follower knows of a newer epoch");
            }
        });
    }

    /// Waits until the leadership goes on in a later epoch, and says in which.
    pub async fn renewed(&self) -> Epoch {
        let mut directives = self.node.runner.directives();
        let later = |directive: &Directive| matches!(directive, Directive::Lead { epoch, .. } if *epoch > self.epoch);
        loop {
            if let Ok(directive) = directives.wait_for(later).await
                && let Directive::Lead { epoch, .. } = *directive
            {
                return epoch;
            }
            // The election's task ended: whoever watches for that ends this.
            std::future::pending::<()>().await;
        }
    }

    /// Goes on in `epoch`, with sessions of its own: a voter that promised the old one away takes
    /// part in these. The service notices nothing but that its writes take a little longer.
    pub async fn renew(&mut self, epoch: Epoch) -> Result<(), ReplicaError> {
        tracing::warn!(from = %self.epoch, to = %epoch, "the leadership goes on in another epoch");
        let Some(leading) = self.leading.as_ref() else { return Err(ReplicaError::Demoted) };
        leading.renew(convert::to_log_epoch(epoch), self.node.config.node.as_str())?;
        self.epoch = epoch;
        self.tasks.shutdown().await;
        self.node.followers.send_replace(None);
        if let Some(followers) = self.followers.take().and_then(Arc::into_inner) {
            followers.stop().await;
        }
        self.terms = self.node.runner.terms().borrow().clone();
        if let Some(terms) = &self.terms {
            quorum::apply(self.node, terms);
        }
        self.take_followers();
        self.node.board.set(|situation| situation.leading = Some(epoch));
        Ok(())
    }

    /// Runs `work` on a thread that may wait, and has demoting wait for it.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ReplicaError> {
        let permit = Arc::clone(&self.busy).acquire_owned().await;
        let permit = permit.map_err(|_| ReplicaError::Demoted)?;
        // The permit is dropped after the result, also if nobody takes that any more.
        let task = tokio::task::spawn_blocking(move || (work(), permit));
        let (result, _permit) = task.await.map_err(|_| ReplicaError::Demoted)?;
        Ok(result)
    }

    /// Ends everything. Returns why this replica should not lead again, if it should not.
    async fn demote(
        mut self,
        end: End,
        directives: &mut watch::Receiver<Directive>,
    ) -> Option<String> {
        self.node.board.set(|situation| {
            situation.ready = false;
            situation.state = "demoting".to_owned();
        });
        let (why, unfit) = match &end {
            End::Fenced(why) => {
                tracing::warn!(epoch = %self.epoch, %why, "fenced");
                (why.clone(), None)
            }
            End::Resigned(why) => (why.clone(), None),
            End::Unfit(why) => (why.clone(), Some(why.clone())),
        };
        if !matches!(end, End::Fenced(_)) {
            tracing::info!(epoch = %self.epoch, %why, "giving up leadership in order");
            // The lease may still be lost on the way; then there is no time for order.
            tokio::select! {
                biased;
                why = fenced(directives, self.epoch) => {
                    tracing::warn!(%why, "fenced while giving up");
                }
                () = self.wind_down() => {
                    self.node.runner.step_down(self.epoch, why).await;
                }
            }
        }
        self.end().await;
        unfit
    }

    /// Stops the service and waits until the followers have all that it wrote.
    async fn wind_down(&mut self) {
        service::stop(self).await;
        if let Some(mount) = self.mount.clone()
            && let Ok(Err(why)) = self.blocking(move || unmount(&mount)).await
        {
            tracing::warn!(%why, "the mount is aborted");
        }
        let Some(followers) = self.followers.clone() else { return };
        let head = self.node.volume.head().seq;
        let caught_up = async {
            let is_behind = |leader: &Leader| {
                leader.followers().iter().any(|follower| {
                    follower.connected && follower.copy.is_none() && follower.durable < head
                })
            };
            while is_behind(&followers) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(HANDOVER_PATIENCE, caught_up).await.is_err() {
            tracing::warn!("a follower does not have everything; leadership goes on without it");
        }
    }

    /// The order that frees everything: kill, abort (what waits for the mount can die now), wait.
    async fn end(&mut self) {
        if let Some(service) = &self.service {
            service.kill();
        }
        if let Some(mount) = self.mount.take() {
            let aborted = tokio::task::spawn_blocking(move || mount.abort()).await;
            if let Ok(Err(error)) = aborted {
                tracing::error!(%error, "the mount stays behind");
            }
        }
        // Work that waits for the epoch's start ends with this; no mount is left that could answer
        // for what is refused from here on.
        if let Some(ending) = self.ending.take() {
            ending.end();
        }
        // Work that was under way may still hand over a mount or a child: to nobody, so that it
        // is dropped, which ends it.
        let _nothing_under_way = self.busy.acquire().await;
        if let Some(service) = self.service.take() {
            service.ended().await;
        }
        self.tasks.shutdown().await;
        self.node.followers.send_replace(None);
        if let Some(leading) = self.leading.take() {
            leading.end();
        }
        if let Some(followers) = self.followers.take().and_then(Arc::into_inner) {
            followers.stop().await;
        }
    }
}

/// Takes the mount away in order. Unmounting comes before the barrier: it writes back what was
/// stored through a mapping and not yet handed over, and the barrier then covers that too.
fn unmount(mount: &Mount) -> Result<(), String> {
    let mut tries = 0;
    while let Err(error) = mount.unmount() {
        // The kernel may lag behind the end of the last process that had a file open.
        if !matches!(error, MountError::Busy { .. }) || tries == UNMOUNT_TRIES {
            return Err(error.to_string());
        }
        tries += 1;
        std::thread::sleep(UNMOUNT_PAUSE);
    }
    mount.barrier().map_err(|error| error.to_string())
}

/// The election's gate, as the mount knows gates.
struct LeaseDoor(Arc<mainstay_election::runner::LeaseGate>);

impl Gate for LeaseDoor {
    fn open(&self) -> bool {
        self.0.open()
    }
}
