//! The API, asked over a socket.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn snapshot(condition: Condition) -> Arc<Snapshot> {
    let status = "{\"epoch\":7}".to_owned();
    let (metrics, at) = ("m 1\n".to_owned(), Instant::now());
    Arc::new(Snapshot { condition, status, metrics, attestation: None, ambassador: None, at })
}

async fn start(
    condition: Condition,
    limits: Limits,
) -> (std::net::SocketAddr, watch::Sender<Arc<Snapshot>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (publish, snapshots) = watch::channel(snapshot(condition));
    tokio::spawn(serve(listener, snapshots, limits));
    (address, publish)
}

async fn ask(address: std::net::SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    answer
}

async fn code(address: std::net::SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path}")).await[9..12].to_owned()
}

#[tokio::test]
async fn each_condition_has_its_codes() {
    let (address, publish) = start(Condition::Leading, Limits::default()).await;
    assert_eq!([code(address, "/health").await, code(address, "/leader").await], ["200", "200"]);
    publish.send_replace(snapshot(Condition::Following));
    assert_eq!([code(address, "/health").await, code(address, "/leader").await], ["200", "503"]);
    publish.send_replace(snapshot(Condition::Unwell("its disk fails".into())));
    assert_eq!([code(address, "/health").await, code(address, "/leader").await], ["503", "503"]);
    assert!(ask(address, "GET /health").await.ends_with("its disk fails\n"));
}

#[tokio::test]
async fn status_and_metrics_are_the_snapshots() {
    let (address, _publish) = start(Condition::Leading, Limits::default()).await;
    let status = ask(address, "GET /status").await;
    assert!(status.contains("application/json") && status.ends_with("{\"epoch\":7}"), "{status}");
    assert!(ask(address, "GET /metrics").await.ends_with("m 1\n"));
    assert_eq!(code(address, "/other").await, "404");
    assert_eq!(ask(address, "POST /status").await[9..12], *"405");
}

#[tokio::test]
async fn a_replica_that_tells_nothing_is_not_well() {
    let limits = Limits { snapshot_age_max: Duration::ZERO, ..Limits::default() };
    let (address, _publish) = start(Condition::Leading, limits).await;
    assert_eq!(code(address, "/leader").await, "503");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let (address, _publish) = start(Condition::Leading, Limits::default()).await;
    let long = format!("GET /{}", "x".repeat(4 * HEAD_BYTES_MAX));
    let answer = ask_raw(address, &long).await;
    assert!(answer.is_empty() || !answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// As [`ask`], for requests whose connection may be reset in the middle.
async fn ask_raw(address: std::net::SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer));
    let _ = read.await.expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn those_who_say_nothing_give_their_places_back() {
    let limits =
        Limits { connections_max: 2, head_within: Duration::from_millis(200), ..Limits::default() };
    let (address, _publish) = start(Condition::Leading, limits).await;
    let mut idlers = Vec::new();
    for _ in 0..8 {
        idlers.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(code(address, "/health").await, "200");
}

#[tokio::test]
async fn an_ambassador_shows_its_numbers_alone_and_beside_a_replica() {
    use mainstay_ambassador::{Ambassador, RouteConfig, Settings, Source, UpstreamsConfig};
    let upstreams = Source::Upstreams(UpstreamsConfig::new(vec!["127.0.0.1:1".parse().unwrap()]));
    let route = RouteConfig::new("a-route", "127.0.0.1:0".parse().unwrap(), upstreams);
    let running = Ambassador::start(Settings { threads: 1, ..Settings::default() }, vec![route]);
    let running = Arc::new(running.unwrap());

    let (address, publish) = start(Condition::Following, Limits::default()).await;
    assert_eq!(code(address, "/ambassador").await, "404");
    let mut beside = (*snapshot(Condition::Following)).clone();
    beside.ambassador = Some(Arc::new(running.stats()));
    publish.send_replace(Arc::new(beside));
    let page = ask(address, "GET /ambassador").await;
    assert!(page.contains("text/html") && page.contains("a-route"), "{page}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alone = listener.local_addr().unwrap();
    let serving = ambassador::serve(listener, running, || "more 1\n".into(), Limits::default());
    tokio::spawn(serving);
    let page = ask(alone, "GET /").await;
    assert!(page.contains("text/html") && page.contains("a-route"), "{page}");
    let json = ask(alone, "GET /ambassador.json").await;
    let json: serde_json::Value =
        serde_json::from_str(json.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(json["routes"][0]["name"], "a-route");
    let metrics = ask(alone, "GET /metrics").await;
    assert!(metrics.contains("mainstay_ambassador_open_now") && metrics.ends_with("more 1\n"));
    assert_eq!([code(alone, "/health").await, code(alone, "/x").await], ["200", "404"]);
    assert_eq!(ask(alone, "DELETE /").await[9..12], *"405");
}
