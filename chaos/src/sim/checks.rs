//! What must hold in every world, looked at after everything that happens.
//!
//! Apart from what it judges: it knows disks, acknowledgements and the coordinator's true content,
//! and nothing of how a machine comes to its decisions.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use mainstay_election::machine::Moment;
use mainstay_election::values::Nonce;
use mainstay_election::view::View;
use mainstay_sync::position::{Epoch, Lineage, Seq};

use super::disk::{self, Disk, Tag};
use super::node::Node;

/// What a rule is called; a shrunk plan must break the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

/// A leadership that made a record.
#[derive(Debug)]
struct Begun {
    node: usize,
    life: u64,
    start: Seq,
    lineage: Lineage,
    /// Its EpochStart is committed: it may acknowledge.
    serving: bool,
}

/// An fsync that was answered.
#[derive(Clone, Copy, Debug)]
struct Acked {
    epoch: Epoch,
    seq: Seq,
    tag: Tag,
}

/// An op that a leader made, and the one before it where that is known.
type Made = (Tag, Option<Tag>);

/// The judge's memory.
#[derive(Debug, Default)]
pub struct Checks {
    sync: bool,
    /// So many ops may be lost by a failover (async), if that is bounded.
    bound: Option<u64>,
    /// By (epoch, seq): the op that is there. More than one only of an epoch that was given more than
    /// once.
    ops: HashMap<(Epoch, Seq), Vec<Made>>,
    /// The ops that begin an epoch.
    starts: HashMap<Tag, Epoch>,
    begun: BTreeMap<Epoch, Begun>,
    acked: Vec<Acked>,
    /// Epochs as the coordinator gave them: to whom, and when.
    taken: BTreeMap<u64, (Nonce, Duration)>,
    newest: u64,
    restored: u32,
    /// What was found first.
    pub violation: Option<Violation>,
    /// How many fsyncs were answered.
    pub acks: u64,
    /// Answered ops that a later leader lacks (async).
    pub lost: u64,
    /// How many volumes went to quarantine.
    pub aside: u64,
    /// Too few voters had their disks left for anybody to lead.
    pub unable: bool,
    /// A coordinator that was set back gave an epoch again that had been begun.
    pub given_twice: bool,
    /// How many deltas began short of the last op in common.
    pub lowered: u64,
}

impl Checks {
    /// For a cluster of that durability.
    #[must_use]
    pub fn new(sync: bool, bound: Option<u64>) -> Checks {
        Checks { sync, bound, ..Checks::default() }
    }

    /// Notes a rule that was broken; the first one counts.
    ///
    /// Not once an epoch was given twice, which is a known gap: logs of such an epoch are compared by
    /// their positions, which say nothing of whose they are. Then only `served_twice` is looked at.
    pub fn broken(&mut self, rule: &'static str, what: String) {
        if !self.given_twice {
            self.violation.get_or_insert(Violation { rule, what });
        }
    }

    fn served_twice(&mut self, what: String) {
        let rule = "an epoch is served by one process";
        self.violation.get_or_insert(Violation { rule, what });
    }

    /// How many leaderships made a record.
    #[must_use]
    pub fn epochs(&self) -> usize {
        self.begun.len()
    }

    /// A log took its last record. By induction every log is then a prefix of some leader's: the
    /// record is one that a leader made, on the same record before it.
    pub fn appended(&mut self, node: &Node, made_here: bool) {
        let head = node.disk.head();
        let Some(record) = node.disk.record(head.seq) else { return };
        if made_here && disk::starts(record) {
            self.starts.insert(disk::tag(record), head.epoch);
        }
        let before = node.disk.record(Seq(head.seq.0 - 1));
        let before = before.map(|before| self.identity(disk::tag(before)));
        let here = self.identity(disk::tag(record));
        let known = self.ops.entry((head.epoch, head.seq)).or_default();
        let same =
            |(op, on): &Made| *op == here && (before.is_none() || on.is_none() || *on == before);
        if known.iter().any(same) {
            return;
        }
        if made_here && (known.is_empty() || self.restored > 0) {
            // A second one only where the epoch was given twice, as `began` will see.
            return known.push((here, before));
        }
        if known.is_empty() {
            return self.broken("records come from a leader", format!("{} at {head}", node.name));
        }
        let what = format!(
            "{} has op {here} after {before:?} at {head}, where these were made: {known:?}",
            node.name
        );
        self.broken("one (epoch, seq) is one op", what);
    }

