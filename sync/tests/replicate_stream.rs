//! A leader and its followers over real links: what is written here is there, and counts only
//! once it is durable there.

mod replicate_model;

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use mainstay_sync::commit::Rule;
use mainstay_sync::position::{Epoch, Seq};
use mainstay_sync::replicate::{Event, Leader, LeaderOptions, Phase, Refusal, Sink, Source};
use mainstay_sync::transport::Secret;
use replicate_model::{End, Model, endpoint, follow, lead, until};

/// A volume that follows from the first record on would be copied if it were blank.
fn seeded(leader: &Model) -> std::sync::Arc<Model> {
    let model = Model::blank();
    leader.records_from(1).iter().for_each(|record| model.take_directly(record));
    model
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_followers_take_what_the_leader_writes_and_their_word_commits_it() {
    let secret = Secret::generate();
    let (a, b, c) = (endpoint(&secret, "a"), endpoint(&secret, "b"), endpoint(&secret, "c"));
    let leader = Model::blank();
    leader.lead(1);
    let (one, two) = (seeded(&leader), seeded(&leader));
    let peers = [&one, &two].map(|model| End(model.clone()).volume()).to_vec();
    leader.commit.set_rule(Rule::Quorum { peers, needed: 3 });
    let leading = lead(&a, &leader, 1);
    let following_one = follow(&b, &one, &a, 1);
    let _following_two = follow(&c, &two, &a, 1);
    let mut last = Seq(0);
    for number in 0..400_u64 {
        last = leader.write(1, number % 7, number * 10, vec![number as u8; 300]);
    }
    leader.commit.local_durable(last);
    let (told, committed) = mpsc::channel();
    leader.commit.when_committed(last, Box::new(move |answer| told.send(answer).unwrap()));
    let answer = tokio::task::spawn_blocking(move || {
        committed.recv_timeout(Duration::from_secs(60)).unwrap()
    });
    answer.await.unwrap().unwrap();
    for model in [&one, &two] {
        assert!(End((*model).clone()).durable().seq >= last, "committed and not durable there");
        until("all is applied", || model.content() == leader.content()).await;
        assert_eq!(model.builds.load(Ordering::SeqCst), 0, "a copy was made needlessly");
    }
    let followers = leading.followers();
    let nodes: Vec<_> = followers.iter().map(|follower| follower.node.as_str()).collect();
    assert_eq!(nodes, ["b", "c"]);
    // Their last word may be on its way still.
    until("nobody lags", || {
        leading.followers().iter().all(|of| of.connected && of.lag_ops == 0 && of.lag_ms == 0)
    })
    .await;
    let status = following_one.status();
    until("the leader's head is known", || status.borrow().leader_head == last).await;
    let status = status.borrow().clone();
    assert_eq!(status.phase, Phase::Streaming);
    let ahead = status.leader_clock_ahead_ms.unwrap();
    assert!(ahead.abs() < 60_000, "one machine has one clock: {ahead} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_goes_on_where_it_was() {
    let secret = Secret::generate();
    let (a, b) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let leader = Model::blank();
    leader.lead(1);
    let model = seeded(&leader);
    let leading = lead(&a, &leader, 1);
    for round in 0..4_u64 {
        let following = follow(&b, &model, &a, 1);
        for number in 0..200 {
            leader.write(1, number, round * 100, vec![round as u8; 5_000]);
        }
        if round % 2 == 0 {
            until("it has caught up", || model.content() == leader.content()).await;
        }
        following.stop().await;
        let (head, content) = (End(model.clone()).standing().head, model.content());
        leader.write(1, 1000, round, vec![9; 10]);
        assert_eq!(End(model.clone()).standing().head, head, "it took records after its stop");
        assert_eq!(model.content(), content);
    }
    until("the lost session is noticed", || !leading.followers()[0].connected).await;
    assert!(leading.followers()[0].lag_ops > 0, "silence must not look like the last report");
    let _following = follow(&b, &model, &a, 1);
    until("it has caught up", || model.content() == leader.content()).await;
    assert_eq!(model.builds.load(Ordering::SeqCst), 0, "its log covered all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_promised_the_epoch_away_is_not_served_and_the_leader_is_told() {
    let secret = Secret::generate();
    let (a, b) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let leader = Model::blank();
    leader.lead(4);
    let model = seeded(&leader);
    let options = LeaderOptions::default();
    let source = std::sync::Arc::new(End(leader.clone()));
    let (_leading, mut events) = Leader::start(&a, source, Epoch(4), options);
    let following = follow(&b, &model, &a, 4);
    leader.write(4, 1, 0, vec![1]);
    until("it streams", || model.content() == leader.content()).await;
    let volume = End(model.clone()).volume();
    until("its word counts", || leader.acknowledged.lock().unwrap().get(&volume) == Some(&Seq(2)))
        .await;
    model.promise(6);
    let seen = tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap();
    assert_eq!(seen, Some(Event::Superseded { epoch: Epoch(6), node: "b".into() }));
    let before = leader.acknowledged.lock().unwrap().clone();
    let status = following.status();
    let refused = Phase::Refused(Refusal::Superseded { leader: Epoch(4), seen: Epoch(6) });
    until("it says why", || status.borrow().phase == refused).await;
    leader.write(4, 1, 0, vec![2]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(*leader.acknowledged.lock().unwrap(), before, "a promise was broken");
    assert_ne!(model.content(), leader.content());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_lost_is_dropped_or_the_whole_volume_is_set_aside() {
    let secret = Secret::generate();
    let (a, b, c) = (endpoint(&secret, "a"), endpoint(&secret, "b"), endpoint(&secret, "c"));
    let leader = Model::blank();
    leader.lead(1);
    leader.write(1, 1, 0, vec![1; 100]);
    let (unapplied, applied) = (seeded(&leader), seeded(&leader));
    unapplied.lazy.store(1, Ordering::SeqCst);
    for model in [&unapplied, &applied] {
        // Leads epoch 2 alone, and loses it.
        model.lead(2);
        model.write(2, 1, 50, vec![2; 100]);
    }
    leader.lead(3);
    leader.write(3, 1, 0, vec![3; 20]);
    let _leading = lead(&a, &leader, 3);
    unapplied.lazy.store(0, Ordering::SeqCst);
    let _one = follow(&b, &unapplied, &a, 3);
    let _two = follow(&c, &applied, &a, 3);
    for model in [&unapplied, &applied] {
        until("it is as the leader", || {
            model.content() == leader.content()
                && End(model.clone()).standing().lineage == End(leader.clone()).lineage()
        })
        .await;
    }
    let count = |of: &std::sync::atomic::AtomicUsize| of.load(Ordering::SeqCst);
    assert_eq!((count(&unapplied.truncations), count(&unapplied.asides)), (1, 0));
    assert_eq!((count(&applied.truncations), count(&applied.asides)), (0, 1));
    assert_eq!((count(&unapplied.builds), count(&applied.builds)), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_takes_nothing_holds_up_nobody_and_is_told_to_copy() {
    let secret = Secret::generate();
    let (a, b) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let leader = Model::blank();
    leader.lead(1);
    let model = seeded(&leader);
    model.stuck.store(1, Ordering::SeqCst);
    let options = LeaderOptions {
        beat: Duration::from_millis(50),
        held_bytes_max: 64 << 20,
        ..LeaderOptions::default()
    };
    let source = std::sync::Arc::new(End(leader.clone()));
    let (leading, _events) = Leader::start(&a, source, Epoch(1), options);
    let _following = follow(&b, &model, &a, 1);
    until("it is there", || leading.followers().iter().any(|of| of.connected)).await;
    // 256 MiB, of which the windows let through a part; the rest stays in the leader's segments.
    for number in 0..4_000_u64 {
        leader.write(1, number % 16, 0, vec![number as u8; 64 << 10]);
        if number % 50 == 0 {
            tokio::task::yield_now().await;
            leader.release_log();
        }
    }
    // The log is given back once the session is over, so what is left for it is a copy.
    until("it is told to copy", || {
        leader.release_log();
        model.builds.load(Ordering::SeqCst) > 0
    })
    .await;
    let given = leader.given_bytes.load(Ordering::SeqCst);
    assert!(given < 120 << 20, "{given} bytes are kept in memory for a follower that takes none");
    model.stuck.store(0, Ordering::SeqCst);
    until("it has copied", || model.content() == leader.content()).await;
    assert!(model.finished.load(Ordering::SeqCst) >= 1);
}
