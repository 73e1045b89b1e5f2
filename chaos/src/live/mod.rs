//! A cluster of real processes, each node in a folder of its own: on this machine's loopback, or
//! each on a host of a [`crate::world::World`].
//!
//! Everything that is started ends when its owner is dropped, and every mount with it, also when
//! a test panics.

pub mod cluster;
mod disk;
pub mod etcd;
pub mod place;
pub mod ports;
pub mod process;
pub mod replica;
pub mod service;
pub mod status;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub use cluster::{Cluster, Coordination};
pub use place::Place;
pub use replica::Replica;
pub use service::Service;
pub use status::Status;

/// How long to wait for what should take seconds: a busy machine is slow, not wrong.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Asks `is_so` until it says yes, every `interval`.
///
/// # Errors
/// `what` did not come about within `patience`.
pub async fn until<F, T>(
    what: &str,
    patience: Duration,
    interval: Duration,
    mut is_so: F,
) -> Result<T>
where
    F: AsyncFnMut() -> Option<T>,
{
    let start = Instant::now();
    loop {
        if let Some(found) = is_so().await {
            return Ok(found);
        }
        if start.elapsed() > patience {
            bail!("waited {:.0} s in vain for {what}", start.elapsed().as_secs_f64());
        }
        tokio::time::sleep(interval).await;
    }
}
