//! Verdicts on followers of every kind.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const CLUSTER: ClusterId = ClusterId([1; 16]);

fn lineage(entries: &[(u64, u64)]) -> Lineage {
    Lineage(entries.iter().map(|(epoch, seq)| (Epoch(*epoch), Seq(*seq))).collect())
}

fn at(epoch: u64, seq: u64) -> Position {
    Position { epoch: Epoch(epoch), seq: Seq(seq) }
}

/// Leads epoch 3, which began at 21; epoch 2 began at 11; the log holds 5 to 40.
fn leader() -> Leading {
    Leading {
        protocol: PROTOCOL,
        service: "db".into(),
        cluster: CLUSTER,
        volume: VolumeId([9; 16]),
        epoch: Epoch(3),
        lineage: lineage(&[(1, 1), (2, 11), (3, 21)]),
        head: at(3, 40),
        first: Seq(5),
    }
}

/// At `head`, everything durable, applied up to `applied`.
fn follower(entries: &[(u64, u64)], head: Position, applied: u64) -> Standing {
    Standing {
        protocol: PROTOCOL,
        service: "db".into(),
        node: "b".into(),
        cluster: Some(CLUSTER),
        volume: VolumeId([2; 16]),
        lineage: lineage(entries),
        head,
        durable: head,
        applied: Seq(applied),
        building: false,
        deltas: true,
        compared: true,
        promised: Epoch(0),
        leader: None,
    }
}

#[test]
fn each_standing_gets_its_verdict() {
    let e12 = &[(1, 1), (2, 11)][..];
    let e123 = &[(1, 1), (2, 11), (3, 21)][..];
    let stream = |after| Verdict::Stream { after: Seq(after) };
    let truncate = |after| Verdict::Truncate { after: Seq(after) };
    let aside = |ancestor| Verdict::SetAside { ancestor: Seq(ancestor) };
    let delta = |since| Verdict::Delta { since: Seq(since) };
    let table = [
        ("at the leader's head", follower(e123, at(3, 40), 40), stream(40)),
        ("behind in this epoch", follower(e123, at(3, 30), 12), stream(30)),
        ("at the end of the last epoch", follower(e12, at(2, 20), 20), stream(20)),
        ("two epochs behind", follower(&[(1, 1)], at(1, 7), 7), stream(7)),
        ("just covered by the log", follower(&[(1, 1)], at(1, 4), 4), stream(4)),
        ("just not covered", follower(&[(1, 1)], at(1, 3), 3), delta(3)),
        ("a tail that was not applied", follower(e12, at(2, 25), 20), truncate(20)),
        ("a tail applied in part", follower(e12, at(2, 25), 21), delta(20)),
        ("a tail of an epoch that lost", follower(&[(1, 1), (2, 9)], at(2, 9), 8), truncate(8)),
        ("an applied tail past a released log", follower(&[(1, 1), (2, 4)], at(2, 9), 9), delta(3)),
        ("an unapplied one there", follower(&[(1, 1), (2, 4)], at(2, 9), 3), truncate(3)),
        ("nothing in common", follower(&[(2, 1)], at(2, 9), 9), aside(0)),
        ("nothing in common nor applied", follower(&[(2, 1)], at(2, 9), 0), aside(0)),
    ];
    for (name, standing, verdict) in table {
        assert_eq!(plan(&standing, &leader()), verdict, "{name}");
    }
}

#[test]
fn who_takes_no_delta_copies_or_is_set_aside() {
    let plan = |standing| plan(&Standing { deltas: false, ..standing }, &leader());
    let released = Verdict::Copy { why: Why::LogReleased { oldest: Seq(5) } };
    assert_eq!(plan(follower(&[(1, 1)], at(1, 3), 3)), released);
    let diverged = &[(1, 1), (2, 4)][..];
    for applied in [3, 9] {
        let verdict = plan(follower(diverged, at(2, 9), applied));
        assert_eq!(verdict, Verdict::SetAside { ancestor: Seq(3) });
    }
}

#[test]
fn the_blank_and_the_half_built_copy_even_what_the_log_covers() {
    let whole_log = Leading { first: Seq(1), ..leader() };
    let blank = Standing { cluster: None, ..follower(&[], at(0, 0), 0) };
    assert_eq!(plan(&blank, &whole_log), Verdict::Copy { why: Why::Blank });
    let half = Standing { building: true, ..follower(&[(1, 1)], at(1, 7), 7) };
    assert_eq!(plan(&half, &whole_log), Verdict::Copy { why: Why::Unfinished });
    let half_of_nobodys = Standing { cluster: None, ..half };
    assert_eq!(plan(&half_of_nobodys, &whole_log), Verdict::Copy { why: Why::Unfinished });
}

