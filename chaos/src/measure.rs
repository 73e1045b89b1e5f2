//! Failovers with a clock beside them.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::live::{Cluster, PATIENCE, Status, until};
use crate::workload::History;

/// One leader's end and what followed.
#[derive(Clone, Debug)]
pub struct Failover {
    /// Who led before.
    pub from: String,
    /// Who leads now.
    pub to: String,
    /// The new epoch.
    pub epoch: u64,
    /// From the kill to the next acknowledged write.
    pub pause: Duration,
}

/// Kills the leading node (daemon, service and all) and waits for the next acknowledged write.
/// `told` hears of the steps as they happen.
///
/// # Errors
/// Nobody led before, or no write came through afterwards in time.
pub async fn fail_over(
    cluster: &mut Cluster,
    history: &History,
    mut told: impl FnMut(Step<'_>),
) -> Result<Failover> {
    let before = cluster.serving().await?;
    let from = before.leader.clone().context("a ready leader has a name")?;
    told(Step::Before(&before));
    let leader = cluster.node(&from)?;
    let began = history.now();
    history.kill(|| leader.kill());
    told(Step::Killed(&from));
    let over = history.now() + GRACE;
    let step = Duration::from_millis(5);
    let first = until("an acknowledged write after the kill", PATIENCE, step, async || {
        // The killed leader's last answers may still be on their way to their clients.
        history.first_end_after(over)
    })
    .await
    .with_context(|| cluster.last_words())?;
    let after = cluster
        .reaches("a newer epoch", |status| status.epoch > before.epoch && status.leader.is_some());
    let after = after.await?;
    let to = after.leader.clone().context("a leader has a name")?;
    let failover = Failover { from, to, epoch: after.epoch, pause: first.ended - began };
    told(Step::After(&after, &failover));
    Ok(failover)
}

/// An answer of the killed leader cannot take longer than this to reach its client on loopback;
/// no failover is faster.
const GRACE: Duration = Duration::from_millis(100);

/// What [`fail_over`] tells as it goes.
#[derive(Debug)]
pub enum Step<'a> {
    /// The cluster as it was.
    Before(&'a Status),
    /// This node was killed.
    Killed(&'a str),
    /// The cluster as it is again.
    After(&'a Status, &'a Failover),
}

/// The middle value and the largest; `None` of nothing.
#[must_use]
pub fn median_and_max(values: &[Duration]) -> Option<(Duration, Duration)> {
    let mut sorted = values.to_vec();
    sorted.sort();
    let max = *sorted.last()?;
    let middle = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2,
    };
    Some((median, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        let ms = |values: &[u64]| values.iter().copied().map(Duration::from_millis).collect();
        let values: Vec<_> = ms(&[5, 1, 3, 2]);
        let expected = (Duration::from_micros(2500), Duration::from_millis(5));
        assert_eq!(median_and_max(&values), Some(expected));
        assert_eq!(median_and_max(&[]), None);
    }
}
