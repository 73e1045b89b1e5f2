//! Peers that hold the cluster's secret and mean no good, or know no better.

mod replicate_model;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use mainstay_sync::op::{Change, Head, Record, Time};
use mainstay_sync::position::{Epoch, FileId, Lineage, Position, Seq, VolumeId};
use mainstay_sync::replicate::message::{Stamp, ToFollower, ToLeader, Welcome};
use mainstay_sync::replicate::plan::{Leading, PROTOCOL};
use mainstay_sync::replicate::{Phase, Refusal, Sink, Source, Standing, Verdict, Why};
use mainstay_sync::transport::{Channel, Endpoint, FrameKind, Link, Listener, Secret};
use mainstay_sync::wire::{decode_message, encode_message, encode_record};
use replicate_model::{CLUSTER, End, Model, SERVICE, address, endpoint, follow, lead, until};

/// A volume of epoch 1 with three records.
fn volume() -> Arc<Model> {
    let model = Model::blank();
    model.lead(1);
    model.write(1, 1, 0, vec![1; 10]);
    model.write(1, 1, 5, vec![2; 10]);
    model.settle();
    model
}

fn record(epoch: u64, seq: u64, changes: Vec<Change>) -> Record {
    let head = Head { epoch: Epoch(epoch), seq: Seq(seq), at: Time::default(), changes };
    Record { head, payload: Bytes::new() }
}

fn entry(name: &[u8]) -> Vec<Change> {
    let child = Some(FileId::new(Epoch(1), 1));
    vec![Change::Entry { parent: FileId::ROOT, name: name.to_vec(), child }]
}

/// Leads epoch 2 from record 4 on, by its own word.
fn leading() -> Leading {
    Leading {
        protocol: PROTOCOL,
        service: SERVICE.into(),
        cluster: CLUSTER,
        volume: VolumeId([7; 16]),
        epoch: Epoch(2),
        lineage: Lineage(vec![(Epoch(1), Seq(1)), (Epoch(2), Seq(4))]),
        head: Position { epoch: Epoch(2), seq: Seq(9) },
        first: Seq(1),
    }
}

/// Far longer than a peer takes to end a session that it should end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the peer has ended the link, and says why it did.
async fn ended(link: &Link) -> String {
    let closed = tokio::time::timeout(PATIENCE, link.closed()).await;
    closed.expect("the peer should have ended the session").to_string()
}

async fn say(channel: &mut Channel, message: &ToFollower) {
    let message = encode_message(message).into();
    channel.sending.send(FrameKind::Message, message).await.unwrap();
}

