//! Whole copies: while the leader writes, and when they are cut short.

mod replicate_model;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_sync::replicate::{Phase, Sink};
use mainstay_sync::transport::Secret;
use replicate_model::{End, Model, endpoint, follow, lead, until};

/// A leader with 60 pieces to copy.
fn leader() -> Arc<Model> {
    let model = Model::blank();
    model.lead(1);
    for number in 0..60_u64 {
        model.write(1, number, 0, vec![number as u8; 12_000]);
    }
    model
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blank_volume_is_copied_while_the_leader_writes() {
    let secret = Secret::generate();
    let (a, b) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let leader = leader();
    let _leading = lead(&a, &leader, 1);
    let model = Model::blank();
    model.piece_ms.store(5, Ordering::SeqCst);
    let following = follow(&b, &model, &a, 1);
    let mut writes = 0_u64;
    while model.finished.load(Ordering::SeqCst) == 0 {
        // Over what was copied, over what was not, and into new files; the log forgets it all.
        leader.write(1, writes % 90, writes * 7 % 9_000, vec![writes as u8; 2_000]);
        if writes.is_multiple_of(20) {
            leader.release_log();
        }
        writes += 1;
        assert!(writes < 20_000, "the copy does not end: {:?}", following.status().borrow());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    until("it is as the leader, births and all", || model.content() == leader.content()).await;
    assert_eq!(model.builds.load(Ordering::SeqCst), 1, "one copy was enough");
    assert_eq!(End(model.clone()).standing().lineage, End(leader).standing().lineage);
    let status = following.status();
    until("it streams", || status.borrow().phase == Phase::Streaming).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_cut_short_again_and_again_is_never_promotable_until_it_is_whole() {
    let secret = Secret::generate();
    let (a, b) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let leader = leader();
    let _leading = lead(&a, &leader, 1);
    let model = Model::blank();
    model.piece_ms.store(5, Ordering::SeqCst);
    for round in 1..=3 {
        let following = follow(&b, &model, &a, 1);
        let pieces = model.pieces.load(Ordering::SeqCst);
        let status = following.status();
        until("it copies", || {
            model.pieces.load(Ordering::SeqCst) > pieces + 5
                && matches!(status.borrow().phase, Phase::Copying { bytes, .. } if bytes > 0)
        })
        .await;
        match round {
            1 => following.stop().await,
            _ => drop(following),
        }
        leader.write(1, round, 0, vec![round as u8; 100]);
        assert!(End(model.clone()).standing().building, "cut short, and not marked so");
        assert_eq!(model.finished.load(Ordering::SeqCst), 0);
    }
    let _following = follow(&b, &model, &a, 1);
    until("it is as the leader", || {
        let whole = !End(model.clone()).standing().building;
        whole && model.content() == leader.content()
    })
    .await;
    assert!(model.builds.load(Ordering::SeqCst) >= 4, "each attempt begins anew");
    assert_eq!(model.finished.load(Ordering::SeqCst), 1);
}
