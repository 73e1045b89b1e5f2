//! A new configuration, and a new process, under clients that must not notice either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use mainstay_chaos::live::ports;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::proxy::{Ambassador, Greeter, echoes, hears, patiently, send};

/// Clients that connect anew all the time; the first failure of one ends the test.
struct Crowd {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    fn start(port: u16) -> Crowd {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..4).map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let client = TcpStream::connect(("127.0.0.1", port)).await;
                    let mut client = client.expect("not refused");
                    hears(&mut client, "hi").await.expect("served");
                    served.fetch_add(1, SeqCst);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        });
        let clients = clients.collect();
        Crowd { stop, served, clients }
    }

    async fn advance(&self) {
        let before = self.served.load(SeqCst);
        patiently("traffic", async || (self.served.load(SeqCst) > before + 50).then_some(())).await;
    }

    async fn finish(self) {
        self.stop.store(true, SeqCst);
        for client in self.clients {
            client.await.expect("no client failed");
        }
    }
}

async fn ask(port: u16, path: &str) -> Option<String> {
    let mut api = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    api.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    api.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_reload_nor_a_restart_is_felt() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = Greeter::start("127.0.0.1:0", "hi").await;
    let [one, two, api] = [(); 3].map(|()| ports::free().expect("a port"));
    let (front, access) = (folder.path().join("front"), folder.path().join("access"));
    let moved = folder.path().join("access.1");
    let config = format!(
        "[ambassador]\naccess_log = \"{}\"\ndrain_timeout = \"1h\"\napi.listen = \"127.0.0.1:{api}\"\n\
         [[ambassador.route]]\nname = \"one\"\nlisten = \"127.0.0.1:{one}\"\nupstreams = [\"{at}\"]\n\
         [[ambassador.route]]\nname = \"unix\"\nlisten = \"unix:{}\"\nupstreams = [\"{at}\"]\n",
        access.display(),
        front.display(),
        at = service.at,
    );
    let mut ambassador = Ambassador::start(folder.path(), &[], &config);
    patiently("its door", async || TcpStream::connect(("127.0.0.1", one)).await.ok()).await;
    let crowd = Crowd::start(one);
    let mut lasting = TcpStream::connect(("127.0.0.1", one)).await.expect("a client");
    hears(&mut lasting, "hi").await.expect("greeted");
    crowd.advance().await;

    // A route more, and a log that was moved away.
    std::fs::rename(&access, &moved).expect("moved");
    let wider = format!(
        "{config}[[ambassador.route]]\nname = \"two\"\nlisten = \"127.0.0.1:{two}\"\n\
         upstreams = [\"{}\"]\n",
        service.at
    );
    std::fs::write(&ambassador.config, wider).expect("written");
    ambassador.signal(Signal::HUP);
    patiently("the new door", async || TcpStream::connect(("127.0.0.1", two)).await.ok()).await;
    crowd.advance().await;
    let line = std::fs::read_to_string(&access).expect("a log");
    let line: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).expect("JSON");
    assert!(line["route"] == "one" && line["bytes_out"] == 2, "{line}");
    assert!(std::fs::read_to_string(&moved).expect("a log").lines().count() >= 50);

    // What cannot be used changes nothing, whether it is to be taken on or to be started with.
    let good = std::fs::read_to_string(&ambassador.config).expect("read");
    std::fs::write(&ambassador.config, "ambassador = 3").expect("written");
    ambassador.signal(Signal::HUP);
    ambassador.says("the configuration stays as it was").await;
    ambassador.signal(Signal::USR2);
    ambassador.says("no successor; going on").await;
    crowd.advance().await;
    std::fs::write(&ambassador.config, good).expect("written");

    ambassador.signal(Signal::USR2);
    let said = ambassador.says("a successor accepts clients").await;
    let predecessor = i32::try_from(ambassador.child.id()).expect("a pid");
    let both = ambassador.running();
    assert_eq!(both.len(), 2, "{both:?} {said}");
    crowd.advance().await;
    echoes(&mut lasting).await;
    // The old one is there for its client, and only for that.
    assert!(ambassador.child.try_wait().expect("a child").is_none(), "{}", ambassador.words());
    drop(lasting);
    let ended = patiently("the old one's end", async || ambassador.child.try_wait().ok()?).await;
    assert!(ended.success(), "{ended} {}", ambassador.words());
    crowd.advance().await;
    crowd.finish().await;
    for port in [one, two] {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.expect("not refused");
        hears(&mut client, "hi").await.expect("served");
    }
    let mut unix = UnixStream::connect(&front).await.expect("its file is there");
    hears(&mut unix, "hi").await.expect("served");
    drop(unix);
    let page = ask(api, "/").await.expect("a page");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("unix"), "{page}");
    let metrics = ask(api, "/metrics").await.expect("metrics");
    assert!(metrics.contains("mainstay_ambassador_arrived_total{route=\"two\"} 1"), "{metrics}");

    let successor = both.into_iter().find(|pid| *pid != predecessor).expect("another");
    send(successor, Signal::TERM);
    patiently("its end", async || ambassador.running().is_empty().then_some(())).await;
    assert!(!front.exists(), "its socket's file stays behind");
}