/// Takes the next session up to its Hello and answers with `leading` and `verdict`.
async fn welcome(listener: &mut Listener, leading: Leading, verdict: Verdict) -> (Link, Channel) {
    let link = tokio::time::timeout(PATIENCE, listener.next()).await.unwrap().unwrap();
    let mut channel = link.accept().await.unwrap();
    let hello = channel.receiving.next().await.unwrap();
    assert!(matches!(decode_message(&hello.body).unwrap(), ToLeader::Hello(_)));
    let welcome = Welcome { leading, verdict, at: Time::default() };
    say(&mut channel, &ToFollower::Welcome(welcome)).await;
    (link, channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_frame_of_a_hostile_leader_reaches_the_log() {
    let secret = Secret::generate();
    let (evil, b) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let mut listener = evil.listen();
    let model = volume();
    // All that a session may leave is that it took part in that leader's epoch.
    let leader = Some((leading().epoch, leading().volume));
    let before = Standing { leader, ..End(model.clone()).standing() };
    let start = vec![Change::EpochStart { node: "a".into() }];
    let good = encode_record(&record(2, 4, start.clone()));
    let encoded = |record: &Record| (FrameKind::Record, encode_record(record));
    let mut torn = good.to_vec();
    torn.truncate(good.len() - 1);
    let frames = [
        ("a gap", encoded(&record(2, 5, vec![]))),
        ("a record that is there", encoded(&record(1, 3, vec![]))),
        ("an older epoch", encoded(&record(1, 4, vec![]))),
        ("a newer epoch", encoded(&record(3, 4, start.clone()))),
        ("an epoch without its start", encoded(&record(2, 4, entry(b"x")))),
        ("a path", encoded(&record(2, 4, [start.clone(), entry(b"../x")].concat()))),
        ("a name of nothing", encoded(&record(2, 4, [start, entry(b"")].concat()))),
        ("a torn record", (FrameKind::Record, torn.into())),
        ("noise", (FrameKind::Record, vec![0xff; 100].into())),
        ("a noisy message", (FrameKind::Message, vec![0xff; 100].into())),
        ("data", (FrameKind::Data, good.clone())),
        ("the end of a copy", {
            let end = ToFollower::End { through: Position::default() };
            (FrameKind::Message, encode_message(&end).into())
        }),
    ];
    let _following = follow(&b, &model, &evil, 2);
    for (name, (kind, body)) in frames {
        let (link, mut channel) =
            welcome(&mut listener, leading(), Verdict::Stream { after: Seq(3) }).await;
        let ready = channel.receiving.next().await.unwrap();
        assert!(matches!(decode_message(&ready.body).unwrap(), ToLeader::Ready { .. }), "{name}");
        say(&mut channel, &ToFollower::Started).await;
        channel.sending.send(kind, body).await.unwrap();
        let end = ended(&link).await;
        assert!(!end.contains("timed out"), "{name}: {end}");
        assert_eq!(End(model.clone()).standing(), before, "{name}");
    }
    // The same session with the record that it should be: the harness itself is no obstacle.
    let (_link, mut channel) =
        welcome(&mut listener, leading(), Verdict::Stream { after: Seq(3) }).await;
    channel.receiving.next().await.unwrap();
    say(&mut channel, &ToFollower::Started).await;
    channel.sending.send(FrameKind::Record, good).await.unwrap();
    until("the good one is taken", || End(model.clone()).standing().head.seq == Seq(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_that_the_follower_would_not_reach_is_not_carried_out() {
    let secret = Secret::generate();
    let (evil, b) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let mut listener = evil.listen();
    let model = volume();
    let before = (End(model.clone()).standing(), model.content());
    let stream = Verdict::Stream { after: Seq(3) };
    let lies = [
        (leading(), Verdict::Copy { why: Why::Blank }),
        (leading(), Verdict::SetAside { ancestor: Seq(0) }),
        (leading(), Verdict::Truncate { after: Seq(2) }),
        (leading(), Verdict::Stream { after: Seq(2) }),
        // An older leadership than the one to be followed, and one without a history.
        (
            Leading { epoch: Epoch(1), lineage: Lineage(vec![(Epoch(1), Seq(1))]), ..leading() },
            stream.clone(),
        ),
        (Leading { lineage: Lineage(vec![]), ..leading() }, stream.clone()),
        (Leading { cluster: mainstay_sync::position::ClusterId([9; 16]), ..leading() }, stream),
    ];
    let _following = follow(&b, &model, &evil, 2);
    for (leading, verdict) in lies {
        let (link, _channel) = welcome(&mut listener, leading, verdict.clone()).await;
        let end = ended(&link).await;
        assert!(!end.contains("timed out"), "{verdict:?}: {end}");
        assert_eq!((End(model.clone()).standing(), model.content()), before, "{verdict:?}");
    }
    assert_eq!(model.builds.load(Ordering::SeqCst), 0);
}

/// As after a restore of the coordinator: not one who lies, but two that were elected alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_leader_of_an_epoch_is_declined_whatever_it_says_itself() {
    let secret = Secret::generate();
    let (both, b) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let mut listener = both.listen();
    let model = volume();
    let stream = Verdict::Stream { after: Seq(3) };
    let _following = follow(&b, &model, &both, 2);
    let (link, mut channel) = welcome(&mut listener, leading(), stream.clone()).await;
    let ready = channel.receiving.next().await.unwrap();
    assert!(matches!(decode_message(&ready.body).unwrap(), ToLeader::Ready { .. }));
    drop((channel, link));
    let promised = || End(model.clone()).standing().promised;
    assert!(promised() < Epoch(2), "it takes part in the first one's");
    let (link, _channel) =
        welcome(&mut listener, Leading { volume: VolumeId([8; 16]), ..leading() }, stream).await;
    ended(&link).await;
    // Its leader sees that, and goes on in an epoch that can be followed.
    until("the epoch is declined", || promised() == Epoch(2)).await;
}

/// Opens a session with the leader as `standing` and returns it with the leader's verdict.
async fn hello(
    endpoint: &Endpoint,
    leader: &Endpoint,
    standing: Standing,
) -> (Link, Channel, Verdict) {
    let link = endpoint.connect(address(leader), "a").await.unwrap();
    let mut channel = link.open().await.unwrap();
    let hello = encode_message(&ToLeader::Hello(standing)).into();
    channel.sending.send(FrameKind::Message, hello).await.unwrap();
    let answer = channel.receiving.next().await.unwrap();
    match decode_message(&answer.body).unwrap() {
        ToFollower::Welcome(welcome) => (link, channel, welcome.verdict),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_cannot_acknowledge_what_it_was_not_sent() {
    let secret = Secret::generate();
    let (a, evil) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let leader = volume();
    let _leading = lead(&a, &leader, 1);
    let standing = |model: &Arc<Model>| Standing {
        protocol: PROTOCOL,
        service: SERVICE.into(),
        node: "b".into(),
        ..End(model.clone()).standing()
    };
    let other = Standing { volume: VolumeId([5; 16]), ..standing(&leader) };
    let send = async |channel: &mut Channel, message: ToLeader| {
        let message = encode_message(&message).into();
        channel.sending.send(FrameKind::Message, message).await.unwrap();
    };
    let after = other.head;
    let ack = |epoch, durable| ToLeader::Ack {
        epoch: Epoch(epoch),
        durable: Seq(durable),
        applied: Seq(0),
        echo: Stamp(0),
    };
    let volume = other.volume;
    for (name, ready, message) in [
        ("before it is ready", None, ack(1, 3)),
        ("past what was sent", Some(after), ack(1, 4)),
        ("in another epoch", Some(after), ack(2, 3)),
        ("ready where it is not", Some(Position { seq: Seq(2), ..after }), ack(1, 2)),
        ("ready past the log", Some(Position { seq: Seq(9), ..after }), ack(1, 9)),
    ] {
        let (link, mut channel, verdict) = hello(&evil, &a, other.clone()).await;
        assert_eq!(verdict, Verdict::Stream { after: Seq(3) }, "{name}");
        if let Some(after) = ready {
            send(&mut channel, ToLeader::Ready { after, volume }).await;
        }
        // The link may be gone before this one is sent.
        let message = encode_message(&message).into();
        let _ = channel.sending.send(FrameKind::Message, message).await;
        let end = ended(&link).await;
        assert!(!end.contains("timed out"), "{name}: {end}");
        assert!(leader.acknowledged.lock().unwrap().is_empty(), "{name}");
    }
    let (_link, mut channel, _) = hello(&evil, &a, other.clone()).await;
    send(&mut channel, ToLeader::Ready { after, volume }).await;
    send(&mut channel, ack(1, 3)).await;
    let counted = || leader.acknowledged.lock().unwrap().get(&other.volume) == Some(&Seq(3));
    until("an honest word counts", counted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_under_anothers_name_and_a_clone_are_refused() {
    let secret = Secret::generate();
    let (a, b) = (endpoint(&secret, "a"), endpoint(&secret, "b"));
    let leader = volume();
    let _leading = lead(&a, &leader, 1);
    let mut standing = Standing {
        protocol: PROTOCOL,
        service: SERVICE.into(),
        node: "c".into(),
        ..End(leader.clone()).standing()
    };
    standing.volume = VolumeId([5; 16]);
    let (_, _, verdict) = hello(&b, &a, standing.clone()).await;
    assert!(matches!(verdict, Verdict::Refuse(Refusal::NotMember { .. })), "{verdict:?}");
    standing.node = "b".into();
    standing.volume = End(leader.clone()).volume();
    let (_, _, verdict) = hello(&b, &a, standing).await;
    assert!(matches!(verdict, Verdict::Refuse(Refusal::Cloned { .. })), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_secret_keeps_a_follower_out_and_says_what_to_compare() {
    let (ours, theirs) = (endpoint(&Secret::generate(), "a"), endpoint(&Secret::generate(), "b"));
    let leader = volume();
    let leading = lead(&ours, &leader, 1);
    let model = Model::blank();
    let following = follow(&theirs, &model, &ours, 1);
    let status = following.status();
    let fingerprints = [&ours, &theirs].map(|of| of.authority().fingerprint().to_string());
    until("it says what to compare", || {
        let status = status.borrow();
        let trouble = status.trouble.clone().unwrap_or_default();
        status.phase == Phase::Connecting && fingerprints.iter().all(|of| trouble.contains(of))
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(leading.followers().is_empty());
}
