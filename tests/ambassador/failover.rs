//! Clients that connect anew all the time, while the leader dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mainstay_chaos::live::cluster::Plan;
use mainstay_chaos::live::{PATIENCE, Service, ports};
use mainstay_chaos::workload::Client;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proxy::patiently;
use crate::support::{binary, can_run, led_by_a};

const CLIENTS: usize = 200;

/// One connection and one write through it.
async fn write_once(port: u16) -> Result<(), String> {
    let mut client = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|error| format!("not connected: {error}"))?;
    let mut answer = [0; 5];
    let talk = async {
        client.write_all(b"SET key value\r\n").await?;
        client.read_exact(&mut answer).await
    };
    let done = tokio::time::timeout(PATIENCE, talk).await;
    done.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    match &answer {
        b"+OK\r\n" => Ok(()),
        other => Err(String::from_utf8_lossy(other).into_owned()),
    }
}

/// What began after the leader was dead fails for nobody: it takes longer, that is all. What was
/// under way when it died may fail, once, at once.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_that_connect_anew_feel_a_delay() {
    if !can_run("two_hundred_clients_that_connect_anew_feel_a_delay") {
        return;
    }
    let mut plan = Plan::new(binary(), Service::Redis);
    plan.ttl = "3s".to_owned();
    let mut cluster = led_by_a(&plan, |_| {}).await;
    cluster.start_ambassador().expect("the ambassador starts");
    let port = cluster.port;
    patiently("the ambassador", async || Client::connect(Service::Redis, port).await.ok()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let (mut failures, mut longest) = (Vec::new(), Duration::ZERO);
                while !stop.load(SeqCst) {
                    let began = Instant::now();
                    match write_once(port).await {
                        Ok(()) => drop(served.fetch_add(1, SeqCst)),
                        Err(error) => failures.push((began, error)),
                    }
                    longest = longest.max(began.elapsed());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                (failures, longest)
            })
        })
        .collect();
    let advance = async |by: usize| {
        let before = served.load(SeqCst);
        patiently("writes", async || (served.load(SeqCst) >= before + by).then_some(())).await;
    };
    advance(5 * CLIENTS).await;
    cluster.node("a").expect("a").kill();
    let killed = Instant::now();
    advance(5 * CLIENTS).await;
    stop.store(true, SeqCst);
    let (mut longest, mut cut) = (Duration::ZERO, 0);
    for client in clients {
        let (failures, delay) = client.await.expect("no panic");
        longest = longest.max(delay);
        cut += failures.len();
        let late: Vec<_> = failures.iter().filter(|(began, _)| *began > killed).collect();
        assert!(late.is_empty(), "{late:?}\n{}", cluster.last_words());
    }
    #[expect(clippy::print_stdout, reason = "for whoever looks how long it takes")]
    {
        println!("{cut} were under way when the leader died; the longest waited {longest:?}");
    }

    // A replica takes an ambassador on while it runs.
    let beside = ports::free().expect("a port");
    let replica = cluster.node("b").expect("b");
    let mut config = std::fs::read_to_string(replica.config()).expect("read");
    config += &format!("[ambassador]\nlisten = \"127.0.0.1:{beside}\"\n");
    std::fs::write(replica.config(), config).expect("written");
    replica.process().expect("it runs").signal(Signal::HUP);
    patiently("an ambassador beside b", async || write_once(beside).await.ok()).await;
}
