//! The follower's side of a live session.
//!
//! Nothing that the leader says is done before the follower has come to the same verdict itself,
//! and no record reaches the log before [`Expected`] has passed it. An acknowledgement is made of
//! what the log says is durable at that moment, and not sent once the epoch was promised away.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::{self, MissedTickBehavior};

use super::check::Expected;
use super::end::{End, hear, say, unexpected};
use super::ends::Builder;
use super::follower::{Following, Phase};
use super::message::{Beat, Stamp, ToFollower, ToLeader, Welcome};
use super::plan::{self, PROTOCOL, Refusal, Standing, Verdict};
use super::session::in_time;
use super::{clock, copy, delta, verify};
use crate::log::Frame;
use crate::op::{Record, Time};
use crate::position::{Epoch, Position, Seq};
use crate::transport::{Channel, FrameKind, Goodbye, Link, Receiving, Sending};
use crate::wire;

/// One session with the leader; says how it ended, and whether records ever flowed.
pub(super) async fn session(following: &Following) -> (End, bool) {
    let leader = &following.leader;
    // Stamps are of one leader's clock; an old one would be taken for a word of this one's.
    following.status.send_modify(|status| status.stamp = Stamp(0));
    let link = match following.endpoint.connect(leader.address, &leader.node).await {
        Ok(link) => link,
        Err(error) => return (error.into(), false),
    };
    let mut streamed = false;
    let Err(end) = follow(following, &link, &mut streamed).await;
    link.close(end.goodbye(), &end.to_string());
    (end, streamed)
}

/// There is no good end: a session lasts until something ends it.
pub(super) enum Never {}

async fn follow(following: &Following, link: &Link, streamed: &mut bool) -> Result<Never, End> {
    let mut channel = link.open().await?;
    let standing = standing(following);
    say(&mut channel.sending, &ToLeader::Hello(standing.clone())).await?;
    let welcome = match in_time(hear(&mut channel.receiving)).await? {
        ToFollower::Welcome(welcome) => welcome,
        other => return Err(unexpected("Welcome", &other)),
    };
    let agreed = agree(&standing, &welcome, following.leader.epoch);
    let leading = &welcome.leading;
    if let Verdict::Refuse(Refusal::GivenTwice { epoch, .. }) = plan::plan(&standing, leading) {
        // Its leader sees that in our registration, as it does after any promise that came to
        // nothing, and goes on in another epoch, which we can follow.
        following.write(move |sink| Ok(sink.decline(epoch)?)).await?;
    }
    agreed?;
    // One that cannot be followed does not count as heard: others may have to be elected.
    heard(following, link, |_| (), welcome.at);
    let (epoch, volume) = (leading.epoch, leading.volume);
    following.write(move |sink| Ok(sink.accept_leader(epoch, volume)?)).await?;
    let mut copied = None;
    match welcome.verdict {
        Verdict::Refuse(refusal) => return Err(refusal.into()),
        Verdict::Stream { .. } => following.write(|sink| Ok(sink.forget_delta()?)).await?,
        Verdict::Truncate { after } => {
            tracing::warn!(head = %standing.head, %after, "dropping a tail that no leader kept");
            let epoch = standing.lineage.epoch_at(after).unwrap_or_default();
            let after = Position { epoch, seq: after };
            following.write(move |sink| Ok(sink.truncate_after(after)?)).await?;
            if leading.first > after.seq.next() {
                // What is left is a prefix that the leader's log does not cover.
                return Err(End::Reborn);
            }
        }
        Verdict::SetAside { ancestor } => {
            let why = format!(
                "diverged from epoch {}: the last op in common is {ancestor}, this volume has \
                 applied up to {} of {}",
                leading.epoch, standing.applied, standing.head
            );
            tracing::warn!(%why, "setting the whole volume aside");
            following.write(move |sink| Ok(sink.set_aside(&why)?)).await?;
            return Err(End::Reborn);
        }
        Verdict::Delta { since } => {
            tracing::info!(head = %standing.head, %since, "fetching what differs");
            copied = Some(delta::fetch(following, leading, &standing, since).await?);
        }
        Verdict::Copy { why } => {
            tracing::info!(?why, "copying the whole volume");
            copied = Some(copy::fetch(following, leading, standing.volume).await?);
        }
    }
    let after = match &copied {
        Some(copied) => copied.position,
        None => following.sink.standing().head,
    };
    let volume = following.sink.standing().volume;
    say(&mut channel.sending, &ToLeader::Ready { after, volume }).await?;
    match in_time(hear(&mut channel.receiving)).await? {
        ToFollower::Started => {}
        other => return Err(unexpected("Started", &other)),
    }
    let mut intake = Intake {
        following,
        link,
        epoch: leading.epoch,
        expected: Expected::new(leading.lineage.clone(), after.seq),
        at: after.seq,
    };
    if let Some(copied) = copied {
        // The leader holds the records for the live session now.
        copied.link.close(Goodbye::Done, "the copy is here");
        intake.complete(&mut channel.receiving, copied.builder, copied.through).await?;
    }
    *streamed = true;
    following.status.send_modify(|status| {
        status.phase = Phase::Streaming;
        status.trouble = None;
    });
    intake.stream(channel).await
}

