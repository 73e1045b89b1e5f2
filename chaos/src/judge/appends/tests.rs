use super::*;

fn append(key: i64, value: i64) -> Step {
    Step::Append { key, value }
}

fn read(key: i64, seen: &[i64]) -> Step {
    Step::Read { key, seen: Some(seen.to_vec()) }
}

/// Transactions that all overlap in time, on one server.
fn history(all: &[&[Step]]) -> Vec<Transaction> {
    let one = |steps: &&[Step]| Transaction {
        invoked: Duration::ZERO,
        ended: Duration::from_secs(9),
        outcome: Outcome::Acknowledged,
        server: ServerId(0),
        steps: steps.to_vec(),
    };
    all.iter().map(one).collect()
}

fn violations(transactions: &[Transaction], lists: &[(i64, &[i64])]) -> Vec<String> {
    let lists = lists.iter().map(|(key, list)| (*key, list.to_vec())).collect();
    check(transactions, &lists, Promise::Sync).violations
}

fn assert_found(found: &[String], what: &str) {
    assert!(found.iter().any(|violation| violation.contains(what)), "{found:?}");
}

#[test]
fn a_serial_history_is_clean() {
    let all = history(&[&[append(1, 1)], &[read(1, &[1]), append(1, 2)], &[read(1, &[1, 2])]]);
    assert!(violations(&all, &[(1, &[1, 2])]).is_empty());
}

#[test]
fn an_acknowledged_append_that_is_gone_is_lost_only_in_sync() {
    let all = history(&[&[append(1, 1)], &[append(1, 2)]]);
    assert_found(&violations(&all, &[(1, &[1])]), "is lost");
    assert!(check(&all, &vec![(1, vec![1])], Promise::Async).is_clean());
}

#[test]
fn a_value_that_nobody_appended_is_found() {
    assert_found(&violations(&history(&[]), &[(1, &[7])]), "nobody appended");
}

#[test]
fn a_value_that_is_there_twice_is_found() {
    let all = history(&[&[append(1, 1)]]);
    assert_found(&violations(&all, &[(1, &[1, 1])]), "twice");
}

#[test]
fn a_value_of_a_rolled_back_transaction_is_found() {
    let mut all = history(&[&[append(1, 1)]]);
    all[0].outcome = Outcome::Failed;
    assert_found(&violations(&all, &[(1, &[1])]), "rolled back");
}

#[test]
fn a_read_amid_a_transaction_is_found() {
    let all = history(&[&[append(1, 1), append(1, 2)], &[read(1, &[1])]]);
    assert_found(&violations(&all, &[(1, &[1, 2])]), "amid");
}

#[test]
fn write_skew_is_a_cycle() {
    // Each read the other's list before the other appended to it.
    let all = history(&[&[read(1, &[]), append(2, 20)], &[read(2, &[]), append(1, 10)]]);
    assert_found(&violations(&all, &[(1, &[10]), (2, &[20])]), "cycle");
}

#[test]
fn lists_that_disagree_on_their_writers_order_are_a_cycle() {
    let all = history(&[&[append(1, 1), append(2, 1001)], &[append(1, 2), append(2, 1002)]]);
    assert_found(&violations(&all, &[(1, &[1, 2]), (2, &[1002, 1001])]), "cycle");
}

#[test]
fn readers_that_saw_different_pasts_are_found() {
    let all = history(&[&[append(1, 1)], &[append(1, 2)], &[read(1, &[2])]]);
    assert_found(&violations(&all, &[(1, &[1, 2])]), "in an order that others did not");
}

#[test]
fn an_append_out_of_real_time_is_found() {
    let mut all = history(&[&[append(1, 1)], &[append(1, 2)]]);
    all[0].ended = Duration::from_secs(1);
    all[1].invoked = Duration::from_secs(2);
    assert!(violations(&all, &[(1, &[1, 2])]).is_empty());
    assert_found(&violations(&all, &[(1, &[2, 1])]), "acknowledged at 1.000 s, after 2");
}

#[test]
fn a_transaction_that_does_not_see_its_own_append_is_found() {
    let all = history(&[&[append(1, 1), read(1, &[])]]);
    assert_found(&violations(&all, &[(1, &[1])]), "its own work");
}

#[test]
fn in_async_a_lost_tail_that_was_read_is_no_disorder() {
    let mut all = history(&[&[append(1, 1)], &[read(1, &[1])], &[append(1, 2)], &[read(1, &[2])]]);
    all[2].server = ServerId(1);
    all[3].server = ServerId(1);
    assert!(check(&all, &vec![(1, vec![2])], Promise::Async).is_clean());
    assert!(!check(&all, &vec![(1, vec![2])], Promise::Sync).is_clean());
}
