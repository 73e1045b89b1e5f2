//! Epochs: each belongs to one node, and they only rise.

use std::collections::BTreeMap;

use super::Finding;
use crate::observe::Reign;

/// Judges reigns in the order in which they were seen to begin.
#[must_use]
pub fn check(reigns: &[Reign]) -> Finding {
    let mut holders: BTreeMap<u64, &str> = BTreeMap::new();
    let mut violations = Vec::new();
    let mut newest = 0;
    for reign in reigns {
        let holder = holders.entry(reign.epoch).or_insert(&reign.node);
        if *holder != reign.node {
            violations
                .push(format!("epoch {} belongs to {holder} and to {}", reign.epoch, reign.node));
        }
        if reign.epoch < newest {
            violations.push(format!("epoch {} began after {newest}", reign.epoch));
        }
        newest = newest.max(reign.epoch);
    }
    Finding {
        check: "epochs rise, and each belongs to one node".to_owned(),
        looked_at: format!("{} epochs", holders.len()),
        violations,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn reign(epoch: u64, node: &str) -> Reign {
        Reign { epoch, node: node.to_owned(), began: Duration::ZERO, ready: None, ended: None }
    }

    #[test]
    fn two_holders_and_a_fallen_epoch_are_found() {
        assert!(check(&[reign(1, "a"), reign(2, "b"), reign(3, "b")]).is_clean());
        assert!(!check(&[reign(1, "a"), reign(1, "b")]).is_clean());
        assert!(!check(&[reign(2, "a"), reign(1, "a")]).is_clean());
    }
}