fn standing(following: &Following) -> Standing {
    let name = following.endpoint.name();
    Standing {
        protocol: PROTOCOL,
        service: name.service.clone(),
        node: name.node.clone(),
        ..following.sink.standing()
    }
}

/// Whether the leader is one, and its verdict what we would have said ourselves.
fn agree(standing: &Standing, welcome: &Welcome, at_least: Epoch) -> Result<(), End> {
    let Welcome { leading, verdict, .. } = welcome;
    if let Verdict::Refuse(refusal) = verdict {
        // Its reasons may be ones that we cannot see.
        return Err(refusal.clone().into());
    }
    plan::sound(leading).map_err(End::Contradiction)?;
    if leading.epoch < at_least {
        return Err(Refusal::Superseded { leader: leading.epoch, seen: at_least }.into());
    }
    match plan::plan(standing, leading) {
        Verdict::Refuse(refusal) => Err(refusal.into()),
        ours if ours == *verdict => Ok(()),
        ours => Err(End::Contradiction(format!("its verdict is {verdict:?}, ours {ours:?}"))),
    }
}

fn heard(following: &Following, link: &Link, change: impl FnOnce(&mut super::Status), at: Time) {
    let half = i64::try_from(link.rtt().as_millis() / 2).unwrap_or(0);
    let ahead = clock::ms_between(clock::now(), at).saturating_add(half);
    following.status.send_modify(|status| {
        status.heard = Some(Instant::now());
        status.goodbye = false;
        status.leader_clock_ahead_ms = Some(ahead);
        change(status);
    });
}

/// The live stream as far as it has come.
struct Intake<'a> {
    following: &'a Following,
    link: &'a Link,
    epoch: Epoch,
    expected: Expected,
    /// The last record taken.
    at: Seq,
}

