//! What a coordinator must do, whatever it is made of. Each case has a service of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mainstay_election::coordinator::{
    Compare, Coordinator, CoordinatorError, Entry, Event, Grant, LeaseId, Outcome, Revision, Write,
};
use tokio::time::{Instant, sleep, timeout};

use super::{LONG, despite_stalls, eventually, find, next};

/// A backend under test.
#[async_trait]
pub trait Store: Send + Sync {
    /// A new connection, for the keys of `service`.
    async fn connect(&self, service: &str) -> Arc<dyn Coordinator>;
    /// The store forgets what watches would look back at.
    async fn forget_history(&self);
}

/// A store for one run of one case: no run finds what another left behind.
struct Attempt<'a> {
    store: &'a dyn Store,
    attempt: u32,
}

#[async_trait]
impl Store for Attempt<'_> {
    async fn connect(&self, service: &str) -> Arc<dyn Coordinator> {
        self.store.connect(&format!("{}-{service}", self.attempt)).await
    }

    async fn forget_history(&self) {
        self.store.forget_history().await;
    }
}

/// Short enough to wait for, and granted as it is by an etcd with default timing.
const TTL: Duration = Duration::from_secs(3);

/// Every case, one after another; each names itself first.
pub async fn all(store: &dyn Store) {
    macro_rules! run {
        ($($case:ident)*) => {$(
            eprintln!("case {}", stringify!($case));
            despite_stalls(stringify!($case), async |attempt| {
                let store = Attempt { store, attempt };
                timeout(4 * LONG, $case(&store)).await.expect(concat!(stringify!($case), " hangs"));
            })
            .await;
        )*};
    }
    run! {
        entries_say_when_they_were_put
        services_do_not_see_one_another
        compares_decide_about_all_writes
        a_transaction_is_one_revision
        nothing_is_lost_between_writers
        impossible_transactions_are_refused
        a_lease_takes_its_keys_along_not_early
        a_kept_lease_outlives_its_ttl
        a_revoked_lease_is_gone_at_once
        a_dead_lease_holds_nothing
        a_key_leaves_its_lease
        lease_ids_are_not_used_again
        a_watch_skips_nothing
        a_watch_sees_leases_end
        a_watch_can_be_asked_again_after_giving_up
        a_forgotten_past_breaks_the_watch
    }
}

fn put(key: &str, value: &str) -> Write {
    Write::Put(key.into(), value.into(), None)
}

fn leased(key: &str, lease: LeaseId) -> Write {
    Write::Put(key.into(), b"leased".to_vec(), Some(lease))
}

fn delete(key: &str) -> Write {
    Write::Delete(key.into())
}

fn value(key: &str, value: &str) -> Compare {
    Compare::Value(key.into(), value.into())
}

/// Writes without conditions.
async fn write(coordinator: &Arc<dyn Coordinator>, writes: Vec<Write>) -> Revision {
    match coordinator.transact(vec![], writes).await {
        Ok(Outcome::Done(revision)) => revision,
        other => panic!("a write without conditions: {other:?}"),
    }
}

/// Puts `keys` with a new short lease, and says since when it may count.
async fn write_leased(us: &Arc<dyn Coordinator>, keys: &[&str]) -> (Instant, Grant, Revision) {
    // A stall longer than the lease, between the two calls, shows nothing.
    for _ in 0..10 {
        let begun = Instant::now();
        let grant = us.grant(TTL).await.expect("a lease");
        let writes = keys.iter().map(|key| leased(key, grant.id)).collect();
        match us.transact(vec![], writes).await {
            Ok(Outcome::Done(revision)) => return (begun, grant, revision),
            Err(CoordinatorError::LeaseGone) if begun.elapsed() >= grant.ttl => {}
            other => panic!("a write without conditions: {other:?}"),
        }
    }
    panic!("ten times in a row this machine stalled for longer than a lease");
}

async fn present(coordinator: &Arc<dyn Coordinator>, key: &str) -> bool {
    find(&coordinator.read().await.expect("a read"), key).is_some()
}

async fn gone(coordinator: &Arc<dyn Coordinator>, key: &str) {
    eventually(&format!("{key} goes"), async || (!present(coordinator, key).await).then_some(()))
        .await;
}

