//! The leader's side of a delta: answers what the follower asks for, while the service goes on
//! writing. The changes are held as a copy's snapshot is.

use super::end::{End, hear, say, unexpected};
use super::ends::{Changes, SourceError};
use super::leader::Shared;
use super::message::{ToFollower, ToLeader};
use super::serve_copy::{seat_of, send_rows, within_bound};
use super::table::{CopyProgress, Seat};
use crate::position::{Seq, VolumeId};
use crate::transport::{Channel, FrameKind, Link, Sending};
use crate::volume::Ask;
use crate::wire;

type Held = Box<dyn Changes>;

/// Chunks that are read before what differs in them is sent, whatever the follower asks for at once:
/// 4 MiB.
const ASKS_MAX: usize = 64;

pub(super) async fn serve(
    shared: &Shared,
    link: &Link,
    mut channel: Channel,
    volume: VolumeId,
    since: Seq,
    whole: bool,
) -> Result<(), End> {
    let node = &link.peer().node;
    let seat = seat_of(shared, node, volume)?;
    let source = shared.source.clone();
    let changes = tokio::task::spawn_blocking(move || source.changes(since, whole)).await??;
    let (held, sent) = answer(shared, &mut channel, changes, &seat).await?;
    tracing::info!(%node, %since, bytes = sent.bytes, "a delta is sent");
    let _ended = channel.receiving.next().await;
    // Giving it up may wait for a disk.
    drop(tokio::task::spawn_blocking(move || drop(held)));
    Ok(())
}

async fn answer(
    shared: &Shared,
    channel: &mut Channel,
    mut changes: Held,
    seat: &Seat,
) -> Result<(Held, CopyProgress), End> {
    let header = changes.header();
    let position = header.snapshot.position;
    let sending = &mut channel.sending;
    say(sending, &ToFollower::Changes(header)).await?;
    changes = rows(shared, sending, changes, position.seq, |of| of.next_rows()).await?;
    say(sending, &ToFollower::RowsEnd).await?;
    let mut progress = CopyProgress::default();
    loop {
        let sending = &mut channel.sending;
        match hear(&mut channel.receiving).await? {
            ToLeader::Want(wants) => {
                changes.ask(wants);
                changes =
                    rows(shared, sending, changes, position.seq, |of| of.next_answer()).await?;
                let absent = changes.take_absent();
                say(sending, &ToFollower::Answered { absent }).await?;
            }
            ToLeader::Fetch(asks) => {
                for some in asks.chunks(ASKS_MAX) {
                    let some = some.to_vec();
                    changes = send_differing(shared, sending, changes, some, &mut progress).await?;
                }
                say(sending, &ToFollower::Fetched).await?;
                within_bound(shared, position.seq)?;
                seat.copying(progress);
                shared.table.touch();
            }
            ToLeader::Complete => break,
            other => return Err(unexpected("Want, Fetch or Complete", &other)),
        }
    }
    say(&mut channel.sending, &ToFollower::End { through: changes.through() }).await?;
    Ok((changes, progress))
}

async fn rows(
    shared: &Shared,
    sending: &mut Sending,
    mut changes: Held,
    since: Seq,
    next: fn(&mut dyn Changes) -> Result<Vec<crate::store::rows::Row>, SourceError>,
) -> Result<Held, End> {
    loop {
        let (back, rows) = reading(changes, move |changes| next(changes)).await?;
        changes = back;
        if rows.is_empty() {
            return Ok(changes);
        }
        send_rows(sending, rows).await?;
        within_bound(shared, since)?;
    }
}

async fn send_differing(
    shared: &Shared,
    sending: &mut Sending,
    changes: Held,
    asks: Vec<Ask>,
    progress: &mut CopyProgress,
) -> Result<Held, End> {
    // All in one go: a change of threads for each would take longer than the reading.
    let (changes, found) = reading(changes, move |changes| {
        let mut found = Vec::new();
        for ask in asks {
            found.extend(changes.differing(&ask)?.into_iter().map(|of| (ask.id, of)));
        }
        Ok(found)
    })
    .await?;
    for (id, of) in found {
        let offset = of.offset;
        match of.bytes {
            None => {
                let zeros = ToFollower::Zeros { id, offset, length: of.length };
                sending.queue(FrameKind::Message, wire::encode_message(&zeros).into())?;
            }
            Some(bytes) => {
                progress.bytes += of.length;
                shared.pace.take(of.length).await;
                let extent = wire::encode_message(&ToFollower::Extent { id, offset });
                sending.queue(FrameKind::Message, extent.into())?;
                sending.queue(FrameKind::Data, bytes)?;
            }
        }
    }
    sending.flush().await?;
    Ok(changes)
}

async fn reading<T: Send + 'static>(
    mut changes: Held,
    what: impl FnOnce(&mut dyn Changes) -> Result<T, SourceError> + Send + 'static,
) -> Result<(Held, T), End> {
    let read = tokio::task::spawn_blocking(move || {
        let read = what(&mut *changes);
        (changes, read)
    });
    let (changes, read) = read.await?;
    Ok((changes, read?))
}
