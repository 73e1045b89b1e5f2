//! Holds what is there against what was acknowledged.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::history::{Kill, Outcome, Write};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Writes that clients were told are done.
    pub acknowledged: usize,
    /// Those of them that are not there.
    pub lost: Vec<(u32, u64)>,
    /// A lost write and a later one that is there although no leader was lost between: a hole,
    /// which no prefix of a log can have.
    pub gaps: Vec<((u32, u64), (u32, u64))>,
    /// Values that are there and that nobody wrote, or that are there twice.
    pub invented: Vec<(u32, u64)>,
}

impl Verdict {
    /// Whether what is there is a prefix of what was written (async may miss the newest).
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        self.gaps.is_empty() && self.invented.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let survived = self.acknowledged - self.lost.len();
        write!(f, "{survived} of {} acknowledged writes survived", self.acknowledged)?;
        if let Some((lost, there)) = self.gaps.first() {
            write!(f, "; {} gaps, such as {lost:?} lost but {there:?} there", self.gaps.len())?;
        }
        if let Some(value) = self.invented.first() {
            write!(f, "; {} values that nobody wrote, such as {value:?}", self.invented.len())?;
        }
        Ok(())
    }
}

/// Compares `present` (what a reader found at the end) with `writes`; `kills` say when leaders were
/// taken away.
///
/// In async durability a kill may cost the newest acknowledged writes before it. What is left
/// must be a prefix all the same: if a write that was *sent after* another was *acknowledged*
/// is there, and no kill lies between, the earlier one must be there too.
#[must_use]
pub fn check(writes: &[Write], kills: &[Kill], present: &[(u32, u64)]) -> Verdict {
    let known: HashMap<_, _> = writes.iter().map(|write| (key(write), write)).collect();
    let mut there = HashSet::new();
    let invented = present
        .iter()
        .filter(|value| !known.contains_key(value) || !there.insert(**value))
        .copied()
        .collect();
    let acknowledged: Vec<_> =
        writes.iter().filter(|write| write.outcome == Outcome::Acknowledged).collect();
    let lost: Vec<_> =
        acknowledged.iter().filter(|write| !there.contains(&key(write))).copied().collect();
    let gaps = lost.iter().filter_map(|lost| {
        // A leader that is being killed may answer until that is over.
        let kill = kills.iter().map(|kill| kill.over).filter(|over| *over >= lost.ended).min();
        let later = writes.iter().find(|later| {
            there.contains(&key(later))
                && later.invoked > lost.ended
                && kill.is_none_or(|over| later.ended < over)
        })?;
        Some((key(lost), key(later)))
    });
    Verdict {
        acknowledged: acknowledged.len(),
        gaps: gaps.collect(),
        lost: lost.into_iter().map(key).collect(),
        invented,
    }
}

fn key(write: &Write) -> (u32, u64) {
    (write.client, write.number)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::workload::Way;

    fn write(client: u32, number: u64, from: u64, to: u64) -> Write {
        Write {
            client,
            number,
            invoked: Duration::from_millis(from),
            ended: Duration::from_millis(to),
            outcome: Outcome::Acknowledged,
            server: None,
            way: Way::Ambassador,
        }
    }

    fn at(ms: u64) -> Kill {
        let (began, over) = (Duration::from_millis(ms), Duration::from_millis(ms + 5));
        Kill { began, over }
    }

    #[test]
    fn a_dying_leaders_last_answers_belong_to_its_kill() {
        let writes = [write(1, 1, 0, 1), write(1, 2, 11, 12), write(1, 3, 20, 21)];
        assert!(check(&writes, &[at(10)], &[(1, 1), (1, 3)]).is_prefix());
        let writes = [write(1, 1, 0, 1), write(1, 2, 15, 16), write(1, 3, 20, 21)];
        assert!(!check(&writes, &[at(10)], &[(1, 1), (1, 3)]).is_prefix());
    }

    #[test]
    fn the_newest_before_a_kill_may_be_lost_and_are_counted() {
        let writes = [write(1, 1, 0, 1), write(1, 2, 2, 3), write(1, 3, 20, 21)];
        let verdict = check(&writes, &[at(10)], &[(1, 1), (1, 3)]);
        assert_eq!(verdict.lost, [(1, 2)]);
        assert!(verdict.is_prefix());
    }

    #[test]
    fn a_hole_before_a_kill_is_a_gap() {
        let writes = [write(1, 1, 0, 1), write(2, 1, 2, 3), write(1, 2, 4, 5)];
        let verdict = check(&writes, &[at(10)], &[(1, 1), (1, 2)]);
        assert_eq!(verdict.gaps, [((2, 1), (1, 2))]);
    }

    #[test]
    fn writes_that_overlap_may_be_there_in_any_order() {
        let writes = [write(1, 1, 0, 5), write(2, 1, 1, 4)];
        assert!(check(&writes, &[at(10)], &[(2, 1)]).is_prefix());
        assert!(check(&writes, &[at(10)], &[(1, 1)]).is_prefix());
    }

    #[test]
    fn values_from_nowhere_and_twice_are_invented() {
        let writes = [write(1, 1, 0, 1)];
        assert_eq!(check(&writes, &[], &[(1, 1), (3, 9)]).invented, [(3, 9)]);
        assert_eq!(check(&writes, &[], &[(1, 1), (1, 1)]).invented, [(1, 1)]);
    }

    #[test]
    fn an_unknown_write_may_be_there_or_not() {
        let mut unknown = write(1, 1, 0, 1);
        unknown.outcome = Outcome::Unknown;
        assert_eq!(check(&[unknown], &[], &[]), Verdict::default());
        assert_eq!(check(&[unknown], &[], &[(1, 1)]), Verdict::default());
    }
}
