//! Identities and places: which volume, which leadership, which op.
//!
//! Everything that two replicas compare is a newtype from here, so that a seq is never taken for
//! an epoch and an index never for an id.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One leadership of one process incarnation; strictly increasing, never used twice. 0 is
    /// "before the first leader".
    Epoch
}
number! {
    /// An op's place in the log. The first op has seq 1; 0 is "nothing yet". It continues across
    /// epochs.
    Seq
}
number! {
    /// A file's replicated name: `(epoch << 40) | counter`, so that two leaders never give one id
    /// to two files. The root directory is [`FileId::ROOT`].
    FileId
}

impl Seq {
    /// The op after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl FileId {
    /// The volume's root directory, the same in every volume.
    pub const ROOT: FileId = FileId(1);

    /// The `counter`th file that `epoch`'s leader created (counting from 1).
    ///
    /// A leadership that creates 2^40 files would run into its successor's ids; at a million
    /// files a second that is twelve days of nothing but creating.
    #[must_use]
    pub fn new(epoch: Epoch, counter: u64) -> FileId {
        debug_assert!(counter < 1 << 40);
        FileId((epoch.0 << 40) | counter)
    }
}

impl FromStr for FileId {
    type Err = ParseIntError;
    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u64::from_str_radix(text, 16).map(FileId)
    }
}

/// How far a log reaches: the epoch *of its last record* and that record's seq. Ordered by epoch
/// first, as an election must: a longer log of an older leadership loses.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// The epoch that wrote the last record.
    pub epoch: Epoch,
    /// The last record's seq.
    pub seq: Seq,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadIdentity;
            fn try_from(text: String) -> Result<Self, BadIdentity> {
                text.parse()
            }
        }
        impl FromStr for $name {
            type Err = BadIdentity;
            fn from_str(text: &str) -> Result<Self, BadIdentity> {
                parse_identity(text).map($name)
            }
        }
    };
}

identity! {
    /// One cluster: made when its first volume is, and never again.
    ClusterId
}
identity! {
    /// One copy of the volume on one disk. A node that comes back with an empty disk has a new
    /// one, so nobody takes it for the voter that it was.
    VolumeId
}

/// A text that is not 32 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an id: 32 hexadecimal digits were expected")]
pub struct BadIdentity(String);

fn parse_identity(text: &str) -> Result<[u8; 16], BadIdentity> {
    let bad = || BadIdentity(text.to_owned());
    if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let mut id = [0; 16];
    for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
    }
    Ok(id)
}

/// Which epochs wrote a log, each with the seq of its first record, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(pub Vec<(Epoch, Seq)>);

impl Lineage {
    /// The epoch of the record at `seq`, if this lineage says (0 for seq 0).
    #[must_use]
    pub fn epoch_at(&self, seq: Seq) -> Option<Epoch> {
        if seq == Seq(0) {
            return Some(Epoch(0));
        }
        self.0.iter().rev().find(|(_, first)| *first <= seq).map(|(epoch, _)| *epoch)
    }

    /// This lineage with `epoch` beginning at `first`; entries at or past `first` are gone, since
    /// their records were never part of this log.
    #[must_use]
    pub fn extended(&self, epoch: Epoch, first: Seq) -> Lineage {
        let mut entries: Vec<_> = self.0.iter().copied().filter(|(_, at)| *at < first).collect();
        entries.push((epoch, first));
        Lineage(entries)
    }

    /// The last op that two logs share: in the last epoch that both lineages name at the same
    /// first seq, the smaller of the two ends.
    ///
    /// `mine` and `theirs` are the last seqs of the two logs. Records of one (epoch, seq) are
    /// equal wherever they are, because one process incarnation wrote each epoch; hence the last
    /// shared epoch decides, and nothing before it needs comparing.
    #[must_use]
    pub fn common_ancestor(&self, mine: Seq, other: &Lineage, theirs: Seq) -> Position {
        let end_of = |lineage: &Lineage, index: usize, last: Seq| {
            lineage
                .0
                .get(index + 1)
                .map_or(last, |(_, next)| Seq(next.0.saturating_sub(1)))
                .min(last)
        };
        for (i, entry) in self.0.iter().enumerate().rev() {
            if let Some(j) = other.0.iter().position(|theirs| theirs == entry) {
                let seq = end_of(self, i, mine).min(end_of(other, j, theirs));
                if seq >= entry.1 {
                    return Position { epoch: entry.0, seq };
                }
            }
        }
        Position::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(entries: &[(u64, u64)]) -> Lineage {
        Lineage(entries.iter().map(|(epoch, seq)| (Epoch(*epoch), Seq(*seq))).collect())
    }

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch: Epoch(epoch), seq: Seq(seq) }
    }

    #[test]
    fn positions_order_by_epoch_first() {
        assert!(at(2, 1) > at(1, 100));
        assert!(at(2, 2) > at(2, 1));
    }

    #[test]
    fn the_last_shared_epoch_decides_the_ancestor() {
        let old = lineage(&[(1, 1), (2, 10)]);
        let new = lineage(&[(1, 1), (2, 10), (3, 21)]);
        assert_eq!(old.common_ancestor(Seq(30), &new, Seq(40)), at(2, 20));
        assert_eq!(old.common_ancestor(Seq(15), &new, Seq(40)), at(2, 15));
        let other = lineage(&[(1, 1), (3, 6)]);
        assert_eq!(old.common_ancestor(Seq(30), &other, Seq(9)), at(1, 5));
        assert_eq!(old.common_ancestor(Seq(30), &lineage(&[(4, 1)]), Seq(9)), at(0, 0));
        assert_eq!(Lineage::default().common_ancestor(Seq(0), &new, Seq(40)), at(0, 0));
    }

    #[test]
    fn an_ancestor_is_never_past_a_shorter_log() {
        let ours = lineage(&[(1, 1), (2, 10)]);
        assert_eq!(ours.common_ancestor(Seq(5), &ours, Seq(30)), at(1, 5));
        assert_eq!(ours.common_ancestor(Seq(9), &ours, Seq(30)), at(1, 9));
    }

    #[test]
    fn extending_drops_what_the_new_epoch_replaces() {
        let extended = lineage(&[(1, 1), (2, 10), (3, 20)]).extended(Epoch(5), Seq(15));
        assert_eq!(extended, lineage(&[(1, 1), (2, 10), (5, 15)]));
        assert_eq!(extended.epoch_at(Seq(14)), Some(Epoch(2)));
        assert_eq!(extended.epoch_at(Seq(15)), Some(Epoch(5)));
    }

    #[test]
    fn identities_read_back_and_say_what_is_wrong() {
        let id = VolumeId([0xab; 16]);
        assert_eq!(id.to_string().parse::<VolumeId>().unwrap(), id);
        assert!("xyz".parse::<VolumeId>().unwrap_err().to_string().contains("\"xyz\""));
        assert!("+1".repeat(16).parse::<VolumeId>().is_err(), "a sign is not a digit");
    }
}
