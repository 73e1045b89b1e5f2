//! The leader's side of a comparison: says hashes of its chunks as of the record that was agreed
//! on, while the service goes on writing. The follower sets the pace.

use super::end::{End, hear, say, unexpected};
use super::ends::SourceError;
use super::leader::Shared;
use super::message::{ToFollower, ToLeader};
use super::serve_copy::seat_of;
use crate::position::{Seq, VolumeId};
use crate::transport::{Channel, FrameKind, Link};
use crate::volume::{Hashed, VolumeError};
use crate::wire;

pub(super) async fn serve(
    shared: &Shared,
    link: &Link,
    mut channel: Channel,
    volume: VolumeId,
    at: Seq,
) -> Result<(), End> {
    let seat = seat_of(shared, &link.peer().node, volume)?;
    let Some(ours) = shared.source.to_verify() else {
        return Err(SourceError::Failed("its content cannot be compared".to_owned()).into());
    };
    if at > ours.head().seq {
        return Err(End::Contradiction(format!("it compares as of {at}, which is not made yet")));
    }
    let waiting = ours.clone();
    blocking(move || waiting.wait_verifiable(at)).await?;
    loop {
        match hear(&mut channel.receiving).await? {
            ToLeader::Compare(chunks) => {
                let hashing = ours.clone();
                let hashes: Vec<Option<Hashed>> = blocking(move || {
                    let hashed =
                        chunks.iter().map(|(id, at_chunk)| hashing.hash_chunk(*id, *at_chunk, at));
                    let hashed: Vec<Option<Hashed>> = hashed.collect::<Result<_, _>>()?;
                    // What both agree on the follower remembers; ours is right as far as we know.
                    let known = chunks.iter().zip(&hashed).filter_map(|((id, chunk), of)| {
                        let of = of.as_ref()?;
                        of.remembered.is_none().then_some((*id, *chunk, of.hash))
                    });
                    hashing.remember_hashes(&known.collect::<Vec<_>>(), at)?;
                    Ok(hashed)
                })
                .await?;
                say(&mut channel.sending, &ToFollower::Hashes(hashes)).await?;
            }
            ToLeader::Chunk { id, chunk } => {
                let reading = ours.clone();
                let bytes = blocking(move || reading.chunk_at(id, chunk, at)).await?;
                let found = ToFollower::Chunk { found: bytes.is_some() };
                channel.sending.queue(FrameKind::Message, wire::encode_message(&found).into())?;
                if let Some(bytes) = bytes {
                    channel.sending.queue(FrameKind::Data, bytes)?;
                }
                channel.sending.flush().await?;
            }
            ToLeader::Verified(outcome) => {
                seat.verified(outcome);
                shared.table.touch();
                return Ok(());
            }
            other => return Err(unexpected("Compare, Chunk or Verified", &other)),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, End> {
    let done = tokio::task::spawn_blocking(work).await?;
    done.map_err(|error: VolumeError| SourceError::Failed(error.to_string()).into())
}
