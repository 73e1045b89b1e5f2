//! What each route counts, and a snapshot of it for whoever asks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

use crate::access::End;
use crate::address::Address;
use crate::route::Upstream;

/// Upper bounds of the histograms' buckets, milliseconds; one more bucket takes the rest.
const BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 25, 100, 250, 1_000, 2_500, 5_000, 10_000, 30_000];

/// The whole proxy at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// Every route by name, those too that were removed and still have connections.
    pub routes: Vec<RouteStats>,
    /// Over `routes`, and those that are gone.
    pub total: Tally,
    /// As each route's, over all of them and those that are gone.
    pub hold_time: Histogram,
    /// As each route's, over all of them and those that are gone.
    pub connect_time: Histogram,
    /// Most clients served at once.
    pub connections_max: usize,
    /// Times that accepting paused for want of file descriptors or memory.
    pub accept_paused: u64,
}

/// One route at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct RouteStats {
    /// Its name.
    pub name: String,
    /// Where it really listens.
    pub listen: Address,
    /// Removed by a reload; only finishes what it has.
    pub retired: bool,
    /// An arriving client would be forwarded now.
    pub forwarding: bool,
    /// Where it leads.
    pub target: RouteTarget,
    /// Its counts.
    pub tally: Tally,
    /// Time from a client's arrival to its forwarding or refusal, of clients that were held.
    pub hold_time: Histogram,
    /// Time that successful connects to a target took.
    pub connect_time: Histogram,
}

/// Where a route leads.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteTarget {
    /// To a leader.
    Leader {
        /// Newest epoch heard of.
        epoch: u64,
        /// Who leads in it.
        leader: Option<Address>,
        /// It says that it is ready.
        ready: bool,
        /// For how long it is still trusted, milliseconds.
        trusted_ms: u64,
    },
    /// To these.
    Upstreams(Vec<UpstreamStats>),
}

/// One upstream.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamStats {
    /// Where it is.
    pub address: Address,
    /// By its checks.
    pub alive: bool,
    /// Clients forwarded to it now.
    pub open: usize,
}

/// Counts; `*_now` go up and down, the rest only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Clients connected to a target, or being so.
    pub open_now: u64,
    /// Clients waiting for one.
    pub held_now: u64,
    /// Clients that arrived.
    pub arrived: u64,
    /// Of these, how many were ever held.
    pub held: u64,
    /// Connections to targets made.
    pub connected: u64,
    /// Attempts to connect to a target that failed.
    pub unreached: u64,
    /// Clients turned away.
    pub refused: u64,
    /// Connections reset because their target was a leader no more, or doubted.
    pub cut: u64,
    /// Clients that left while held.
    pub gave_up: u64,
    /// Connections that one side reset.
    pub broken: u64,
    /// Connections that idled out.
    pub idled: u64,
    /// PROXY headers missing, late or malformed.
    pub bad_headers: u64,
    /// Bytes from clients to targets.
    pub bytes_in: u64,
    /// Bytes from targets to clients.
    pub bytes_out: u64,
}

impl UpstreamStats {
    pub(crate) fn of(upstream: &Upstream) -> UpstreamStats {
        let Upstream { address, alive, open, .. } = upstream;
        UpstreamStats { address: address.clone(), alive: *alive, open: *open }
    }
}

impl Tally {
    /// Each count with its name and meaning, in the order shown.
    pub(crate) fn columns(&self) -> [(&'static str, &'static str, u64); 14] {
        [
            ("open_now", "Clients connected to a target.", self.open_now),
            ("held_now", "Clients waiting for a target.", self.held_now),
            ("arrived", "Clients that arrived.", self.arrived),
            ("held", "Clients that had to wait.", self.held),
            ("connected", "Connections made to targets.", self.connected),
            ("unreached", "Failed attempts to connect to a target.", self.unreached),
            ("refused", "Clients turned away.", self.refused),
            ("cut", "Connections reset for a leader lost or doubted.", self.cut),
            ("gave_up", "Clients that left while held.", self.gave_up),
            ("broken", "Connections reset by one side.", self.broken),
            ("idled", "Connections that idled out.", self.idled),
            ("bad_headers", "PROXY headers missing or malformed.", self.bad_headers),
            ("bytes_in", "Bytes from clients to targets.", self.bytes_in),
            ("bytes_out", "Bytes from targets to clients.", self.bytes_out),
        ]
    }

