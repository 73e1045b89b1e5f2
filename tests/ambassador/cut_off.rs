//! An ambassador in a network of its own, with one link to the coordinator and another to the
//! service, and a real etcd. Who leads is written into it by hand.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use mainstay_chaos::live::{PATIENCE, until};
use mainstay_election::coordinator::{Coordinator, Write};
use mainstay_election::values::{self, Durability, Epoch, encode, keys};
use mainstay_election::view::View;
use mainstay_election::{EtcdOptions, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::proxy::{Ambassador, Greeter, echoes, hears, patiently};
use crate::support::{has, skip};

const TEST: &str =
    "cut_off::an_ambassador_without_a_coordinator_forwards_to_nobody_it_cannot_trust";
const INSIDE: &str = "MAINSTAY_TEST_INSIDE";
const TTL: Duration = Duration::from_secs(2);

/// A process that ends with this.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(words: &str) {
    let mut words = words.split_whitespace();
    let status = Command::new(words.next().expect("a program")).args(words.clone()).status();
    assert!(status.expect("it runs").success(), "{words:?}");
}

/// Our namespace has the coordinator and the services; the ambassador's is another one.
struct Net {
    holder: Ends,
}

impl Net {
    fn new() -> Net {
        run("ip link set lo up");
        let holder = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn();
        let net = Net { holder: Ends(holder.expect("unshare runs")) };
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let pid = net.holder.0.id().to_string();
        while namespace(&pid) == namespace("self") {
            std::thread::sleep(Duration::from_millis(5));
        }
        net.inside("ip link set lo up");
        for (link, subnet) in [("coord", 1), ("data", 2)] {
            run(&format!("ip link add {link} type veth peer name {link}-in netns {pid}"));
            run(&format!("ip addr add 10.99.{subnet}.1/24 dev {link}"));
            run(&format!("ip link set {link} up"));
            net.inside(&format!("ip addr add 10.99.{subnet}.2/24 dev {link}-in"));
            net.inside(&format!("ip link set {link}-in up"));
        }
        net
    }

    fn enter(&self) -> Vec<String> {
        let pid = self.holder.0.id().to_string();
        ["nsenter", "--target", &pid, "--net"].map(str::to_owned).into()
    }

    fn inside(&self, words: &str) {
        run(&format!("{} {words}", self.enter().join(" ")));
    }

    /// The link to the coordinator.
    fn link(&self, state: &str) {
        self.inside(&format!("ip link set coord-in {state}"));
    }
}

