//! Views of keys, whole and damaged.

use super::*;
use crate::values::{Epoch, Nonce};

const TAKEN: &str = r#"{"epoch":3,"nonce":"00000000000000000000000000000001","holder":"a"}"#;
const BALLOT: &str = r#"{"node":"b","volume":"00000000000000000000000000000002","promised":4,
    "position":{"epoch":3,"seq":9},"lineage_end":[3,5],"backlog":0,"priority":0}"#;

fn entry(key: &str, value: &str, modified: i64) -> Entry {
    Entry {
        key: key.into(),
        value: value.into(),
        created: Revision(1),
        modified: Revision(modified),
        lease: None,
    }
}

#[test]
fn keys_land_where_they_belong_and_unknown_ones_are_left_alone() {
    let contents = Contents {
        revision: Revision(9),
        entries: vec![
            entry("ballots/b", BALLOT, 5),
            entry("epoch", TAKEN, 4),
            entry("from/the/future", "?", 6),
            entry("later", "?", 7),
        ],
    };
    let view = View::parse(&contents).expect("readable");
    assert_eq!(view.revision, Revision(9));
    let epoch = view.epoch.as_ref().expect("an epoch");
    assert_eq!((epoch.value.epoch, epoch.modified), (Epoch(3), Revision(4)));
    assert_eq!(epoch.raw, TAKEN.as_bytes());
    assert_eq!(view.ballots["b"].value.promised, Epoch(4));
    assert!(view.unreadable.is_empty());
    assert_eq!(view.epoch_unchanged(), Compare::Modified("epoch".into(), Revision(4)));
    assert_eq!(view.config_unchanged(), Compare::Absent("config".into()));
}

#[test]
fn a_ruling_key_must_be_readable_and_another_counts_as_absent() {
    let bad = |key| Contents { revision: Revision(1), entries: vec![entry(key, "{", 1)] };
    for key in [keys::EPOCH, keys::LEADER, keys::CONFIG] {
        assert_eq!(View::parse(&bad(key)).expect_err("unreadable").key, key);
    }
    let view = View::parse(&bad("ballots/b")).expect("the rest is readable");
    assert!(view.ballots.is_empty());
    assert_eq!(view.unreadable["ballots/b"].value, "\"{\"");
}

#[test]
fn events_keep_a_view_equal_to_a_fresh_read() {
    let mut view = View::parse(&Contents {
        revision: Revision(3),
        entries: vec![entry("epoch", TAKEN, 2), entry("ballots/b", BALLOT, 3)],
    })
    .expect("readable");

    // A value that became unreadable is not the old value any more.
    view.apply(&Event::Put(entry("ballots/b", "{", 4))).expect("not a ruling key");
    assert!(view.ballots.is_empty() && view.unreadable.len() == 1);
    view.apply(&Event::Put(entry("ballots/b", BALLOT, 5))).expect("readable");
    assert!(view.ballots.len() == 1 && view.unreadable.is_empty());

    let newer = TAKEN.replace(":3", ":4").replace("01\"", "02\"");
    view.apply(&Event::Put(entry("epoch", &newer, 6))).expect("readable");
    view.apply(&Event::Deleted("ballots/b".into(), Revision(7))).expect("deleted");
    view.apply(&Event::Broken("gone".into())).expect("nothing to do");

    let fresh =
        View::parse(&Contents { revision: Revision(7), entries: vec![entry("epoch", &newer, 6)] });
    assert_eq!(Ok(view.clone()), fresh);
    let mut nonce = [0; 16];
    nonce[15] = 2;
    assert_eq!(view.epoch.expect("an epoch").value.nonce, Nonce(nonce));
}
