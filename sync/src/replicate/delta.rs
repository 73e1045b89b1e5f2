//! The follower's side of a delta: asks for what differs, piece by piece.
//!
//! The hazard is that the peer names files and offsets: blocks are taken only in chunks that were
//! asked for, and rows are judged as those of a copy are.

use std::collections::VecDeque;
use std::time::Instant;

use super::copy::{self, Copied};
use super::end::{End, hear, say, unexpected};
use super::ends::Delta;
use super::follower::{Following, Phase};
use super::message::{ToFollower, ToLeader};
use super::plan::{Leading, Standing};
use super::session::in_time;
use crate::position::{FileId, Position, Seq};
use crate::store::CHUNK_BYTES;
use crate::store::rows::Row;
use crate::store::stage::Need;
use crate::transport::{Channel, FrameKind, Link};
use crate::volume::{Ask, Differing};

/// Rows asked for at once.
const WANTS_MAX: usize = 1024;
/// Chunks asked for at once.
const ASKS_MAX: usize = 64;
/// Requests on their way at once: the leader reads while we write.
const FETCHES_MAX: usize = 4;

/// Fetches what differs from the leader's volume since `since`.
pub(super) async fn fetch(
    following: &Following,
    leading: &Leading,
    standing: &Standing,
    since: Seq,
) -> Result<Copied, End> {
    let epoch = standing.lineage.epoch_at(since).unwrap_or_default();
    let shared = Position { epoch, seq: since };
    let whole = following.write(move |sink| Ok(sink.needs_whole(shared)?)).await?;
    let leader = &following.leader;
    let link = following.endpoint.connect(leader.address, &leader.node).await?;
    let taken = async {
        let mut channel = link.open().await?;
        let ask = ToLeader::Delta { volume: standing.volume, since, whole };
        say(&mut channel.sending, &ask).await?;
        // No limit of time: the leader may have to make a checkpoint first.
        let header = match hear(&mut channel.receiving).await? {
            ToFollower::Changes(header) => header,
            other => return Err(unexpected("Changes", &other)),
        };
        copy::fits(&header.snapshot, leading)?;
        let position = header.snapshot.position;
        // A leader that has not applied so much yet begins where its objects stand.
        if header.since != since.min(position.seq) || (whole && !header.whole) {
            let what = format!("its delta to {position} is since {}, not {since}", header.since);
            return Err(End::Contradiction(what));
        }
        let delta = following.write(move |sink| Ok(sink.catch_up(&header, shared)?)).await?;
        let taking = Taking { following, began: Instant::now(), bytes: 0, chunks: 0, total: 0 };
        let (delta, through) = taking.all(&mut channel, delta).await?;
        if through.seq < position.seq.max(since) {
            let what = format!("its delta since {since} of {position} ends at {through}");
            return Err(End::Contradiction(what));
        }
        Ok((channel, delta.into_builder(leading.epoch), position, through))
    };
    match taken.await {
        Ok((_channel, builder, position, through)) => {
            Ok(Copied { builder, position, through, link, _channel })
        }
        Err(end) => Err(close(&link, end)),
    }
}

fn close(link: &Link, end: End) -> End {
    link.close(end.goodbye(), &end.to_string());
    end
}

struct Taking<'a> {
    following: &'a Following,
    began: Instant,
    bytes: u64,
    chunks: u64,
    total: u64,
}

type Held = Box<dyn Delta>;

