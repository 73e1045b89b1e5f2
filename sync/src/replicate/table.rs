//! How far each follower is: what the leader's status shows, and what a bound on lag judges.
//!
//! A follower that was here stays in the table when its link is lost: silence is the worst lag
//! there is, and must not look like the last good report.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::clock;
use super::ends::Source;
use super::message::{Stamp, Verified};
use crate::op::Time;
use crate::position::{Seq, VolumeId};

/// Batches under way that are told apart; past it the newest ones are taken as one.
const MARKS_MAX: usize = 4096;

/// One follower, as its leader sees it.
#[derive(Clone, Debug)]
pub struct FollowerStatus {
    /// Its node.
    pub node: String,
    /// Its volume.
    pub volume: VolumeId,
    /// Where it called from.
    pub address: SocketAddr,
    /// Whether its session lives.
    pub connected: bool,
    /// For how long that is so.
    pub since: Duration,
    /// How long ago it was heard of.
    pub heard: Duration,
    /// Everything up to here is durable there.
    pub durable: Seq,
    /// And here in its objects.
    pub applied: Seq,
    /// The last record handed to its link.
    pub sent: Seq,
    /// When the newest word of the leader was said that it has answered.
    pub echo: Stamp,
    /// There and back.
    pub rtt: Duration,
    /// Records that are not durable there.
    pub lag_ops: u64,
    /// About how many bytes those have.
    pub lag_bytes: u64,
    /// Age of the oldest of them, or an upper bound of it.
    pub lag_ms: u64,
    /// A copy under way.
    pub copy: Option<CopyProgress>,
    /// Whether its content was ever compared with a leader's in its volume's life, or is a copy.
    pub compared: bool,
    /// What the last comparison in this leadership found.
    pub verified: Option<Verified>,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Bytes of files so far.
    pub bytes: u64,
    /// About how many there are.
    pub bytes_total: u64,
}

/// All followers of one leadership, by node: the newest session of a node is the one that counts.
pub(super) struct Table {
    seats: Mutex<BTreeMap<String, Arc<Seat>>>,
    /// The newest comparison that was asked for.
    verify: Mutex<(u64, Seq)>,
    changes: watch::Sender<u64>,
}

/// One session's place in the table. A session that was replaced writes to a seat that nobody
/// looks at any more.
pub(super) struct Seat {
    address: SocketAddr,
    /// Rung when a newer session of the node takes the place.
    pub replaced: Notify,
    progress: Mutex<Progress>,
}

struct Progress {
    volume: VolumeId,
    connected: bool,
    since: Instant,
    heard: Instant,
    caught_up: Instant,
    rtt: Duration,
    durable: Seq,
    applied: Seq,
    sent: Seq,
    echo: Stamp,
    /// Sent and not durable there, oldest first: up to which seq, made when at the earliest.
    under_way: VecDeque<(Seq, Time)>,
    copy: Option<CopyProgress>,
    compared: bool,
    verified: Option<Verified>,
}

