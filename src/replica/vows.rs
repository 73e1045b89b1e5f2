//! Promises, made by the volume.

use std::sync::Arc;

use async_trait::async_trait;
use mainstay_election::runner::{Sealed, Vows};
use mainstay_election::values::Epoch;
use mainstay_sync::volume::Volume;

use super::convert;
use super::situation::Board;

/// Seals the volume's log once no leadership is alive here any more.
pub(super) struct VolumeVows {
    pub volume: Volume,
    pub board: Arc<Board>,
}

#[async_trait]
impl Vows for VolumeVows {
    async fn promise(&self, through: Epoch) -> Result<Sealed, String> {
        self.board.wound_up().await;
        let volume = self.volume.clone();
        let promise = move || {
            let position = volume.promise(convert::to_log_epoch(through))?;
            // The log takes nothing of those epochs any more, so what is read now stays true.
            Ok::<_, mainstay_sync::volume::VolumeError>(Sealed {
                volume: convert::volume(volume.id()),
                position: convert::position(position),
                lineage: convert::lineage(&volume.lineage()),
            })
        };
        let sealed = tokio::task::spawn_blocking(promise).await;
        sealed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}