#[test]
fn strangers_and_the_newer_are_refused_before_anything_else() {
    let good = follower(&[(1, 1)], at(1, 7), 7);
    let refusal = |standing: Standing| match plan(&standing, &leader()) {
        Verdict::Refuse(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refusal(Standing { protocol: 7, ..good.clone() }).contains('7'));
    assert!(refusal(Standing { service: "x".into(), ..good.clone() }).contains("\"x\""));
    let other = ClusterId([8; 16]);
    assert!(
        refusal(Standing { cluster: Some(other), ..good.clone() }).contains(&other.to_string())
    );
    let imported = Standing { cluster: None, ..follower(&[(1, 1)], at(1, 1), 1) };
    assert_eq!(plan(&imported, &leader()), Verdict::Refuse(Refusal::Imported));
    assert!(refusal(Standing { volume: leader().volume, ..good.clone() }).contains("cloned"));
    let superseded =
        |seen| Verdict::Refuse(Refusal::Superseded { leader: Epoch(3), seen: Epoch(seen) });
    for epoch in [3, 4] {
        let promised = Standing { promised: Epoch(epoch), building: true, ..good.clone() };
        assert_eq!(plan(&promised, &leader()), superseded(epoch), "a promise binds while building");
    }
    let newer = follower(&[(1, 1), (5, 7)], at(5, 7), 0);
    assert_eq!(plan(&newer, &leader()), superseded(5));
    let accepted = |epoch, by: u8| Standing {
        leader: Some((Epoch(epoch), VolumeId([by; 16]))),
        ..good.clone()
    };
    assert!(refusal(accepted(3, 8)).contains("given twice"));
    for harmless in [accepted(3, 9), accepted(2, 8)] {
        assert_eq!(plan(&harmless, &leader()), Verdict::Stream { after: Seq(7) });
    }
    let older = Standing { promised: Epoch(2), ..good };
    assert_eq!(plan(&older, &leader()), Verdict::Stream { after: Seq(7) });
}

#[test]
fn a_leader_that_contradicts_itself_is_found_out() {
    assert_eq!(sound(&leader()), Ok(()));
    let with = |entries: &[(u64, u64)]| Leading { lineage: lineage(entries), ..leader() };
    for entries in [&[][..], &[(3, 0)], &[(2, 5), (3, 5)], &[(3, 1), (3, 5)], &[(1, 1), (2, 5)]] {
        assert!(sound(&with(entries)).is_err(), "{entries:?}");
    }
    assert!(sound(&Leading { head: at(2, 40), ..leader() }).is_err());
    assert!(sound(&Leading { head: at(3, 20), ..leader() }).is_err());
}

/// A history of epochs, as an election would write it: each leader has a prefix of some earlier
/// log. Returns the epoch of each record, so that equality can be checked record by record.
fn branch(random: &mut StdRng, from: &[u64], epoch: u64) -> Vec<u64> {
    let keep = random.random_range(0..=from.len());
    let mut log = from[..keep].to_vec();
    log.extend(std::iter::repeat_n(epoch, random.random_range(1..6)));
    log
}

fn lineage_of(log: &[u64]) -> Lineage {
    let starts = (0..log.len()).filter(|at| *at == 0 || log[at - 1] != log[*at]);
    Lineage(starts.map(|at| (Epoch(log[at]), Seq(at as u64 + 1))).collect())
}

/// Whatever two logs an election can make, the verdict leaves the follower with a prefix of the
/// leader's log, and never drops what was applied without setting it aside.
#[test]
fn every_verdict_ends_in_a_prefix_of_the_leaders_log() {
    for seed in 0..20_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut logs = vec![vec![1; random.random_range(1..6)]];
        for epoch in 2..random.random_range(3..8) {
            let from = logs[random.random_range(0..logs.len())].clone();
            logs.push(branch(&mut random, &from, epoch));
        }
        let theirs = logs.pop().unwrap();
        let whole = &logs[random.random_range(0..logs.len())];
        let mine = &whole[..random.random_range(1..=whole.len())];
        let applied = random.random_range(0..=mine.len());
        let epoch = Epoch(*theirs.last().unwrap());
        let leader = Leading {
            epoch,
            lineage: lineage_of(&theirs),
            head: Position { epoch, seq: Seq(theirs.len() as u64) },
            first: Seq(random.random_range(1..=theirs.len() as u64 + 1)),
            ..leader()
        };
        assert_eq!(sound(&leader), Ok(()), "seed {seed}");
        let head = at(*mine.last().unwrap(), mine.len() as u64);
        let mut standing = follower(&[], head, applied as u64);
        standing.lineage = lineage_of(mine);
        let verdict = plan(&standing, &leader);
        let (Verdict::Stream { after }
        | Verdict::Truncate { after }
        | Verdict::Delta { since: after }) = verdict
        else {
            continue;
        };
        let kept = after.0 as usize;
        assert_eq!(mine[..kept], theirs[..kept], "seed {seed}: {verdict:?}");
        let delta = matches!(verdict, Verdict::Delta { .. });
        assert!(delta || applied <= kept, "seed {seed}: {verdict:?} drops what was applied");
        let covered = leader.first <= after.next();
        let streams = matches!(verdict, Verdict::Stream { .. });
        assert!(!streams || covered, "seed {seed}: the log does not cover {after}");
        let shared = mine.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
        assert_eq!(kept, shared, "seed {seed}: {verdict:?} drops more than it must");
    }
}
