//! The follower's side of a copy: takes the leader's pieces straight into the volume.
//!
//! The hazard is that the peer names files and offsets: each piece is judged here before the
//! volume sees it.

use std::time::Instant;

use super::end::{End, hear, say, unexpected};
use super::ends::Builder;
use super::follower::{Following, Phase};
use super::message::{ToFollower, ToLeader};
use super::plan::Leading;
use super::session::in_time;
use crate::position::{Epoch, FileId, Lineage, Position, VolumeId};
use crate::store::sound;
use crate::transport::{Channel, FrameKind, Link};
use crate::volume::{Piece, SnapshotHeader};

/// All rows and bytes of a copy; the records up to `through` are still to be laid over it.
pub(super) struct Copied {
    pub builder: Box<dyn Builder>,
    pub position: Position,
    pub through: Position,
    /// While these are open the leader holds the records after `position`.
    pub link: Link,
    pub _channel: Channel,
}

/// Copies the leader's whole volume.
pub(super) async fn fetch(
    following: &Following,
    leading: &Leading,
    volume: VolumeId,
) -> Result<Copied, End> {
    let leader = &following.leader;
    let link = following.endpoint.connect(leader.address, &leader.node).await?;
    match take(following, leading, volume, &link).await {
        Ok((_channel, builder, position, through)) => {
            Ok(Copied { builder, position, through, link, _channel })
        }
        Err(end) => {
            link.close(end.goodbye(), &end.to_string());
            Err(end)
        }
    }
}

async fn take(
    following: &Following,
    leading: &Leading,
    volume: VolumeId,
    link: &Link,
) -> Result<(Channel, Box<dyn Builder>, Position, Position), End> {
    let mut channel = link.open().await?;
    say(&mut channel.sending, &ToLeader::Copy { volume }).await?;
    // No limit of time: the leader may have to make a checkpoint first.
    let begin = match hear(&mut channel.receiving).await? {
        ToFollower::Begin(begin) => begin,
        other => return Err(unexpected("Begin", &other)),
    };
    fits(&begin, leading)?;
    let (position, bytes_total) = (begin.position, begin.bytes);
    let builder = following.write(move |sink| Ok(sink.build(&begin)?)).await?;
    let mut taking = Taking {
        following,
        began: Instant::now(),
        bytes: 0,
        bytes_total,
        epoch_max: leading.epoch,
    };
    taking.report();
    let (builder, through) = taking.pieces(&mut channel, builder).await?;
    if through.seq < position.seq {
        let what = format!("its copy begins at {position} and ends at {through}");
        return Err(End::Contradiction(what));
    }
    Ok((channel, builder, position, through))
}

/// Whether the copy is of the log that the leader said it has.
pub(super) fn fits(begin: &SnapshotHeader, leading: &Leading) -> Result<(), End> {
    let at = begin.position;
    let up_to: Vec<_> =
        leading.lineage.0.iter().copied().filter(|(_, first)| *first <= at.seq).collect();
    let along = leading.lineage.epoch_at(at.seq) == Some(at.epoch);
    if along && begin.lineage == Lineage(up_to) && begin.cluster == leading.cluster {
        return Ok(());
    }
    Err(End::Contradiction(format!(
        "its copy is at {at} with lineage {:?}, its log has {:?}",
        begin.lineage, leading.lineage
    )))
}

struct Taking<'a> {
    following: &'a Following,
    began: Instant,
    bytes: u64,
    bytes_total: u64,
    epoch_max: Epoch,
}

/// A piece, or the copy's end and the record up to which it needs them.
enum Next {
    Piece(Piece),
    End(Position),
}

impl Taking<'_> {
    async fn pieces(
        &mut self,
        channel: &mut Channel,
        mut builder: Box<dyn Builder>,
    ) -> Result<(Box<dyn Builder>, Position), End> {
        let mut next = self.next(channel).await?;
        loop {
            let piece = match next {
                Next::Piece(piece) => piece,
                Next::End(through) => return Ok((builder, through)),
            };
            let written = self.following.write(move |_| {
                builder.piece(piece)?;
                Ok(builder)
            });
            // The next one arrives while this one is written.
            (builder, next) = tokio::try_join!(written, self.next(channel))?;
            self.report();
        }
    }

    /// What comes next.
    async fn next(&mut self, channel: &mut Channel) -> Result<Next, End> {
        let piece = match hear(&mut channel.receiving).await? {
            ToFollower::Rows(rows) => Piece::Rows(rows),
            ToFollower::Extent { id, offset } => {
                let data = in_time(async { Ok(channel.receiving.next().await?) }).await?;
                if data.kind != FrameKind::Data {
                    return Err(unexpected("data", &data.kind));
                }
                self.bytes += data.body.len() as u64;
                Piece::Data { id, offset, bytes: data.body }
            }
            ToFollower::End { through } => return Ok(Next::End(through)),
            other => return Err(unexpected("Rows, Extent or End", &other)),
        };
        judge(&piece, self.epoch_max).map_err(End::Contradiction)?;
        Ok(Next::Piece(piece))
    }

    fn report(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.following.phase(Phase::Copying {
            bytes: self.bytes,
            bytes_total: self.bytes_total,
            bytes_per_second: self.bytes.saturating_mul(1000) / ms,
        });
    }
}

/// What is wrong with a piece, if anything.
fn judge(piece: &Piece, epoch_max: Epoch) -> Result<(), String> {
    match piece {
        Piece::Rows(rows) => rows.iter().try_for_each(sound::row),
        Piece::Data { id, offset, bytes } => {
            let end = offset.checked_add(bytes.len() as u64);
            let within = end.is_some_and(|end| end <= i64::MAX as u64);
            let known = *id != FileId(0) && id.0 >> 40 <= epoch_max.0;
            match within && known && !bytes.is_empty() {
                true => Ok(()),
                false => Err(format!("{} bytes at {offset} of file {id}", bytes.len())),
            }
        }
    }
}
