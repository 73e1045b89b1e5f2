//! The follower's side of a comparison: walks its chunks, asks the leader for each one's hash as
//! of the same record, and mends what differs.
//!
//! Runs beside the live stream, on a link of its own and at a bounded rate, whenever a Beat names a
//! comparison that was not made yet. No chunk can differ by being looked at at another time: each
//! side gives a hash only of a chunk that was not touched after that record.

use std::time::Instant;

use super::end::{End, hear, say, unexpected};
use super::follower::{Following, Verifying};
use super::intake::Never;
use super::message::{Mismatch, Outcome, ToFollower, ToLeader, Verified};
use super::pace::Pace;
use super::session::in_time;
use crate::position::{FileId, Seq};
use crate::store::CHUNK_BYTES;
use crate::transport::{Channel, FrameKind, Link};
use crate::volume::{ChunkHash, Hashed, Volume, VolumeError};

/// Chunks that are compared at once.
const CHUNKS_MAX: usize = 32;
/// Mismatches that are told of one by one.
const MISMATCHES_MAX: usize = 100;

/// Makes each comparison that is asked for. Never ends: one that fails is made at the next asking.
pub(super) async fn keep(following: &Following) -> Result<Never, End> {
    let Some(volume) = following.sink.to_verify() else { return std::future::pending().await };
    let mut status = following.status.subscribe();
    let mut made = 0;
    loop {
        let asked = status.wait_for(|status| status.verify.0 > made).await;
        let Ok((run, at)) = asked.map(|status| status.verify) else { return Err(End::Stopped) };
        made = run;
        let outcome = compare(following, &volume, run, at).await;
        following.status.send_modify(|status| status.verifying = None);
        match outcome {
            Ok(outcome) => {
                tell(&outcome);
                following.status.send_modify(|status| status.verified = Some(outcome));
            }
            Err(end) => tracing::warn!(why = %end, "the content could not be compared"),
        }
    }
}

fn tell(outcome: &Verified) {
    let Verified { at, compared, moved_on, mismatched, .. } = outcome;
    match mismatched {
        0 => tracing::info!(%at, compared, moved_on, "the content is as the leader's"),
        _ => tracing::error!(%at, compared, moved_on, mismatched, "the content differed"),
    }
}

async fn compare(
    following: &Following,
    volume: &Volume,
    run: u64,
    at: Seq,
) -> Result<Verified, End> {
    let leader = &following.leader;
    let link = following.endpoint.connect(leader.address, &leader.node).await?;
    let compared = over(following, volume, &link, run, at).await;
    match &compared {
        // The leader closes when it has the outcome.
        Ok(_) => drop(tokio::time::timeout(super::session::HANDSHAKE, link.closed()).await),
        Err(end) => link.close(end.goodbye(), &end.to_string()),
    }
    compared
}

async fn over(
    following: &Following,
    volume: &Volume,
    link: &Link,
    run: u64,
    at: Seq,
) -> Result<Verified, End> {
    let waiting = volume.clone();
    blocking(move || waiting.wait_verifiable(at)).await?;
    let mut channel = link.open().await?;
    say(&mut channel.sending, &ToLeader::Verify { volume: volume.id(), at }).await?;
    let walked = volume.clone();
    let mut walk = blocking(move || walked.chunk_walk()).await?;
    let total = walk.bytes().map_err(failed)? / CHUNK_BYTES;
    let pace = Pace::new(Some(following.options.verify_bandwidth));
    let mut outcome = Verified { at, run, ..Verified::default() };
    let began = Instant::now();
    let (mut looked_at, mut leader_is_right) = (0, true);
    loop {
        let (back, chunks) = blocking(move || {
            let chunks = walk.next(CHUNKS_MAX)?;
            Ok((walk, chunks))
        })
        .await?;
        walk = back;
        if chunks.is_empty() {
            break;
        }
        pace.take(chunks.len() as u64 * CHUNK_BYTES).await;
        looked_at += chunks.len() as u64;
        leader_is_right &= some(volume, &mut channel, &chunks, &mut outcome).await?;
        let progress = progress(began, looked_at, total);
        following.status.send_modify(|status| status.verifying = Some(progress));
    }
    let volume = volume.clone();
    if leader_is_right {
        blocking(move || volume.set_compared(at)).await?;
    }
    say(&mut channel.sending, &ToLeader::Verified(outcome.clone())).await?;
    Ok(outcome)
}