impl Taking<'_> {
    async fn all(mut self, channel: &mut Channel, delta: Held) -> Result<(Held, Position), End> {
        self.report();
        let (delta, _) = self.rows(channel, delta).await?;
        let delta = self.change(delta, |delta| Ok(delta.find_wants()?)).await?;
        let delta = self.wants(channel, delta).await?;
        let (delta, total) = self.with(delta, |delta| Ok(delta.find_needs()?)).await?;
        self.total = total;
        let delta = self.blocks(channel, delta).await?;
        say(&mut channel.sending, &ToLeader::Complete).await?;
        match hear(&mut channel.receiving).await? {
            ToFollower::End { through } => Ok((delta, through)),
            other => Err(unexpected("End", &other)),
        }
    }

    /// Takes rows up to what ends them.
    async fn rows(
        &self,
        channel: &mut Channel,
        mut delta: Held,
    ) -> Result<(Held, ToFollower), End> {
        loop {
            match hear(&mut channel.receiving).await? {
                ToFollower::Rows(rows) => delta = self.take_rows(delta, rows).await?,
                end @ (ToFollower::RowsEnd | ToFollower::Answered { .. }) => {
                    return Ok((delta, end));
                }
                other => return Err(unexpected("Rows or their end", &other)),
            }
        }
    }

    async fn take_rows(&self, delta: Held, rows: Vec<Row>) -> Result<Held, End> {
        self.change(delta, move |delta| Ok(delta.take_rows(&rows)?)).await
    }

    async fn wants(&self, channel: &mut Channel, mut delta: Held) -> Result<Held, End> {
        let mut last = None;
        loop {
            let after = last.clone();
            let (back, wants) =
                self.with(delta, move |delta| Ok(delta.wants(after.as_ref(), WANTS_MAX)?)).await?;
            delta = back;
            if wants.is_empty() {
                return Ok(delta);
            }
            last = wants.last().cloned();
            say(&mut channel.sending, &ToLeader::Want(wants)).await?;
            let (back, end) = self.rows(channel, delta).await?;
            let ToFollower::Answered { absent } = end else {
                return Err(unexpected("Answered", &end));
            };
            delta = self.change(back, move |delta| Ok(delta.take_absent(&absent)?)).await?;
        }
    }

    async fn blocks(&mut self, channel: &mut Channel, mut delta: Held) -> Result<Held, End> {
        let mut under_way: VecDeque<Vec<Ask>> = VecDeque::new();
        let mut last: Option<Need> = None;
        let mut more = true;
        loop {
            while more && under_way.len() < FETCHES_MAX {
                let (back, (asks, at)) =
                    self.with(delta, move |delta| Ok(delta.asks(last, ASKS_MAX)?)).await?;
                delta = back;
                if asks.is_empty() {
                    more = false;
                    break;
                }
                last = at;
                say(&mut channel.sending, &ToLeader::Fetch(asks.clone())).await?;
                under_way.push_back(asks);
            }
            let Some(asks) = under_way.pop_front() else { return Ok(delta) };
            delta = self.fetched(channel, delta, asks).await?;
            self.report();
        }
    }

    /// Takes what differs in `asks`.
    async fn fetched(
        &mut self,
        channel: &mut Channel,
        delta: Held,
        asks: Vec<Ask>,
    ) -> Result<Held, End> {
        let mut found: Vec<(usize, Differing)> = Vec::new();
        loop {
            let (id, of) = match hear(&mut channel.receiving).await? {
                ToFollower::Extent { id, offset } => {
                    let data = in_time(async { Ok(channel.receiving.next().await?) }).await?;
                    if data.kind != FrameKind::Data {
                        return Err(unexpected("data", &data.kind));
                    }
                    let length = data.body.len() as u64;
                    self.bytes += length;
                    (id, Differing { offset, length, bytes: Some(data.body) })
                }
                ToFollower::Zeros { id, offset, length } => {
                    (id, Differing { offset, length, bytes: None })
                }
                ToFollower::Fetched => break,
                other => return Err(unexpected("Extent, Zeros or Fetched", &other)),
            };
            if found.len() >= asks.len() * 8 {
                return Err(End::Contradiction("more blocks than were asked for".to_owned()));
            }
            found.push((asked(&asks, id, of.offset)?, of));
        }
        self.chunks += asks.len() as u64;
        self.change(delta, move |delta| {
            for (at, of) in &found {
                delta.take_differing(&asks[*at], of)?;
            }
            Ok(())
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        mut delta: Held,
        what: impl FnOnce(&mut dyn Delta) -> Result<T, End> + Send + 'static,
    ) -> Result<(Held, T), End> {
        self.following
            .write(move |_| {
                let done = what(&mut *delta)?;
                Ok((delta, done))
            })
            .await
    }

    async fn change(
        &self,
        delta: Held,
        what: impl FnOnce(&mut dyn Delta) -> Result<(), End> + Send + 'static,
    ) -> Result<Held, End> {
        Ok(self.with(delta, what).await?.0)
    }

    fn report(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.following.phase(Phase::CatchingUp {
            bytes: self.bytes,
            chunks: self.chunks,
            chunks_total: self.total,
            bytes_per_second: self.bytes.saturating_mul(1000) / ms,
            ms_left: (self.chunks > 0)
                .then(|| ms.saturating_mul(self.total.saturating_sub(self.chunks)) / self.chunks),
        });
    }
}

/// Which of the asks covers the place.
fn asked(asks: &[Ask], id: FileId, offset: u64) -> Result<usize, End> {
    let chunk = offset / CHUNK_BYTES;
    asks.iter().position(|ask| ask.id == id && ask.chunk == chunk).ok_or_else(|| {
        End::Contradiction(format!("bytes at {offset} of file {id}, which were not asked for"))
    })
}