    /// What an op is, wherever it is found. Of an epoch's start all that counts is of which epoch: whose
    /// it is no content depends on, so two of one epoch in one place are the same.
    fn identity(&self, tag: Tag) -> Tag {
        let start = self.starts.get(&tag).map(|epoch| epoch.0);
        start.map_or(tag, |epoch| -1 - i64::try_from(epoch).unwrap_or(i64::MAX - 1))
    }

    /// A leadership made its first record, on what `disk` holds.
    pub fn began(&mut self, epoch: Epoch, at: usize, node: &Node) {
        let (start, life) = (node.disk.head().seq, node.life);
        if let Some(other) = self.begun.get(&epoch) {
            let what = format!(
                "epoch {epoch} of node {} (process {}) is begun again by {} (process {life})",
                other.node, other.life, node.name
            );
            if self.restored == 0 {
                return self.broken("an epoch belongs to one process", what);
            }
            // Set back to the moment between its ballots and its taking.
            self.given_twice = true;
        }
        if node.disk.building {
            self.broken("nobody leads with half a copy", node.name.to_string());
        }
        let missing: Vec<Acked> = self
            .acked
            .iter()
            .filter(|acked| acked.epoch < epoch)
            .filter(|acked| acked.seq >= start || node.disk.op_at(acked.seq) != Some(acked.tag))
            .copied()
            .collect();
        if let Some(first) = missing.first() {
            if self.sync {
                let what = format!(
                    "{} begins epoch {epoch} at {start} without op {} at {}:{}, which was \
                     acknowledged in epoch {} (and {} more)",
                    node.name,
                    first.tag,
                    node.disk.position_at(first.seq).epoch,
                    first.seq,
                    first.epoch,
                    missing.len() - 1
                );
                self.broken("an acknowledged fsync survives", what);
            }
            let last = missing.iter().map(|acked| acked.seq).max().unwrap_or_default();
            let lost = last.0 + 1 - first.seq.0.min(last.0);
            if self.bound.is_some_and(|bound| lost > bound) {
                let what = format!(
                    "{} begins epoch {epoch} at {start} without {lost} ops up to {last}",
                    node.name
                );
                self.broken("what a failover loses is bounded", what);
            }
            self.lost += missing.len() as u64;
            let lost: Vec<Tag> = missing.iter().map(|acked| acked.tag).collect();
            self.acked.retain(|acked| !lost.contains(&acked.tag));
        }
        if self.begun.get(&epoch).is_none_or(|other| !other.serving) {
            let lineage = node.disk.lineage().clone();
            self.begun.insert(epoch, Begun { node: at, life, start, lineage, serving: false });
        }
    }

    /// A leadership's EpochStart is committed; true the first time.
    pub fn serves(&mut self, epoch: Epoch, at: usize, node: &Node) -> bool {
        let Some(begun) = self.begun.get_mut(&epoch) else { return false };
        let same = (begun.node, begun.life) == (at, node.life);
        if same || !begun.serving {
            let lineage = node.disk.lineage();
            let first = lineage.0.iter().find(|(of, _)| *of == epoch).map(|(_, first)| *first);
            (begun.node, begun.life, begun.start) = (at, node.life, first.unwrap_or(begun.start));
            begun.lineage = lineage.clone();
            return !std::mem::replace(&mut begun.serving, true);
        }
        let what = format!("epoch {epoch} is served by node {} and by {}", begun.node, node.name);
        self.served_twice(what);
        false
    }

