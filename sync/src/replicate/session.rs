//! The leader's side of one follower's live session.
//!
//! Acknowledgements count only here, after the lineages were matched at the session's start, and
//! only for records that this session sent (or that the match covers): a follower cannot vouch
//! for what it was never given.

use std::time::Duration;

use tokio::time::{self, MissedTickBehavior};

use super::end::{End, hear, say, unexpected};
use super::ends::Records;
use super::leader::{Event, Shared};
use super::message::{Beat, ToFollower, ToLeader, Welcome};
use super::plan::{self, Leading, Refusal, Standing, Verdict};
use super::table::Seat;
use super::{clock, serve_copy, serve_delta, serve_verify};
use crate::position::{Position, Seq, VolumeId};
use crate::transport::{Channel, FrameKind, Link, Receiving, Sending};
use crate::wire;

/// How long a peer may take over one step of the handshake.
pub(super) const HANDSHAKE_SECONDS: u64 = 20;
pub(super) const HANDSHAKE: Duration = Duration::from_secs(HANDSHAKE_SECONDS);

/// Fails what takes a peer longer than a handshake's step may.
pub(super) async fn in_time<T>(step: impl Future<Output = Result<T, End>>) -> Result<T, End> {
    let silent = |_| End::Silent { seconds: HANDSHAKE_SECONDS };
    time::timeout(HANDSHAKE, step).await.map_err(silent)?
}

/// Serves what the follower on `link` asks for, until it ends.
pub(super) async fn serve(shared: &Shared, link: &Link) -> Result<(), End> {
    let mut channel = in_time(async { Ok(link.accept().await?) }).await?;
    match in_time(hear(&mut channel.receiving)).await? {
        ToLeader::Hello(standing) => live(shared, link, channel, &standing).await,
        ToLeader::Copy { volume } => serve_copy::serve(shared, link, channel, volume).await,
        ToLeader::Delta { volume, since, whole } => {
            serve_delta::serve(shared, link, channel, volume, since, whole).await
        }
        ToLeader::Verify { volume, at } => {
            serve_verify::serve(shared, link, channel, volume, at).await
        }
        other => Err(unexpected("Hello, Copy, Delta or Verify", &other)),
    }
}

async fn live(
    shared: &Shared,
    link: &Link,
    mut channel: Channel,
    standing: &Standing,
) -> Result<(), End> {
    let leading = shared.leading()?;
    let verdict = decide(shared, link, standing, &leading);
    tracing::info!(node = %standing.node, volume = %standing.volume, head = %standing.head,
        ?verdict, "a follower asks to follow");
    let welcome = Welcome { leading: leading.clone(), verdict: verdict.clone(), at: clock::now() };
    say(&mut channel.sending, &ToFollower::Welcome(welcome)).await?;
    match verdict {
        Verdict::Refuse(refusal) => {
            in_time(async { Ok(channel.sending.finish().await?) }).await?;
            Err(refusal.into())
        }
        // It comes back as another volume.
        Verdict::SetAside { .. } => {
            Ok(in_time(async { Ok(channel.sending.finish().await?) }).await?)
        }
        verdict => {
            let seat = shared.table.seat(&standing.node, standing.volume, link.address());
            seat.set_compared(standing.compared);
            let end = tokio::select! {
                end = stream(shared, link, channel, standing, &leading, &verdict, &seat) => end,
                () = seat.replaced.notified() => Err(End::Replaced),
            };
            seat.leave();
            shared.table.touch();
            end
        }
    }
}

fn decide(shared: &Shared, link: &Link, standing: &Standing, leading: &Leading) -> Verdict {
    let caller = &link.peer().node;
    let not_member = |why| Verdict::Refuse(Refusal::NotMember { why });
    if standing.node != *caller {
        return not_member(format!("it says {:?}, its certificate {caller:?}", standing.node));
    }
    if let Err(refusal) = admitted(shared, caller, standing.volume) {
        return Verdict::Refuse(refusal);
    }
    let verdict = plan::plan(standing, leading);
    if let Verdict::Refuse(Refusal::Superseded { seen, .. }) = verdict {
        // Nobody listening is an owner that is stepping down already.
        let _ = shared.events.send(Event::Superseded { epoch: seen, node: caller.clone() });
    }
    verdict
}

fn admitted(shared: &Shared, node: &str, volume: VolumeId) -> Result<(), Refusal> {
    let Some(admit) = &shared.options.admit else { return Ok(()) };
    admit(node, volume).map_err(|why| Refusal::NotMember { why })
}

