//! The cluster's config, kept on this replica's disk and applied to its volume.
//!
//! The newest one is stored before anything rests on it: a coordinator that loses its data gets it
//! back from here. An older one than ours never replaces it, whoever shows it.

use std::sync::Arc;

use mainstay_election::values::{self, Config};
use mainstay_sync::volume::Volume;

use super::node::Node;
use super::situation::Board;

/// The config on this disk, for the first report. One that cannot be read counts as none.
pub(super) fn load(volume: &Volume, board: &Board) {
    let Some(stored) = volume.config() else { return };
    match values::decode::<Config>("config", &stored) {
        Ok(config) => board.set(|situation| situation.stored = Some(Arc::new(config))),
        Err(error) => tracing::error!(%error, "the config on this disk is ignored"),
    }
}

/// Keeps what the coordinator shows, for as long as it is asked to.
pub(super) async fn keep(node: Node) {
    let mut observed = node.observed.clone();
    loop {
        let config = observed
            .borrow_and_update()
            .view
            .as_ref()
            .and_then(|view| view.config.as_ref().map(|config| Arc::new(config.value.clone())));
        if let Some(config) = config {
            follow(&node, config).await;
        }
        if observed.changed().await.is_err() {
            return;
        }
    }
}

async fn follow(node: &Node, config: Arc<Config>) {
    let situation = node.board.read();
    let cluster = node.volume.cluster().map(super::convert::cluster);
    // A blank volume joins no cluster by reading of it.
    if cluster != Some(config.cluster) {
        return;
    }
    if situation.leading.is_none() {
        // A leader is told its terms by the election.
        node.volume.apply_committed_only(config.is_sync());
    }
    if situation
        .stored
        .as_ref()
        .is_some_and(|stored| stored.cluster == config.cluster && stored.mark() >= config.mark())
    {
        return;
    }
    let (volume, bytes) = (node.volume.clone(), values::encode(&*config));
    let stored = tokio::task::spawn_blocking(move || volume.remember_config(&bytes)).await;
    match stored {
        Ok(Ok(())) => node.board.set(|situation| situation.stored = Some(config)),
        Ok(Err(error)) => tracing::error!(%error, "the cluster's config cannot be stored"),
        Err(error) => tracing::error!(%error, "storing the cluster's config broke off"),
    }
}
