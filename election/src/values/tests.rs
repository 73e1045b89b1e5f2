//! Values as the coordinator stores them.

use super::*;

fn node(name: &str) -> NodeName {
    name.parse().expect("a name")
}

/// The stored form is what operators read and what another version parses: it must not drift.
#[test]
fn a_leader_is_stored_as_readable_json() {
    let leader = Leader {
        node: node("a"),
        volume: VolumeId([0xab; 16]),
        epoch: Epoch(7),
        peer: "10.0.0.1:7400".into(),
        service: None,
        ready: true,
        nonce: Nonce([1; 16]),
    };
    let text = String::from_utf8(encode(&leader)).expect("UTF-8");
    assert_eq!(
        text,
        "{\"node\":\"a\",\"volume\":\"abababababababababababababababab\",\"epoch\":7,\
         \"peer\":\"10.0.0.1:7400\",\"service\":null,\"ready\":true,\
         \"nonce\":\"01010101010101010101010101010101\"}"
    );
    assert_eq!(decode::<Leader>(keys::LEADER, text.as_bytes()), Ok(leader));
}

#[test]
fn requests_name_their_kind() {
    let pause = Request::Pause { reason: "disk swap".into(), at: UnixMs(5) };
    let text = String::from_utf8(encode(&pause)).expect("UTF-8");
    assert_eq!(text, r#"{"kind":"pause","reason":"disk swap","at":5}"#);
    assert_eq!(decode::<Request>("requests/pause", text.as_bytes()), Ok(pause));
}

#[test]
fn a_newer_versions_field_is_no_error_and_a_missing_one_names_the_key() {
    let newer = br#"{"epoch":3,"nonce":"00000000000000000000000000000001","holder":"a","new":1}"#;
    assert_eq!(decode::<EpochTaken>("epoch", newer).expect("readable").epoch, Epoch(3));

    let error = decode::<EpochTaken>("epoch", br#"{"epoch":3}"#).expect_err("a field is missing");
    let text = error.to_string();
    for part in ["\"epoch\"", "missing field `nonce`", r#"{\"epoch\":3}"#] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn a_bad_name_or_id_is_refused_inside_a_value() {
    let bad = br#"{"epoch":3,"nonce":"xyz","holder":"a"}"#;
    assert!(decode::<EpochTaken>("epoch", bad).expect_err("no id").cause.contains("\"xyz\""));
    let bad = br#"{"node":"a/b","volume":"00000000000000000000000000000001"}"#;
    assert!(decode::<Member>("m", bad).expect_err("no name").cause.contains("\"a/b\""));
}

#[test]
fn names_keep_to_what_keys_and_files_can_hold() {
    for good in ["a", "db-1.example_x", "0"] {
        assert!(good.parse::<NodeName>().is_ok(), "{good}");
    }
    let long = "x".repeat(64);
    for bad in ["", "a/b", ".", "-a", "ä", "a b", long.as_str()] {
        assert!(bad.parse::<NodeName>().is_err(), "{bad}");
    }
}

#[test]
fn a_huge_bad_value_is_quoted_in_part() {
    let error = decode::<Epoch>("epoch", &vec![b'x'; 100_000]).expect_err("no number");
    assert!(error.to_string().len() < 1000);
}

#[test]
fn a_lineage_keeps_its_newest_entries() {
    let lineage = Lineage(vec![(Epoch(1), Seq(1)), (Epoch(2), Seq(10)), (Epoch(3), Seq(20))]);
    assert_eq!(
        lineage.extended(Epoch(5), Seq(15), 512),
        Lineage(vec![(Epoch(1), Seq(1)), (Epoch(2), Seq(10)), (Epoch(5), Seq(15))])
    );
    assert_eq!(
        lineage.extended(Epoch(5), Seq(30), 2),
        Lineage(vec![(Epoch(3), Seq(20)), (Epoch(5), Seq(30))])
    );
}

#[test]
fn history_keys_sort_by_epoch() {
    assert!(keys::reign(Epoch(9)) < keys::reign(Epoch(10)));
}
