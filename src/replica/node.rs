//! What every role of this replica shares.

use std::sync::Arc;

use mainstay_election::coordinator::Coordinator;
use mainstay_election::machine::Settings;
use mainstay_election::runner::{Observed, RunnerHandle};
use mainstay_sync::replicate::Leader;
use mainstay_sync::transport::Endpoint;
use mainstay_sync::volume::Volume;
use tokio::sync::{Mutex, watch};

use super::ReplicaError;
use super::situation::Board;
use super::stop::Stop;
use crate::config::RunConfig;
use crate::supervise::Fencer;

/// A replica's parts; clones are the same replica.
#[derive(Clone)]
pub(super) struct Node {
    pub config: Arc<RunConfig>,
    pub settings: Settings,
    pub volume: Volume,
    pub endpoint: Endpoint,
    pub runner: Arc<RunnerHandle>,
    /// For answering operators' requests; all else goes through the runner.
    pub coordinator: Arc<dyn Coordinator>,
    pub observed: watch::Receiver<Observed>,
    pub board: Arc<Board>,
    /// The leadership's sessions, while there is one: for status.
    pub followers: watch::Sender<Option<Arc<Leader>>>,
    pub fencer: Arc<Mutex<Fencer>>,
    pub stop: Stop,
    pub mount_threads: usize,
}

impl Node {
    /// Starts another fencer in place of one that does not answer.
    pub async fn replace_fencer(&self) -> Result<(), ReplicaError> {
        let mut fencer = self.fencer.lock().await;
        *fencer = fencer.again()?;
        Ok(())
    }
}