fn etcd(folder: &std::path::Path) -> Ends {
    let urls = "http://127.0.0.1:2379,http://10.99.1.1:2379";
    let peers = "http://127.0.0.1:2380";
    let child = Command::new("etcd")
        .args(["--name", "one", "--data-dir"])
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", urls, "--advertise-client-urls", urls])
        .args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers])
        .args(["--initial-cluster", &format!("one={peers}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Ends(child.expect("etcd runs"))
}

/// Writes who leads, as a leader that takes over does: all in one transaction.
async fn lead(coordinator: &dyn Coordinator, epoch: u64, durability: Durability, at: &str) {
    let (node, nonce): (values::NodeName, _) = ("a".parse().unwrap(), values::Nonce([1; 16]));
    let volume = values::VolumeId([2; 16]);
    let taken = values::EpochTaken { epoch: Epoch(epoch), nonce, holder: node.clone() };
    let leader = values::Leader {
        node: node.clone(),
        volume,
        epoch: Epoch(epoch),
        peer: "10.99.2.1:7400".to_owned(),
        service: Some(at.to_owned()),
        ready: true,
        nonce,
    };
    let config = serde_json::json!({
        "cluster": "03".repeat(16), "voters": [], "write_quorum": 2, "durability": durability,
        "max_lag": {}, "eligible": [], "lineage": [], "degraded": false, "version": 1,
    });
    let replica = serde_json::json!({
        "node": "a", "volume": volume, "peer": "10.99.2.1:7400", "api": "0.0.0.0:7480",
        "role": "leader", "state": "", "position": { "epoch": epoch, "seq": 1 }, "applied": 1,
        "head": 1, "lag": values::Lag::default(), "promised": epoch, "building": false, "time": 0,
        "version": "", "tags": values::Tags::default(),
    });
    let put = |key: &str, value: Vec<u8>| Write::Put(key.to_owned(), value, None);
    let writes = vec![
        put(keys::EPOCH, encode(&taken)),
        put(keys::LEADER, encode(&leader)),
        put(keys::CONFIG, serde_json::to_vec(&config).unwrap()),
        put(&keys::replica(&node), serde_json::to_vec(&replica).unwrap()),
    ];
    until("a new leader's key", PATIENCE, Duration::from_millis(100), async || {
        coordinator.transact(Vec::new(), writes.clone()).await.ok()
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

/// A leader's API, which attests while it may; counts how often it was asked.
async fn attests(epoch: u64) -> (Arc<AtomicBool>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("10.99.2.1:7480").await.expect("a port");
    let (may, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let told = (Arc::clone(&may), Arc::clone(&asked));
    tokio::spawn(async move {
        while let Ok((mut conn, _)) = listener.accept().await {
            let _ = conn.read(&mut [0; 1024]).await;
            let body = format!("{{\"service\":\"db\",\"epoch\":{epoch},\"fresh_ms\":1500}}");
            let answer = match told.0.load(SeqCst) {
                true => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
                false => "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            let _ = conn.write_all(answer.as_bytes()).await;
            told.1.fetch_add(1, SeqCst);
        }
    });
    (may, asked)
}

async fn connected(greeting: &str) -> TcpStream {
    patiently(greeting, async || {
        let mut client = TcpStream::connect("10.99.2.2:6432").await.ok()?;
        hears(&mut client, greeting).await.ok().map(|()| client)
    })
    .await
}

async fn is_cut(client: &mut TcpStream) {
    let ended = tokio::time::timeout(PATIENCE, client.read(&mut [0])).await;
    let error = ended.expect("it is not left hanging").expect_err("no end, but a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn an_ambassador_without_a_coordinator_forwards_to_nobody_it_cannot_trust() {
    if !rustix::process::geteuid().is_root() {
        return skip(TEST, "not root");
    }
    if !["etcd", "ip", "unshare", "nsenter"].iter().all(|program| has(TEST, program)) {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        let again = Command::new("unshare")
            .arg("--net")
            .arg(std::env::current_exe().expect("this program"))
            .args([TEST, "--exact", "--nocapture"])
            .env(INSIDE, "1")
            .status();
        assert!(again.expect("unshare runs").success(), "see above");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("an event loop").block_on(inside());
}

async fn inside() {
    let folder = tempfile::tempdir().expect("a folder");
    let net = Net::new();
    let _etcd = etcd(folder.path());
    let address = "etcd://127.0.0.1:2379".parse().expect("an address");
    let options = EtcdOptions::default();
    let coordinator = connect(&address, &options, "db", TTL).await.expect("a client");
    let one = Greeter::start("10.99.2.1:0", "one").await;
    let two = Greeter::start("10.99.2.1:0", "two").await;
    lead(&*coordinator, 1, Durability::Async, &one.at.to_string()).await;
    let config = "service = \"db\"\ncoordination = \"etcd://10.99.1.1:2379\"\nttl = \"2s\"\n\
                  [ambassador]\nlisten = \"10.99.2.2:6432\"\nhold.timeout = \"10m\"\n";
    let _ambassador = Ambassador::start(folder.path(), &net.enter(), config);
    let mut client = connected("one").await;
    patiently("its key", async || {
        let view = View::parse(&coordinator.read().await.ok()?).ok()?;
        view.ambassadors.values().any(|one| one.value.forwards).then_some(())
    })
    .await;

    // Cut off, while another takes over. Its old leader's service still runs, and it reaches it.
    net.link("down");
    lead(&*coordinator, 2, Durability::Async, &two.at.to_string()).await;
    is_cut(&mut client).await;
    let greeted = one.greeted.load(SeqCst);
    let mut held = TcpStream::connect("10.99.2.2:6432").await.expect("held, and not refused");
    net.link("up");
    hears(&mut held, "two").await.expect("the new leader");
    assert_eq!(one.greeted.load(SeqCst), greeted, "somebody was led to the deposed leader");

    // In sync durability a leader's own word does as well, and nothing after it is taken back.
    let (may, asked) = attests(3).await;
    lead(&*coordinator, 3, Durability::Sync, &one.at.to_string()).await;
    let mut client = connected("one").await;
    net.link("down");
    let before = asked.load(SeqCst);
    // Each answer counts for 1.5 s, so this is several leases without the coordinator.
    patiently("attestations", async || (asked.load(SeqCst) > before + 24).then_some(())).await;
    echoes(&mut client).await;
    let mut late = TcpStream::connect("10.99.2.2:6432").await.expect("not refused");
    hears(&mut late, "one").await.expect("forwarded");
    may.store(false, SeqCst);
    is_cut(&mut client).await;
    is_cut(&mut late).await;

    // The coordinator has lost the leader, the leader not the quorum: it leads on by its word.
    may.store(true, SeqCst);
    net.link("up");
    let mut client = connected("one").await;
    let gone = vec![Write::Delete(keys::LEADER.to_owned())];
    coordinator.transact(Vec::new(), gone).await.expect("done");
    let before = asked.load(SeqCst);
    patiently("attestations", async || (asked.load(SeqCst) > before + 10).then_some(())).await;
    echoes(&mut client).await;
    may.store(false, SeqCst);
    is_cut(&mut client).await;
}