impl Intake<'_> {
    /// Lays the records up to `through` over a copy, which is at one position then.
    async fn complete(
        &mut self,
        receiving: &mut Receiving,
        mut builder: Box<dyn Builder>,
        through: Position,
    ) -> Result<(), End> {
        while self.at < through.seq {
            let batch = self.batch(receiving, Some(through.seq)).await?;
            self.following.sink.ready(batch.bytes).await;
            let epoch = self.epoch;
            builder = self
                .following
                .write(move |_| {
                    for record in &batch.records {
                        builder.record(epoch, record)?;
                    }
                    Ok(builder)
                })
                .await?;
        }
        self.following.write(move |_| Ok(builder.finish(through)?)).await
    }

    /// Takes records and acknowledges them, for ever.
    async fn stream(mut self, channel: Channel) -> Result<Never, End> {
        let (bell, rung) = watch::channel(());
        let bell = Arc::new(bell);
        let ringing = Arc::downgrade(&bell);
        self.following.sink.on_durable(Box::new(move || {
            if let Some(bell) = ringing.upgrade() {
                bell.send_replace(());
            }
        }));
        let Channel { sending, mut receiving } = channel;
        let acks = acknowledge(self.following, sending, rung, self.epoch);
        let following = self.following;
        let records = async {
            loop {
                self.take(&mut receiving).await?;
            }
        };
        let end = tokio::select! {
            end = records => end,
            end = acks => end,
            end = verify::keep(following) => end,
        };
        drop(bell);
        end
    }

    async fn take(&mut self, receiving: &mut Receiving) -> Result<(), End> {
        let batch = self.batch(receiving, None).await?;
        if batch.records.is_empty() {
            return Ok(());
        }
        self.following.sink.ready(batch.bytes).await;
        let epoch = self.epoch;
        self.following
            .write(move |sink| {
                for record in &batch.records {
                    sink.receive(epoch, record)?;
                }
                Ok(())
            })
            .await
    }

    /// What is here of the stream, at least one frame, checked; no record past `last`.
    async fn batch(&mut self, receiving: &mut Receiving, last: Option<Seq>) -> Result<Batch, End> {
        let mut batch = Batch::default();
        let mut frame = Some(receiving.next().await?);
        while let Some(here) = frame {
            match here.kind {
                FrameKind::Record => {
                    batch.bytes += here.body.len() as u64;
                    let record = Frame::decode(here.body)?.record();
                    self.expected.pass(&record)?;
                    self.at = record.head.seq;
                    batch.records.push(record);
                }
                FrameKind::Message => match wire::decode_message(&here.body)? {
                    ToFollower::Beat(beat) => self.heard(&beat),
                    other => return Err(unexpected("a record or Beat", &other)),
                },
                FrameKind::Data => return Err(unexpected("a record or Beat", &here.kind)),
            }
            let full = batch.bytes >= self.following.options.batch_bytes_max as u64;
            if full || last == Some(self.at) {
                break;
            }
            frame = receiving.next_here()?;
        }
        Ok(batch)
    }

    fn heard(&self, beat: &Beat) {
        let Beat { head, committed, behind_bytes, behind_ms, verify, at, stamp } = *beat;
        // Only here, past the match of the two lineages: all that our log has is the leader's, so
        // its word on its own log is one on ours.
        self.following.sink.committed(committed);
        let change = |status: &mut super::Status| {
            status.leader_head = head;
            status.leader_committed = committed;
            status.behind_bytes = behind_bytes;
            status.behind_ms = behind_ms;
            status.verify = verify;
            status.stamp = stamp;
        };
        heard(self.following, self.link, change, at);
    }
}

#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    bytes: u64,
}

/// Tells the leader what is safe here, at every step and now and then.
async fn acknowledge(
    following: &Following,
    mut sending: Sending,
    mut rung: watch::Receiver<()>,
    epoch: Epoch,
) -> Result<Never, End> {
    let mut beats = time::interval(following.options.beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // The first one comes at once: what was here before counts too.
            _ = beats.tick() => {}
            told = rung.changed() => if told.is_err() { return Err(End::Stopped) },
        }
        let sink = &following.sink;
        let (durable, applied) = (sink.durable().seq, sink.applied());
        let echo = following.status.borrow().stamp;
        // Asked after `durable` was read: a promise made in between covers it with its ballot.
        let promised = sink.promised();
        if promised >= epoch {
            return Err(Refusal::Superseded { leader: epoch, seen: promised }.into());
        }
        // Read before: what it answers was heard when nothing was promised away yet.
        say(&mut sending, &ToLeader::Ack { epoch, durable, applied, echo }).await?;
    }
}