async fn stream(
    shared: &Shared,
    link: &Link,
    mut channel: Channel,
    standing: &Standing,
    leading: &Leading,
    verdict: &Verdict,
    seat: &Seat,
) -> Result<(), End> {
    // No limit of time: a copy comes before it, and a link that dies ends the wait.
    let (after, volume) = match hear(&mut channel.receiving).await? {
        ToLeader::Ready { after, volume } => (after, volume),
        other => return Err(unexpected("Ready", &other)),
    };
    fits(verdict, leading, after, shared.source.head())?;
    if volume != standing.volume {
        if !matches!(verdict, Verdict::Copy { .. }) {
            return Err(End::Contradiction(format!("it became {volume} without a copy")));
        }
        admitted(shared, &link.peer().node, volume)?;
    }
    let source = shared.source.clone();
    let records = tokio::task::spawn_blocking(move || source.records(after.seq)).await??;
    say(&mut channel.sending, &ToFollower::Started).await?;
    seat.begin(after.seq, volume);
    tokio::select! {
        end = send_records(shared, channel.sending, records, seat) => end,
        end = take_acks(shared, link, channel.receiving, volume, seat) => end,
        end = bound_lag(shared, seat) => end,
    }
}

/// Whether a follower at `after` has carried out `verdict`, so that everything up to there is
/// known to be the leader's own.
fn fits(verdict: &Verdict, leading: &Leading, after: Position, head: Position) -> Result<(), End> {
    let ours = after.seq <= head.seq && leading.lineage.epoch_at(after.seq) == Some(after.epoch);
    let asked = match verdict {
        Verdict::Stream { after: seq } | Verdict::Truncate { after: seq } => *seq == after.seq,
        Verdict::Copy { .. } | Verdict::Delta { .. } => true,
        Verdict::SetAside { .. } | Verdict::Refuse(_) => false,
    };
    if ours && asked {
        return Ok(());
    }
    Err(End::Contradiction(format!("it is ready at {after} after the verdict {verdict:?}")))
}

async fn send_records(
    shared: &Shared,
    mut sending: Sending,
    mut records: Box<dyn Records>,
    seat: &Seat,
) -> Result<(), End> {
    let mut beats = time::interval(shared.options.beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut committed_told = None;
    loop {
        let mut next = records.next(shared.options.batch_bytes_max);
        let frames = loop {
            // `next` lives across the beats: dropping it half-way could lose what it has read.
            tokio::select! {
                frames = &mut next => break frames?,
                _ = beats.tick() => {
                    committed_told = Some(queue_beat(shared, &mut sending, seat)?);
                    sending.flush().await?;
                }
            }
        };
        if let (Some(first), Some(last)) = (frames.first(), frames.last()) {
            seat.sent(last.head.seq, first.head.at);
        }
        for frame in frames {
            sending.queue(FrameKind::Record, frame.bytes)?;
        }
        if committed_told != Some(shared.source.committed()) {
            committed_told = Some(queue_beat(shared, &mut sending, seat)?);
        }
        sending.flush().await?;
    }
}

fn queue_beat(shared: &Shared, sending: &mut Sending, seat: &Seat) -> Result<Seq, End> {
    let (head, committed) = (shared.source.head().seq, shared.source.committed());
    let (behind_bytes, behind_ms) = seat.behind(&*shared.source);
    let (verify, stamp, at) = (shared.table.verify(), clock::stamp(), clock::now());
    let beat = Beat { head, committed, behind_bytes, behind_ms, verify, at, stamp };
    let beat = ToFollower::Beat(beat);
    sending.queue(FrameKind::Message, wire::encode_message(&beat).into())?;
    Ok(committed)
}

async fn take_acks(
    shared: &Shared,
    link: &Link,
    mut receiving: Receiving,
    volume: VolumeId,
    seat: &Seat,
) -> Result<(), End> {
    loop {
        let (epoch, durable, applied, echo) = match hear(&mut receiving).await? {
            ToLeader::Ack { epoch, durable, applied, echo } => (epoch, durable, applied, echo),
            other => return Err(unexpected("Ack", &other)),
        };
        let sent = seat.sent_through();
        if epoch != shared.epoch || durable > sent || applied > sent {
            return Err(End::Contradiction(format!(
                "it acknowledges {durable} (applied {applied}) in epoch {epoch}, and was sent \
                 records up to {sent} in epoch {}",
                shared.epoch
            )));
        }
        shared.source.peer_durable(volume, epoch, durable);
        // A stamp that this machine has not reached yet was not made here.
        let echo = echo.min(clock::stamp());
        seat.acked(durable, applied, echo, shared.source.head().seq, link.rtt());
        shared.table.touch();
    }
}

/// Ends the session once too much log is held for it.
async fn bound_lag(shared: &Shared, seat: &Seat) -> Result<(), End> {
    let mut beats = time::interval(shared.options.beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let (held, limit) =
            (shared.source.bytes_after(seat.sent_through()), shared.options.held_bytes_max);
        if held > limit {
            return Err(End::Outrun { held, limit });
        }
    }
}