async fn entries_say_when_they_were_put(store: &dyn Store) {
    let us = store.connect("entries").await;
    assert!(us.read().await.expect("a read").entries.is_empty());
    let first = write(&us, vec![put("a", "1"), put("empty", "")]).await;
    let second = write(&us, vec![put("a", "2")]).await;
    assert!(second > first);
    let contents = us.read().await.expect("a read");
    assert!(contents.revision >= second);
    let entry = |key: &str, value: &str, modified| Entry {
        key: key.into(),
        value: value.into(),
        created: first,
        modified,
        lease: None,
    };
    assert_eq!(contents.entries, [entry("a", "2", second), entry("empty", "", first)]);

    write(&us, vec![delete("a")]).await;
    let third = write(&us, vec![put("a", "3")]).await;
    let contents = us.read().await.expect("a read");
    let again = find(&contents, "a").expect("it was put");
    assert_eq!((again.created, again.modified), (third, third), "a deleted key begins anew");
}

async fn services_do_not_see_one_another(store: &dyn Store) {
    let us = store.connect("db").await;
    write(&us, vec![put("k", "ours")]).await;
    let mut watch = us.watch(us.read().await.expect("a read").revision).await.expect("a watch");
    // Keys that sort before ours, and after.
    for neighbour in ["db.2", "dba"] {
        let them = store.connect(neighbour).await;
        write(&them, vec![put("k", "theirs"), put("only", "theirs")]).await;
        assert_eq!(them.read().await.expect("a read").entries.len(), 2);
    }
    let contents = us.read().await.expect("a read");
    assert_eq!(contents.entries.len(), 1);
    assert_eq!(find(&contents, "k").expect("k").value, b"ours");
    let last = write(&us, vec![delete("k")]).await;
    assert_eq!(next(&mut watch).await, Event::Deleted("k".into(), last));
}

async fn compares_decide_about_all_writes(store: &dyn Store) {
    let us = store.connect("compares").await;
    let first = write(&us, vec![put("a", "1"), put("empty", "")]).await;
    let second = write(&us, vec![put("a", "2")]).await;
    let modified = |key: &str, at| Compare::Modified(key.into(), at);
    let absent = |key: &str| Compare::Absent(key.into());
    for refused in [
        vec![absent("a")],
        vec![value("a", "1")],
        vec![value("none", "")],
        vec![modified("a", first)],
        vec![modified("none", Revision(0))],
        vec![value("a", "2"), absent("none"), absent("empty")],
    ] {
        let outcome = us.transact(refused.clone(), vec![put("x", "x"), delete("a")]).await;
        assert_eq!(outcome, Ok(Outcome::Refused), "{refused:?}");
    }
    assert!(!present(&us, "x").await && present(&us, "a").await);
    for held in [
        vec![absent("none")],
        vec![value("a", "2"), value("empty", "")],
        vec![modified("a", second), modified("empty", first)],
    ] {
        let outcome = us.transact(held.clone(), vec![put("x", "x")]).await;
        assert!(matches!(outcome, Ok(Outcome::Done(_))), "{held:?}: {outcome:?}");
    }
}

async fn a_transaction_is_one_revision(store: &dyn Store) {
    let us = store.connect("atomic").await;
    let before = write(&us, vec![put("old", "1")]).await;
    let mut watch = us.watch(before).await.expect("a watch");
    let at = write(&us, vec![put("a", "1"), delete("old"), delete("none"), put("b", "1")]).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(match next(&mut watch).await {
            Event::Put(entry) => (entry.key, entry.modified),
            Event::Deleted(key, revision) => (key, revision),
            Event::Broken(cause) => panic!("{cause}"),
        });
    }
    seen.sort();
    assert_eq!(seen, [("a".into(), at), ("b".into(), at), ("old".into(), at)]);
    let nothing = write(&us, vec![delete("none")]).await;
    assert_eq!(nothing, at, "a delete of what is not there changes nothing");
}

async fn nothing_is_lost_between_writers(store: &dyn Store) {
    const WRITERS: usize = 4;
    const TIMES: usize = 10;
    let us = store.connect("counter").await;
    write(&us, vec![put("n", "0")]).await;
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let us = store.connect("counter").await;
        writers.push(tokio::spawn(async move {
            for _ in 0..TIMES {
                count_up(&us).await;
            }
        }));
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    let contents = us.read().await.expect("a read");
    let count = &find(&contents, "n").expect("n").value;
    assert_eq!(*count, (WRITERS * TIMES).to_string().into_bytes());
}