fn progress(began: Instant, chunks: u64, total: u64) -> Verifying {
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    let chunks_total = total.max(chunks);
    Verifying {
        chunks,
        chunks_total,
        bytes_per_second: (chunks * CHUNK_BYTES).saturating_mul(1000) / ms,
        ms_left: ms.saturating_mul(chunks_total - chunks).checked_div(chunks),
    }
}

/// Compares some chunks, and says whether all of them are here as on a sound leader's disk.
async fn some(
    volume: &Volume,
    channel: &mut Channel,
    chunks: &[(FileId, u64)],
    outcome: &mut Verified,
) -> Result<bool, End> {
    say(&mut channel.sending, &ToLeader::Compare(chunks.to_vec())).await?;
    let (hashing, of, at) = (volume.clone(), chunks.to_vec(), outcome.at);
    let ours = blocking(move || {
        of.iter().map(|(id, chunk)| hashing.hash_chunk(*id, *chunk, at)).collect()
    });
    let ours: Vec<Option<Hashed>> = ours.await?;
    let theirs = match hear(&mut channel.receiving).await? {
        ToFollower::Hashes(theirs) if theirs.len() == chunks.len() => theirs,
        other => return Err(unexpected("as many Hashes", &other)),
    };
    let (mut good, mut leader_is_right) = (Vec::new(), true);
    for (((id, chunk), ours), theirs) in chunks.iter().zip(ours).zip(theirs) {
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            outcome.moved_on += 1;
            continue;
        };
        outcome.compared += 1;
        if ours.hash == theirs.hash {
            good.push((*id, *chunk, ours.hash));
            continue;
        }
        let mismatch = differs(volume, channel, (*id, *chunk), (ours, theirs), at).await?;
        outcome.mismatched += 1;
        leader_is_right &= mismatch.outcome == Outcome::Mended;
        if outcome.mismatches.len() < MISMATCHES_MAX {
            outcome.mismatches.push(mismatch);
        }
    }
    let volume = volume.clone();
    blocking(move || volume.remember_hashes(&good, at)).await?;
    Ok(leader_is_right)
}

/// A chunk differs: takes the leader's, unless the leader itself knows that it is wrong.
async fn differs(
    volume: &Volume,
    channel: &mut Channel,
    (id, chunk): (FileId, u64),
    (ours, theirs): (Hashed, Hashed),
    at: Seq,
) -> Result<Mismatch, End> {
    let offset = chunk * CHUNK_BYTES;
    let naming = volume.clone();
    let file = blocking(move || naming.path_of(id)).await?;
    let file = file.unwrap_or_else(|| format!("file {id}"));
    let (leader, follower) = (theirs.hash.to_string(), ours.hash.to_string());
    tracing::error!(file, offset, leader, follower, "a chunk differs from the leader's");
    let outcome = if theirs.is_rotten() && !ours.is_rotten() {
        Outcome::LeaderIsWrong
    } else {
        let why = format!(
            "{file} at {offset} (chunk {chunk}): {follower} here and {leader} on the leader, as of \
             op {at}"
        );
        mend(volume, channel, (id, chunk), theirs.hash, at, why).await?
    };
    Ok(Mismatch { file, offset, leader, follower, outcome })
}

async fn mend(
    volume: &Volume,
    channel: &mut Channel,
    (id, chunk): (FileId, u64),
    wanted: ChunkHash,
    at: Seq,
    why: String,
) -> Result<Outcome, End> {
    say(&mut channel.sending, &ToLeader::Chunk { id, chunk }).await?;
    match hear(&mut channel.receiving).await? {
        ToFollower::Chunk { found: true } => {}
        ToFollower::Chunk { found: false } => return Ok(Outcome::MovedOn),
        other => return Err(unexpected("Chunk", &other)),
    }
    let data = in_time(async { Ok(channel.receiving.next().await?) }).await?;
    let fits = data.body.len() as u64 <= CHUNK_BYTES && ChunkHash::of(&data.body) == wanted;
    if data.kind != FrameKind::Data || !fits {
        return Err(End::Contradiction("a chunk that is not as it was hashed".to_owned()));
    }
    let mending = volume.clone();
    let mended = blocking(move || mending.mend_chunk(id, chunk, at, &data.body, &why)).await?;
    Ok(mended.map_or(Outcome::MovedOn, |_| Outcome::Mended))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, End> {
    tokio::task::spawn_blocking(work).await?.map_err(failed)
}

fn failed(error: VolumeError) -> End {
    super::ends::SinkError { action: "compare the content", why: error.to_string() }.into()
}
