//! Where clients were led: nobody gets to a deposed leader once the bound is over, and nobody is
//! told by one that a write is done after a later one began to say so.
//!
//! A server here is one run of the service's process. Its order among others is that of their first
//! acknowledgements; nothing else is needed to see two of them at work at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Finding;
use crate::workload::history::Connection;
use crate::workload::{Outcome, ServerId, Way};

/// One answer to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When the request was sent.
    pub invoked: Duration,
    /// When its end was known.
    pub ended: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// Who answered.
    pub server: ServerId,
    /// How the client had got there.
    pub way: Way,
}

/// When each server was first known to have acknowledged something.
fn firsts(answers: &[Answer]) -> BTreeMap<ServerId, Duration> {
    let mut firsts = BTreeMap::new();
    for answer in answers.iter().filter(|answer| answer.outcome == Outcome::Acknowledged) {
        let first = firsts.entry(answer.server).or_insert(answer.ended);
        *first = (*first).min(answer.ended);
    }
    firsts
}

/// Who was the newest of all servers at `then`, by first acknowledgements.
fn newest(firsts: &BTreeMap<ServerId, Duration>, then: Duration) -> Option<(ServerId, Duration)> {
    let known = firsts.iter().filter(|(_, first)| **first < then);
    known.max_by_key(|(_, first)| **first).map(|(server, first)| (*server, *first))
}

/// What is wrong with an answer, if by `at` a later server than its own had begun.
fn late(answer: &Answer, at: Duration, firsts: &BTreeMap<ServerId, Duration>) -> Option<String> {
    let (by, first) = newest(firsts, at)?;
    (by != answer.server && firsts[&answer.server] < first).then(|| {
        format!(
            "server {} acknowledged at {:.3} s what was sent at {:.3} s, and server {} had begun \
             at {:.3} s",
            answer.server.0,
            answer.ended.as_secs_f64(),
            answer.invoked.as_secs_f64(),
            by.0,
            first.as_secs_f64()
        )
    })
}

/// No server acknowledges what was sent after a later server's first acknowledgement.
#[must_use]
pub fn one_writer(answers: &[Answer]) -> Finding {
    let firsts = firsts(answers);
    let acknowledged = answers.iter().filter(|answer| answer.outcome == Outcome::Acknowledged);
    Finding {
        check: "one writer: an older server acknowledges nothing after a later one's first"
            .to_owned(),
        looked_at: format!("{} answers of {} servers", answers.len(), firsts.len()),
        violations: acknowledged
            .filter_map(|answer| late(answer, answer.invoked, &firsts))
            .collect(),
    }
}

/// No server acknowledges anything much later than a later server's first acknowledgement, whenever it
/// was sent: the older one's mount must have stopped answering before. `delayed` are times in which
/// an answer given before may have been on its way.
#[must_use]
pub fn gated(answers: &[Answer], delayed: &[(Duration, Duration)], bound: Duration) -> Finding {
    let firsts = firsts(answers);
    let is_delayed = |answer: &Answer| {
        delayed
            .iter()
            .any(|(from, to)| *from < answer.ended && answer.invoked < to.saturating_add(bound))
    };
    let looked_at: Vec<_> = answers
        .iter()
        .filter(|answer| answer.outcome == Outcome::Acknowledged && !is_delayed(answer))
        .collect();
    let violations = looked_at
        .iter()
        .filter_map(|answer| late(answer, answer.ended.checked_sub(bound)?, &firsts))
        .collect();
    Finding {
        check: "one writer: what was sent to an older server before is not acknowledged after"
            .to_owned(),
        looked_at: format!("{} answers that nothing delayed", looked_at.len()),
        violations,
    }
}

/// No connection that was asked for `bound` after a later server's first acknowledgement leads to
/// an older one.
#[must_use]
pub fn forwarded(connections: &[Connection], answers: &[Answer], bound: Duration) -> Finding {
    let firsts = firsts(answers);
    let led = connections.iter().filter(|connection| connection.way == Way::Ambassador);
    let late = led.filter_map(|connection| {
        let (by, first) = newest(&firsts, connection.began.checked_sub(bound)?)?;
        let own = *firsts.get(&connection.server)?;
        (by != connection.server && own < first).then(|| {
            format!(
                "a client that connected at {:.3} s was led to server {}, though server {} had \
                 begun at {:.3} s",
                connection.began.as_secs_f64(),
                connection.server.0,
                by.0,
                first.as_secs_f64()
            )
        })
    });
    Finding {
        check: format!("no client is led to a deposed leader {bound:?} after another began"),
        looked_at: format!("{} connections", connections.len()),
        violations: late.collect(),
    }
}

