//! The leader's side of a copy: everything, in pieces, while the service goes on writing.
//!
//! The link is the copy's own, so that its bytes never stand in the live records' way. The
//! snapshot is held until the follower closes the channel, which it does once its live session
//! streams: so the records after the snapshot's position are there when it asks for them.

use super::end::{End, say};
use super::ends::{Snapshot, SourceError};
use super::leader::Shared;
use super::message::ToFollower;
use super::table::{CopyProgress, Seat};
use std::sync::Arc;

use crate::position::{Seq, VolumeId};
use crate::store::rows::Row;
use crate::transport::{Channel, FRAME_BYTES_MAX, FrameKind, Link, Sending};
use crate::volume::Piece;
use crate::wire;

/// About how many bytes of rows go into one message.
const ROWS_BYTES: usize = 1 << 20;

pub(super) async fn serve(
    shared: &Shared,
    link: &Link,
    mut channel: Channel,
    volume: VolumeId,
) -> Result<(), End> {
    let node = &link.peer().node;
    let seat = seat_of(shared, node, volume)?;
    let source = shared.source.clone();
    let snapshot = tokio::task::spawn_blocking(move || source.snapshot()).await??;
    let held = tokio::select! {
        held = send(shared, &mut channel.sending, snapshot, &seat) => held?,
        // Nothing is to come, so this is the follower going away.
        gone = channel.receiving.next() => return gone.map(drop).map_err(End::from),
    };
    tracing::info!(%node, "a copy is sent");
    let _ended = channel.receiving.next().await;
    release(held);
    Ok(())
}

/// Only whom the live session has admitted may copy.
pub(super) fn seat_of(shared: &Shared, node: &str, volume: VolumeId) -> Result<Arc<Seat>, End> {
    let seat = shared.table.find(node, volume);
    seat.ok_or_else(|| End::Contradiction("it copies and has no session".to_owned()))
}

/// Sends all of `snapshot`, and gives it back still held.
async fn send(
    shared: &Shared,
    sending: &mut Sending,
    mut snapshot: Box<dyn Snapshot>,
    seat: &Seat,
) -> Result<Box<dyn Snapshot>, End> {
    let header = snapshot.header();
    let position = header.position;
    let mut progress = CopyProgress { bytes: 0, bytes_total: header.bytes };
    say(sending, &ToFollower::Begin(header)).await?;
    let mut piece = None;
    loop {
        // The next one is read while this one is sent.
        let sent = async {
            match piece {
                Some(Piece::Rows(rows)) => send_rows(sending, rows).await,
                Some(Piece::Data { id, offset, bytes }) => {
                    progress.bytes += bytes.len() as u64;
                    shared.pace.take(bytes.len() as u64).await;
                    let extent = wire::encode_message(&ToFollower::Extent { id, offset });
                    sending.queue(FrameKind::Message, extent.into())?;
                    Ok(sending.send(FrameKind::Data, bytes).await?)
                }
                None => Ok(()),
            }
        };
        let ((back, next), ()) = tokio::try_join!(next(snapshot), sent)?;
        snapshot = back;
        piece = next?;
        if piece.is_none() {
            break;
        }
        seat.copying(progress);
        shared.table.touch();
        within_bound(shared, position.seq)?;
    }
    say(sending, &ToFollower::End { through: snapshot.through() }).await?;
    Ok(snapshot)
}

/// The log that is held for a copy has a bound.
pub(super) fn within_bound(shared: &Shared, since: Seq) -> Result<(), End> {
    let (held, limit) = (shared.source.bytes_after(since), shared.options.held_bytes_max);
    if held > limit { Err(End::Outrun { held, limit }) } else { Ok(()) }
}

type Next = (Box<dyn Snapshot>, Result<Option<Piece>, SourceError>);

async fn next(mut snapshot: Box<dyn Snapshot>) -> Result<Next, End> {
    let reading = tokio::task::spawn_blocking(move || {
        let piece = snapshot.next();
        (snapshot, piece)
    });
    Ok(reading.await?)
}

/// Gives the snapshot up where waiting for a disk does no harm.
fn release(snapshot: Box<dyn Snapshot>) {
    drop(tokio::task::spawn_blocking(move || drop(snapshot)));
}

/// A page of rows may hold large attributes, so it is cut by bytes.
pub(super) async fn send_rows(sending: &mut Sending, rows: Vec<Row>) -> Result<(), End> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for row in rows {
        bytes += weight(&row);
        batch.push(row);
        if bytes >= ROWS_BYTES {
            say(sending, &ToFollower::Rows(std::mem::take(&mut batch))).await?;
            bytes = 0;
        }
    }
    if batch.is_empty() { Ok(()) } else { say(sending, &ToFollower::Rows(batch)).await }
}

/// No less than the row's encoding takes; far below [`FRAME_BYTES_MAX`] for any real row.
fn weight(row: &Row) -> usize {
    const FIXED_BYTES: usize = 160;
    const { assert!(ROWS_BYTES + FIXED_BYTES < FRAME_BYTES_MAX) };
    FIXED_BYTES
        + match row {
            Row::Node { attributes, .. } => match &attributes.kind {
                crate::op::Kind::Symlink(target) => target.len(),
                _ => 0,
            },
            Row::Entry { name, .. } => name.len(),
            Row::Xattr { name, value, .. } => name.len() + value.as_ref().map_or(0, Vec::len),
            Row::Chunk { .. } | Row::Gone { .. } => 0,
        }
}