/// Compares by revision, as leaders do.
async fn count_up(us: &Arc<dyn Coordinator>) {
    loop {
        let contents = us.read().await.expect("a read");
        let entry = find(&contents, "n").expect("n");
        let text = std::str::from_utf8(&entry.value).expect("digits");
        let more = text.parse::<u64>().expect("a number") + 1;
        let compares = vec![Compare::Modified("n".into(), entry.modified)];
        match us.transact(compares, vec![put("n", &more.to_string())]).await {
            Ok(Outcome::Done(_)) => return,
            Ok(Outcome::Refused) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn impossible_transactions_are_refused(store: &dyn Store) {
    let us = store.connect("impossible").await;
    for writes in [
        vec![put("a", "1"), put("a", "2")],
        vec![put("a", "1"), delete("a")],
        vec![put("", "1")],
        vec![put("/mainstay/other/k", "1")],
    ] {
        let outcome = us.transact(vec![], writes.clone()).await;
        assert!(matches!(outcome, Err(CoordinatorError::Invalid(_))), "{writes:?}: {outcome:?}");
    }
    assert!(us.read().await.expect("a read").entries.is_empty());
}

async fn a_lease_takes_its_keys_along_not_early(store: &dyn Store) {
    let us = store.connect("expiry").await;
    write(&us, vec![put("stays", "1")]).await;
    let (begun, Grant { id, ttl }, _) = write_leased(&us, &["a", "b"]).await;
    assert!(ttl >= TTL, "{ttl:?} is shorter than was asked for");
    let contents = us.read().await.expect("a read");
    if begun.elapsed() < ttl {
        let entry = find(&contents, "a").expect("the lease is not over");
        assert_eq!(entry.lease, Some(id));
    }
    // Until it goes: whenever it is missing, the ttl must have passed since before the grant.
    gone(&us, "a").await;
    assert!(begun.elapsed() >= ttl, "the lease of {ttl:?} was over after {:?}", begun.elapsed());
    gone(&us, "b").await;
    assert!(present(&us, "stays").await);
    assert_eq!(us.keep_alive(id).await, Err(CoordinatorError::LeaseGone));
}

async fn a_kept_lease_outlives_its_ttl(store: &dyn Store) {
    let us = store.connect("kept").await;
    // This machine may stall for longer than the lease: then nothing was shown, so once more.
    for _ in 0..10 {
        let grant = us.grant(TTL).await.expect("a lease");
        if kept(&us, grant).await {
            return;
        }
    }
    panic!("ten times in a row this machine stalled for longer than a lease");
}

/// Whether it could be kept without a stall of ours, for twice its ttl.
async fn kept(us: &Arc<dyn Coordinator>, Grant { id, ttl }: Grant) -> bool {
    let begun = Instant::now();
    let mut sent = begun;
    if us.transact(vec![], vec![leased("a", id)]).await.is_err() {
        return false;
    }
    while begun.elapsed() < 2 * ttl {
        let sending = Instant::now();
        let answer = us.keep_alive(id).await;
        if sent.elapsed() >= ttl {
            return false;
        }
        assert_eq!(answer, Ok(ttl), "{:?} after it was extended", sent.elapsed());
        sent = sending;
        sleep(ttl / 8).await;
    }
    let there = present(us, "a").await;
    if sent.elapsed() >= ttl {
        return false;
    }
    assert!(there, "the key is gone though its lease was kept");
    us.revoke(id).await.expect("revoked");
    true
}

async fn a_revoked_lease_is_gone_at_once(store: &dyn Store) {
    let us = store.connect("revoked").await;
    let lease = us.grant(LONG).await.expect("a lease").id;
    let before = write(&us, vec![leased("a", lease), leased("b", lease)]).await;
    us.revoke(lease).await.expect("revoked");
    let contents = us.read().await.expect("a read");
    assert!(contents.entries.is_empty() && contents.revision > before);
    us.revoke(lease).await.expect("one that is gone is no error");
    assert_eq!(us.keep_alive(lease).await, Err(CoordinatorError::LeaseGone));
}

async fn a_dead_lease_holds_nothing(store: &dyn Store) {
    let us = store.connect("dead").await;
    let lease = us.grant(LONG).await.expect("a lease").id;
    us.revoke(lease).await.expect("revoked");
    let outcome = us.transact(vec![], vec![put("a", "1"), leased("b", lease)]).await;
    assert_eq!(outcome, Err(CoordinatorError::LeaseGone));
    assert!(us.read().await.expect("a read").entries.is_empty(), "all or nothing");
    let compares = vec![Compare::Value("none".into(), vec![])];
    let outcome = us.transact(compares, vec![leased("b", lease)]).await;
    assert_eq!(outcome, Ok(Outcome::Refused), "what is not written needs no lease");
}

async fn a_key_leaves_its_lease(store: &dyn Store) {
    let us = store.connect("leaves").await;
    let lease = us.grant(LONG).await.expect("a lease").id;
    write(&us, vec![leased("a", lease), leased("b", lease)]).await;
    write(&us, vec![put("a", "mine")]).await;
    us.revoke(lease).await.expect("revoked");
    assert!(present(&us, "a").await && !present(&us, "b").await);
}

async fn lease_ids_are_not_used_again(store: &dyn Store) {
    let us = store.connect("ids").await;
    let first = us.grant(LONG).await.expect("a lease").id;
    us.revoke(first).await.expect("revoked");
    let second = us.grant(LONG).await.expect("a lease").id;
    assert_ne!(first, second);
    us.revoke(second).await.expect("revoked");
}

async fn a_watch_skips_nothing(store: &dyn Store) {
    let us = store.connect("watch").await;
    let before = write(&us, vec![put("k", "0")]).await;
    let mut expected = Vec::new();
    let mut made = Vec::new();
    for n in 1..=5 {
        made.push(write(&us, vec![put("k", &n.to_string())]).await);
    }
    // Two watches: one begins in the past, one in the midst of it; both go on with what is new.
    let mut old = us.watch(before).await.expect("a watch");
    let mut young = store.connect("watch").await.watch(made[2]).await.expect("a watch");
    for n in 6..=10 {
        made.push(write(&us, vec![put("k", &n.to_string())]).await);
    }
    for (n, modified) in (1..).zip(&made) {
        expected.push(Event::Put(Entry {
            key: "k".into(),
            value: n.to_string().into_bytes(),
            created: before,
            modified: *modified,
            lease: None,
        }));
    }
    for (n, event) in expected.iter().enumerate() {
        assert_eq!(next(&mut old).await, *event);
        if n >= 3 {
            assert_eq!(next(&mut young).await, *event);
        }
    }
}

async fn a_watch_sees_leases_end(store: &dyn Store) {
    let us = store.connect("ends").await;
    let (_, _, put) = write_leased(&us, &["leader"]).await;
    let mut watch = us.watch(put).await.expect("a watch");
    // Nobody reads or writes meanwhile: the store itself must notice.
    match next(&mut watch).await {
        Event::Deleted(key, revision) => assert!(key == "leader" && revision > put),
        other => panic!("{other:?}"),
    }
}

async fn a_watch_can_be_asked_again_after_giving_up(store: &dyn Store) {
    let us = store.connect("cancelled").await;
    let mut known = us.read().await.expect("a read").revision;
    let mut watch = us.watch(known).await.expect("a watch");
    for n in 0..20 {
        // A `select` that another branch wins: before the event, and while it arrives.
        let early = timeout(Duration::from_millis(n % 4), watch.next()).await;
        assert!(early.is_err(), "{early:?}");
        let wrote = write(&us, vec![put("k", &n.to_string())]).await;
        let event = loop {
            if let Ok(event) = timeout(Duration::from_millis(1), watch.next()).await {
                break event;
            }
        };
        match event {
            Event::Put(entry) => assert_eq!(entry.modified, wrote),
            other => panic!("{other:?}"),
        }
        assert!(wrote > known);
        known = wrote;
    }
}

async fn a_forgotten_past_breaks_the_watch(store: &dyn Store) {
    let us = store.connect("forgotten").await;
    let first = write(&us, vec![put("k", "0")]).await;
    for n in 1..=5 {
        write(&us, vec![put("k", &n.to_string())]).await;
    }
    store.forget_history().await;
    let mut watch = us.watch(first).await.expect("it breaks, it does not fail");
    for _ in 0..2 {
        let event = next(&mut watch).await;
        assert!(matches!(event, Event::Broken(_)), "{event:?}");
    }
    // The way out: read, and watch from there.
    let mut watch = us.watch(us.read().await.expect("a read").revision).await.expect("a watch");
    write(&us, vec![delete("k")]).await;
    assert!(matches!(next(&mut watch).await, Event::Deleted(..)));
}
