//! Who is answered when, and who never.

use std::sync::Arc;

use super::*;

const A: VolumeId = VolumeId([1; 16]);
const B: VolumeId = VolumeId([2; 16]);
const C: VolumeId = VolumeId([3; 16]);

type Answers = Arc<Mutex<Vec<(u64, Result<(), Refused>)>>>;

fn quorum(peers: &[VolumeId], needed: usize) -> Rule {
    Rule::Quorum { peers: peers.to_vec(), needed }
}

fn wait(commit: &Commit, answers: &Answers, seq: u64) {
    let answers = answers.clone();
    commit.when_committed(
        Seq(seq),
        Box::new(move |answer| answers.lock().unwrap().push((seq, answer))),
    );
}

fn answered(answers: &Answers) -> Vec<u64> {
    answers.lock().unwrap().iter().map(|(seq, _)| *seq).collect()
}

#[test]
fn local_rule_commits_what_is_durable_here() {
    let commit = Commit::new(Rule::Local);
    commit.peer_durable(A, Epoch(0), Seq(9));
    assert_eq!(commit.committed(), Seq(0));
    commit.local_durable(Seq(4));
    commit.local_durable(Seq(2));
    assert_eq!(commit.committed(), Seq(4));
}

#[test]
fn quorum_rule_counts_copies_here_and_there() {
    let commit = Commit::new(quorum(&[A, B], 2));
    commit.begin(Epoch(1), Seq(1));
    commit.local_durable(Seq(10));
    assert_eq!(commit.committed(), Seq(0));
    commit.peer_durable(C, Epoch(1), Seq(10));
    assert_eq!(commit.committed(), Seq(0), "not a voter");
    commit.peer_durable(A, Epoch(1), Seq(3));
    commit.peer_durable(B, Epoch(1), Seq(5));
    assert_eq!(commit.committed(), Seq(5));
    commit.peer_durable(A, Epoch(1), Seq(12));
    commit.peer_durable(B, Epoch(1), Seq(11));
    assert_eq!(commit.committed(), Seq(11), "two copies, though not yet here");
}

#[test]
fn a_voter_named_twice_counts_once() {
    let commit = Commit::new(quorum(&[A, A], 3));
    commit.begin(Epoch(1), Seq(1));
    commit.local_durable(Seq(10));
    commit.peer_durable(A, Epoch(1), Seq(10));
    assert_eq!(commit.committed(), Seq(0));
}

#[test]
fn acknowledgements_of_another_session_do_not_count() {
    let commit = Commit::new(quorum(&[A, B], 2));
    commit.begin(Epoch(1), Seq(1));
    commit.local_durable(Seq(5));
    commit.peer_durable(A, Epoch(1), Seq(5));
    commit.begin(Epoch(3), Seq(6));
    commit.local_durable(Seq(8));
    commit.peer_durable(A, Epoch(1), Seq(8));
    commit.peer_durable(B, Epoch(2), Seq(8));
    assert_eq!(commit.committed(), Seq(0), "nothing is, before the epoch's start");
    commit.peer_durable(B, Epoch(3), Seq(7));
    assert_eq!(commit.committed(), Seq(7));
}

#[test]
fn old_records_commit_only_under_the_new_epochs_start() {
    let commit = Commit::new(quorum(&[A, B], 2));
    commit.begin(Epoch(2), Seq(11));
    commit.local_durable(Seq(11));
    commit.peer_durable(A, Epoch(2), Seq(10));
    assert_eq!(commit.committed(), Seq(0), "on a quorum, and could still lose");
    commit.peer_durable(A, Epoch(2), Seq(11));
    assert_eq!(commit.committed(), Seq(11));
}

#[test]
fn a_new_leadership_forgets_the_tail_that_was_cut_off() {
    let commit = Commit::new(Rule::Local);
    let answers = Answers::default();
    commit.begin(Epoch(1), Seq(1));
    commit.local_durable(Seq(20));
    commit.close(Refused::Deposed);
    commit.begin(Epoch(3), Seq(11));
    wait(&commit, &answers, 12);
    assert_eq!(answered(&answers), [0u64; 0], "12 is another record now");
    commit.local_durable(Seq(12));
    assert_eq!(answered(&answers), [12]);
}

#[test]
fn copies_of_a_tail_that_was_cut_off_are_no_copies() {
    let commit = Commit::new(quorum(&[A, B], 2));
    commit.begin(Epoch(1), Seq(1));
    commit.local_durable(Seq(20));
    commit.begin(Epoch(3), Seq(11));
    commit.peer_durable(A, Epoch(3), Seq(12));
    assert_eq!(commit.committed(), Seq(0), "12 is not durable here yet");
    commit.begin(Epoch(4), Seq(11));
    commit.local_durable(Seq(12));
    assert_eq!(commit.committed(), Seq(0), "nor in this session anywhere else");
    commit.peer_durable(B, Epoch(4), Seq(11));
    assert_eq!(commit.committed(), Seq(11));
}

#[test]
fn both_rules_hold_during_a_change() {
    let commit = Commit::new(quorum(&[A, B], 2));
    commit.begin(Epoch(1), Seq(1));
    let both = Rule::Both(Box::new(quorum(&[A, B], 2)), Box::new(quorum(&[C], 2)));
    commit.set_rule(both);
    commit.local_durable(Seq(9));
    commit.peer_durable(A, Epoch(1), Seq(9));
    assert_eq!(commit.committed(), Seq(0));
    commit.peer_durable(C, Epoch(1), Seq(6));
    assert_eq!(commit.committed(), Seq(6));
    commit.set_rule(quorum(&[C], 2));
    commit.peer_durable(C, Epoch(1), Seq(7));
    assert_eq!(commit.committed(), Seq(7));
    commit.set_rule(quorum(&[B], 2));
    assert_eq!(commit.committed(), Seq(7), "nothing is taken back");
}

#[test]
fn waiters_are_answered_in_order_and_once() {
    let commit = Commit::new(Rule::Local);
    let answers = Answers::default();
    for seq in [7, 3, 5, 3, 9] {
        wait(&commit, &answers, seq);
    }
    commit.local_durable(Seq(2));
    assert_eq!(answered(&answers), [0u64; 0]);
    commit.local_durable(Seq(5));
    assert_eq!(answered(&answers), [3, 3, 5]);
    wait(&commit, &answers, 4);
    commit.close(Refused::Deposed);
    commit.local_durable(Seq(20));
    wait(&commit, &answers, 1);
    let answers = answers.lock().unwrap();
    let deposed = Err(Refused::Deposed);
    assert_eq!(
        answers[3..],
        [(4, Ok(())), (7, deposed.clone()), (9, deposed.clone()), (1, deposed)]
    );
}

#[test]
fn a_failed_log_stays_closed() {
    let commit = Commit::new(Rule::Local);
    let answers = Answers::default();
    commit.close(Refused::Failed("disk".into()));
    commit.close(Refused::Deposed);
    commit.begin(Epoch(2), Seq(1));
    commit.local_durable(Seq(5));
    wait(&commit, &answers, 1);
    assert_eq!(answers.lock().unwrap()[0].1, Err(Refused::Failed("disk".into())));
}

#[test]
fn a_waiter_may_call_back() {
    let commit = Arc::new(Commit::new(Rule::Local));
    let answers = Answers::default();
    let (again, told) = (commit.clone(), answers.clone());
    commit.when_committed(Seq(1), Box::new(move |_| wait(&again, &told, 1)));
    commit.local_durable(Seq(1));
    assert_eq!(answered(&answers), [1]);
}