impl Table {
    pub fn new() -> Table {
        Table { seats: Mutex::default(), verify: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// Changes whenever a status may have; the number means nothing.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Asks all followers to compare their content as of `at`.
    pub fn ask_verify(&self, run: u64, at: Seq) {
        *lock(&self.verify) = (run, at);
    }

    /// The newest comparison that was asked for.
    pub fn verify(&self) -> (u64, Seq) {
        *lock(&self.verify)
    }

    /// Something changed.
    pub fn touch(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Seats a new session of `node`, and ends the one that had the place.
    pub fn seat(&self, node: &str, volume: VolumeId, address: SocketAddr) -> Arc<Seat> {
        let now = Instant::now();
        let progress = Progress {
            volume,
            connected: true,
            since: now,
            heard: now,
            caught_up: now,
            rtt: Duration::ZERO,
            durable: Seq(0),
            applied: Seq(0),
            sent: Seq(0),
            echo: Stamp(0),
            under_way: VecDeque::new(),
            copy: None,
            compared: false,
            verified: None,
        };
        let seat =
            Arc::new(Seat { address, replaced: Notify::new(), progress: Mutex::new(progress) });
        let earlier = lock(&self.seats).insert(node.to_owned(), seat.clone());
        if let Some(earlier) = earlier {
            let was = lock(&earlier.progress);
            if was.volume == volume {
                let mut now = lock(&seat.progress);
                now.caught_up = was.caught_up;
                now.verified.clone_from(&was.verified);
            }
            drop(was);
            earlier.replaced.notify_one();
        }
        self.touch();
        seat
    }

    /// The seat of `node`, if its session is one of `volume` and lives.
    pub fn find(&self, node: &str, volume: VolumeId) -> Option<Arc<Seat>> {
        let seat = lock(&self.seats).get(node).cloned()?;
        let progress = lock(&seat.progress);
        let found = progress.volume == volume && progress.connected;
        drop(progress);
        found.then_some(seat)
    }

    /// Everybody, as of now.
    pub fn statuses(&self, source: &dyn Source) -> Vec<FollowerStatus> {
        let (now, wall, head) = (Instant::now(), clock::now(), source.head().seq);
        let seats: Vec<_> =
            lock(&self.seats).iter().map(|(node, seat)| (node.clone(), seat.clone())).collect();
        let status = |(node, seat): (String, Arc<Seat>)| {
            let progress = lock(&seat.progress);
            FollowerStatus {
                node,
                volume: progress.volume,
                address: seat.address,
                connected: progress.connected,
                since: now.saturating_duration_since(progress.since),
                heard: now.saturating_duration_since(progress.heard),
                durable: progress.durable,
                applied: progress.applied,
                sent: progress.sent,
                echo: progress.echo,
                rtt: progress.rtt,
                lag_ops: head.0.saturating_sub(progress.durable.0),
                lag_bytes: progress.lag_bytes(head, source),
                lag_ms: progress.lag_ms(head, now, wall),
                copy: progress.copy,
                compared: progress.compared,
                verified: progress.verified.clone(),
            }
        };
        seats.into_iter().map(status).collect()
    }
}

impl Seat {
    /// Records after `after` will be sent to `volume`, everything before is there.
    pub fn begin(&self, after: Seq, volume: VolumeId) {
        let mut progress = lock(&self.progress);
        // Another volume is a fresh copy.
        progress.compared |= progress.volume != volume;
        progress.volume = volume;
        progress.sent = after;
        progress.copy = None;
    }

    /// A batch goes out whose first record was made at `at` and whose last is `through`.
    pub fn sent(&self, through: Seq, at: Time) {
        let mut progress = lock(&self.progress);
        progress.sent = through;
        match progress.under_way.back_mut() {
            Some(newest) if newest.1 == at => newest.0 = through,
            _ => progress.under_way.push_back((through, at)),
        }
        if progress.under_way.len() > MARKS_MAX {
            // Taken as one with the batch before it, which is older: lag looks no smaller.
            progress.under_way.pop_back();
            if let Some(newest) = progress.under_way.back_mut() {
                newest.0 = through;
            }
        }
    }

    /// Bytes and milliseconds that the follower is behind.
    pub fn behind(&self, source: &dyn Source) -> (u64, u64) {
        let (now, wall, head) = (Instant::now(), clock::now(), source.head().seq);
        let progress = lock(&self.progress);
        (progress.lag_bytes(head, source), progress.lag_ms(head, now, wall))
    }

    /// The last record handed to the link.
    pub fn sent_through(&self) -> Seq {
        lock(&self.progress).sent
    }

    /// The follower acknowledged, while the leader's head was `head`.
    pub fn acked(&self, durable: Seq, applied: Seq, echo: Stamp, head: Seq, rtt: Duration) {
        let mut progress = lock(&self.progress);
        let now = Instant::now();
        progress.heard = now;
        progress.rtt = rtt;
        progress.applied = applied;
        progress.echo = echo.max(progress.echo);
        progress.durable = durable;
        while progress.under_way.front().is_some_and(|(through, _)| *through <= durable) {
            progress.under_way.pop_front();
        }
        if durable >= head {
            progress.caught_up = now;
        }
    }

    /// A copy is so far.
    pub fn copying(&self, copy: CopyProgress) {
        let mut progress = lock(&self.progress);
        progress.copy = Some(copy);
        progress.heard = Instant::now();
    }

    /// Whether its content was compared earlier in its volume's life.
    pub fn set_compared(&self, compared: bool) {
        lock(&self.progress).compared = compared;
    }

    /// It has compared its content.
    pub fn verified(&self, outcome: Verified) {
        let mut progress = lock(&self.progress);
        progress.compared = true;
        progress.verified = Some(outcome);
    }

    /// The session is over.
    pub fn leave(&self) {
        let mut progress = lock(&self.progress);
        progress.connected = false;
        progress.since = Instant::now();
        progress.copy = None;
    }
}

impl Progress {
    fn lag_bytes(&self, head: Seq, source: &dyn Source) -> u64 {
        if self.durable < head { source.bytes_after(self.durable) } else { 0 }
    }

    fn lag_ms(&self, head: Seq, now: Instant, wall: Time) -> u64 {
        if self.durable >= head {
            return 0;
        }
        let since_caught_up = now.saturating_duration_since(self.caught_up).as_millis();
        let since_caught_up = u64::try_from(since_caught_up).unwrap_or(u64::MAX);
        match self.under_way.front() {
            // By the clock of the leader that made it, which after a failover is not ours.
            Some((_, at)) => u64::try_from(clock::ms_between(*at, wall)).unwrap_or(0),
            None => since_caught_up,
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that could panic runs under these locks.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