    /// An fsync is answered.
    pub fn acknowledged(&mut self, node: &Node, epoch: Epoch, seq: Seq, tag: Tag) {
        self.acks += 1;
        let of = node.disk.position_at(seq).epoch;
        for (later, begun) in self.begun.range(Epoch(epoch.0 + 1)..) {
            let holds = seq < begun.start && begun.lineage.epoch_at(seq) == Some(of);
            let what = format!(
                "{} acknowledges {of}:{seq} in epoch {epoch}, and node {} began epoch {later} at {}",
                node.name, begun.node, begun.start
            );
            // In sync a late word on an op that the newer leadership has on its log harms nobody:
            // it was given by a quorum before that promised, and only delivered late.
            if self.sync && !holds {
                return self.broken("an acknowledged fsync survives", what);
            }
            if !self.sync && begun.serving {
                return self.broken("no acknowledgement once a newer epoch may", what);
            }
        }
        self.acked.push(Acked { epoch, seq, tag });
    }

    /// A voter is asked to promise: not while it hears the leader of that very epoch, and has for
    /// longer than a report of that may take (half of `suspect_after` is more than that).
    pub fn promises(&mut self, node: &Node, through: Epoch, local: Moment, suspect: Duration) {
        let Some(process) = &node.process else { return };
        let Some((_, at)) = process.heard.filter(|(epoch, _)| *epoch == through) else { return };
        let steady = process.hears_since + suspect / 2 < local;
        let newest = self.begun.last_key_value().is_none_or(|(epoch, _)| *epoch <= through);
        let hears = at != Moment::NEVER && steady && local < at + suspect / 2;
        if self.sync && newest && self.restored == 0 && hears {
            let what = format!("{} gives up epoch {through}, {:?} old", node.name, local.since(at));
            self.broken("who hears its leader promises nothing", what);
        }
    }

    /// An op's outcome took the place of another's.
    pub fn stray(&mut self, node: &Node, seq: Seq, stray: Tag, tag: Tag) {
        let what = format!("{} has op {stray} where op {tag} belongs, at {seq}", node.name);
        self.broken("objects hold a prefix of the log", what);
    }

    /// A volume goes to quarantine, as far as it goes past `ancestor`. In sync only what is
    /// committed is applied, so its objects do not go past it.
    pub fn set_aside(&mut self, node: &Node, ancestor: Seq) {
        self.aside += 1;
        let touched = node.disk.objects.len() as u64;
        let meant = node.disk.rolls_back.max(ancestor);
        if self.sync && touched > meant.0 {
            let (name, head) = (&node.name, node.disk.head());
            let what = format!("{name} at {head} has objects of {touched}, past {ancestor}");
            self.broken("in sync no applied op is taken back", what);
        }
    }

    /// A replica that could be promoted holds a prefix: everything applied, nothing beyond its log.
    pub fn volume(&mut self, node: &Node) {
        let disk = &node.disk;
        if disk.building {
            return;
        }
        let applied = node.process.as_ref().map_or(disk.checkpoint, |process| process.applied);
        if let Err(what) = prefix(disk, applied) {
            self.broken("objects hold a prefix of the log", format!("{} {what}", node.name));
        }
    }

    /// A volume came to where it is by what it was sent: all of it is what its lineage says.
    pub fn content(&mut self, node: &Node) {
        let disk = &node.disk;
        for seq in (1..=disk.head().seq.0).map(Seq) {
            let epoch = disk.position_at(seq).epoch;
            let here = disk.op_at(seq).map(|op| self.identity(op));
            let made = self.ops.get(&(epoch, seq)).map(Vec::as_slice).unwrap_or_default();
            if !made.iter().any(|(op, _)| Some(*op) == here) {
                let what = format!("{} has op {here:?} at {epoch}:{seq}, not {made:?}", node.name);
                return self.broken("what was copied is the leader's", what);
            }
        }
    }