/// Whoever is connected to a deposed leader through the ambassador is cut off: no request stays open
/// for longer than `bound` after a later server's first acknowledgement.
#[must_use]
pub fn cut(answers: &[Answer], bound: Duration) -> Finding {
    let firsts = firsts(answers);
    let led: Vec<_> = answers.iter().filter(|answer| answer.way == Way::Ambassador).collect();
    let left = led.iter().filter_map(|answer| {
        let own = *firsts.get(&answer.server)?;
        // The first that began after this one: from then on the client waits in vain.
        let later = firsts.iter().filter(|(_, first)| **first > own).min_by_key(|(_, at)| **at)?;
        let (by, first) = (later.0, *later.1);
        (answer.invoked < first && answer.ended > first + bound).then(|| {
            format!(
                "a request sent to server {} at {:.3} s was left open until {:.3} s, though \
                 server {} had begun at {:.3} s",
                answer.server.0,
                answer.invoked.as_secs_f64(),
                answer.ended.as_secs_f64(),
                by.0,
                first.as_secs_f64()
            )
        })
    });
    Finding {
        check: format!("clients of a deposed leader are cut off {bound:?} after another began"),
        looked_at: format!("{} requests", led.len()),
        violations: left.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(server: u32, invoked: u64, ended: u64) -> Answer {
        Answer {
            invoked: Duration::from_secs(invoked),
            ended: Duration::from_secs(ended),
            outcome: Outcome::Acknowledged,
            server: ServerId(server),
            way: Way::Ambassador,
        }
    }

    #[test]
    fn an_older_server_that_goes_on_is_found() {
        let before = [answer(0, 0, 1), answer(0, 2, 3), answer(1, 4, 5)];
        assert!(one_writer(&before).is_clean());
        let overlapping = [answer(0, 0, 1), answer(1, 4, 5), answer(0, 4, 9)];
        assert!(one_writer(&overlapping).is_clean(), "it may have been done before");
        let after = [answer(0, 0, 1), answer(1, 4, 5), answer(0, 6, 7)];
        assert_eq!(one_writer(&after).violations.len(), 1);
    }

    #[test]
    fn an_acknowledgement_that_comes_too_late_is_found_unless_it_was_delayed() {
        let seconds = Duration::from_secs;
        let answers = [answer(0, 0, 1), answer(1, 4, 5), answer(0, 2, 9)];
        assert!(one_writer(&answers).is_clean(), "it was sent before");
        assert_eq!(gated(&answers, &[], seconds(1)).violations.len(), 1);
        assert!(gated(&answers, &[], seconds(4)).is_clean());
        assert!(gated(&answers, &[(seconds(3), seconds(8))], seconds(1)).is_clean());
        assert_eq!(gated(&answers, &[(seconds(20), seconds(28))], seconds(1)).violations.len(), 1);
    }

    #[test]
    fn a_request_that_is_left_open_at_a_deposed_leader_is_found() {
        let mut answers = [answer(0, 0, 1), answer(0, 2, 6), answer(1, 4, 5)];
        let bound = Duration::from_secs(3);
        assert!(cut(&answers, bound).is_clean());
        answers[1].ended = Duration::from_secs(9);
        answers[1].outcome = Outcome::Unknown;
        assert_eq!(cut(&answers, bound).violations.len(), 1);
        answers[1].way = Way::Direct;
        assert!(cut(&answers, bound).is_clean(), "nobody cuts those");
    }

    #[test]
    fn a_connection_to_a_deposed_leader_is_found_after_the_bound() {
        let answers = [answer(0, 0, 1), answer(1, 4, 5)];
        let to = |server, began| Connection {
            began: Duration::from_secs(began),
            ended: Duration::from_secs(began + 1),
            server: ServerId(server),
            way: Way::Ambassador,
        };
        let bound = Duration::from_secs(3);
        assert!(forwarded(&[to(0, 7), to(1, 20)], &answers, bound).is_clean());
        assert_eq!(forwarded(&[to(0, 9)], &answers, bound).violations.len(), 1);
    }
}