    /// Adds who is there now, and no count.
    pub(crate) fn add_now(&mut self, other: &Tally) {
        self.open_now += other.open_now;
        self.held_now += other.held_now;
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        self.add_now(other);
        self.arrived += other.arrived;
        self.held += other.held;
        self.connected += other.connected;
        self.unreached += other.unreached;
        self.refused += other.refused;
        self.cut += other.cut;
        self.gave_up += other.gave_up;
        self.broken += other.broken;
        self.idled += other.idled;
        self.bad_headers += other.bad_headers;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

/// Durations, counted by size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// `(upper bound in milliseconds, how many were at most that)`, cumulative.
    pub at_most_ms: Vec<(u64, u64)>,
    /// How many in all.
    pub count: u64,
    /// Their sum, microseconds.
    pub sum_us: u64,
}

impl Histogram {
    pub(crate) fn add(&mut self, other: &Histogram) {
        if self.at_most_ms.is_empty() {
            self.at_most_ms = BOUNDS_MS.iter().map(|bound| (*bound, 0)).collect();
        }
        for (sum, more) in self.at_most_ms.iter_mut().zip(&other.at_most_ms) {
            sum.1 += more.1;
        }
        self.count += other.count;
        self.sum_us += other.sum_us;
    }

    /// Mean, and a bound that 99 of 100 keep (the bucket's; none if they are beyond the last), both
    /// in milliseconds.
    pub(crate) fn mean_and_p99_ms(&self) -> Option<(f64, Option<u64>)> {
        if self.count == 0 {
            return None;
        }
        let wanted = self.count - self.count / 100;
        let bound = self.at_most_ms.iter().find(|(_, count)| *count >= wanted);
        let mean = self.sum_us as f64 / self.count as f64 / 1e3;
        Some((mean, bound.map(|(bound, _)| *bound)))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Timer {
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Timer {
    pub(crate) fn record(&self, took: Duration) {
        let bucket = BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < took);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Histogram {
        let mut count = 0;
        let mut at_most_ms = Vec::with_capacity(BOUNDS_MS.len());
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Relaxed);
            if let Some(bound) = BOUNDS_MS.get(index) {
                at_most_ms.push((*bound, count));
            }
        }
        Histogram { at_most_ms, count, sum_us: self.sum_us.load(Relaxed) }
    }
}

/// A route's counters; shared by all of its connections, and by its successors over reloads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub arrived: AtomicU64,
    pub held: AtomicU64,
    pub connected: AtomicU64,
    pub unreached: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub hold_time: Timer,
    pub connect_time: Timer,
    refused: AtomicU64,
    cut: AtomicU64,
    gave_up: AtomicU64,
    broken: AtomicU64,
    idled: AtomicU64,
    bad_headers: AtomicU64,
}

impl Counters {
    pub(crate) fn ended(&self, end: End) {
        let counter = match end {
            End::Closed => return,
            End::Broken => &self.broken,
            End::Cut => &self.cut,
            End::Idle => &self.idled,
            End::Refused(_) => &self.refused,
            End::GaveUp => &self.gave_up,
            End::BadHeader => &self.bad_headers,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn tally(&self, open_now: usize, held_now: usize) -> Tally {
        Tally {
            open_now: open_now as u64,
            held_now: held_now as u64,
            arrived: self.arrived.load(Relaxed),
            held: self.held.load(Relaxed),
            connected: self.connected.load(Relaxed),
            unreached: self.unreached.load(Relaxed),
            refused: self.refused.load(Relaxed),
            cut: self.cut.load(Relaxed),
            gave_up: self.gave_up.load(Relaxed),
            broken: self.broken.load(Relaxed),
            idled: self.idled.load(Relaxed),
            bad_headers: self.bad_headers.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}

#[cfg(test)]
pub(crate) fn example() -> Stats {
    let timer = Timer::default();
    timer.record(Duration::from_millis(3));
    let address = |text: &str| text.parse().expect("an address");
    let route = |name: &str, target| RouteStats {
        name: name.into(),
        listen: address("127.0.0.1:1"),
        retired: false,
        forwarding: true,
        target,
        tally: Tally { open_now: 3, ..Tally::default() },
        hold_time: timer.snapshot(),
        connect_time: Histogram::default(),
    };
    let leader = RouteTarget::Leader {
        epoch: 7,
        leader: Some(address("10.0.0.1:5432")),
        ready: true,
        trusted_ms: 900,
    };
    let upstream = UpstreamStats { address: address("10.0.0.9:2379"), alive: false, open: 0 };
    let routes =
        vec![route("pg\"1\"", leader), route("etcd", RouteTarget::Upstreams(vec![upstream]))];
    let total = Tally { arrived: 9, ..Tally::default() };
    let mut hold_time = Histogram::default();
    for route in &routes {
        hold_time.add(&route.hold_time);
    }
    let connect_time = Histogram::default();
    Stats { routes, total, hold_time, connect_time, connections_max: 100, accept_paused: 2 }
}