    /// The coordinator changed: epochs rise and each is one process'.
    pub fn coordinator(&mut self, now: Duration, view: &View, restored: u32, nodes: &[Node]) {
        if self.restored != restored {
            self.restored = restored;
            // What it gave since is forgotten there; that no epoch is *used* twice is seen by
            // `began`.
            let newest = view.epoch.as_ref().map_or(0, |taken| taken.value.epoch.0);
            self.taken.retain(|epoch, _| *epoch <= newest);
            self.newest = newest;
        }
        if let Some(taken) = view.epoch.as_ref().map(|taken| &taken.value) {
            let epoch = taken.epoch.0;
            if epoch < self.newest {
                let what = format!("epoch {epoch} after {}", self.newest);
                self.broken("epochs rise", what);
            }
            // Without a leader it was only put as a floor for the next.
            let led = view.leader.as_ref().is_some_and(|it| it.value.nonce == taken.nonce);
            let nonce = match led {
                true => self.taken.entry(epoch).or_insert((taken.nonce, now)).0,
                false => taken.nonce,
            };
            if led && restored > 0 && self.begun.get(&Epoch(epoch)).is_none_or(|it| !it.serving) {
                self.taken.insert(epoch, (taken.nonce, now));
            } else if led && nonce != taken.nonce {
                let what = format!("{epoch}, to {} as well", taken.holder);
                self.broken("an epoch is given once", what);
            }
            self.newest = epoch;
        }
        if !self.sync {
            nodes.iter().for_each(|node| self.gate_has_key(now, view, node));
        }
    }

    /// In sync a gate only bounds how old a read may be: it shuts within `bound` of a newer epoch.
    pub fn gate_is_young(&mut self, now: Duration, node: &Node, bound: Duration) {
        let Some(process) = &node.process else { return };
        let Some(epoch) = process.machine.leads().filter(|_| node.local(now) < process.gate) else {
            return;
        };
        // One that it took itself, to go on in, deposes nobody, also while it does not know it yet.
        let newer = self.taken.range(epoch.0 + 1..).find(|(_, (by, _))| *by != process.incarnation);
        if let Some((newer, (_, at))) = newer
            && now > *at + bound
        {
            let what = format!(
                "{} would answer in epoch {epoch}, {:?} after {newer} was taken",
                node.name,
                now - *at
            );
            self.broken("a deposed leader answers no longer than a lease", what);
        }
    }

    /// In async an open gate is the leader's whose key stands, so there is at most one.
    fn gate_has_key(&mut self, now: Duration, view: &View, node: &Node) {
        let Some(process) = &node.process else { return };
        if process.gate == Moment::NEVER || node.local(now) >= process.gate {
            return;
        }
        let leads = process.machine.leads();
        let stands = view.leader.as_ref().is_some_and(|leader| {
            leader.value.node == node.name && Some(leader.value.epoch) == leads
        });
        if !stands {
            let key = view.leader.as_ref().map(|it| (&it.value.node, it.value.epoch));
            let what =
                format!("{} would answer in epoch {leads:?}, the key says {key:?}", node.name);
            self.broken("a gate is shut before its lease ends", what);
        }
    }

    /// An ambassador forwards to the leader of `epoch`, for whom nobody may vouch longer than
    /// `bound` after a newer one was elected.
    ///
    /// Unless its own clock stood still, by which it vouched for itself.
    pub fn forwarding(&mut self, now: Duration, epoch: u64, bound: Duration, nodes: &[Node]) {
        let begun = self.begun.get(&Epoch(epoch));
        if begun.and_then(|begun| nodes.get(begun.node)).is_some_and(|leader| leader.frozen) {
            return;
        }
        let newer = self.taken.range(epoch + 1..).next().map(|(newer, (_, at))| (*newer, *at));
        if let Some((newer, at)) = newer
            && now > at + bound
        {
            let late = now - at;
            let what = format!("to epoch {epoch}, {late:?} after epoch {newer} was taken");
            self.broken("nobody is forwarded to a deposed leader", what);
        }
    }
}

fn prefix(disk: &Disk, applied: Seq) -> Result<(), String> {
    let head = disk.head().seq;
    if disk.objects.len() as u64 > head.0 {
        return Err(format!("ends at {head} and has objects of op {}", disk.objects.len()));
    }
    for seq in (1..=disk.objects.len() as u64).map(Seq) {
        let (here, log) = (disk.object(seq), disk.record(seq).map(disk::tag));
        match here {
            Some(here) if log.is_some_and(|log| log != here) => {
                return Err(format!("has op {here} at {seq}, its log {log:?}"));
            }
            None if seq <= applied => return Err(format!("has nothing at {seq} of {applied}")),
            _ => {}
        }
    }
    match applied.0 > disk.objects.len() as u64 {
        true => Err(format!("has nothing at {applied}, which it applied")),
        false => Ok(()),
    }
}
