//! What the tests stand on: services, routes, and patient waiting.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use mainstay_ambassador::{
    Address, Ambassador, Moment, RouteConfig, RouteState, RouteStats, Settings, Source,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Trust that outlasts any test.
pub const LONG: Duration = Duration::from_secs(3600);

pub fn settings() -> Settings {
    Settings { threads: 2, ..Settings::default() }
}

pub fn any_port() -> Address {
    "127.0.0.1:0".parse().expect("an address")
}

/// A route that follows what the sender says.
pub fn following(name: &str) -> (watch::Sender<RouteState>, RouteConfig) {
    let (says, hears) = watch::channel(RouteState::unknown());
    (says, RouteConfig::new(name, any_port(), Source::Leader(hears)))
}

/// A ready leader, trusted for the whole test.
pub fn leads(epoch: u64, at: SocketAddr) -> RouteState {
    RouteState {
        epoch,
        leader: Some(at.into()),
        ready: true,
        trusted_until: Moment::now() + LONG,
        ..RouteState::unknown()
    }
}

pub fn start(routes: Vec<RouteConfig>) -> Ambassador {
    Ambassador::start(settings(), routes).expect("the proxy starts")
}

pub fn door(ambassador: &Ambassador, route: &str) -> SocketAddr {
    match ambassador.address(route) {
        Some(Address::Tcp(tcp)) => tcp,
        other => panic!("route {route} listens on {other:?}"),
    }
}

pub async fn connect(to: SocketAddr) -> TcpStream {
    patiently("connecting", TcpStream::connect(to)).await.expect("a connection")
}

pub async fn patiently<T>(what: &str, done: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, done).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Polls until the condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    patiently(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub fn route(ambassador: &Ambassador, name: &str) -> RouteStats {
    let stats = ambassador.stats();
    stats.routes.into_iter().find(|route| route.name == name).expect("the route")
}

/// Waits until the route has heard of this epoch.
pub async fn heard(ambassador: &Ambassador, name: &str, epoch: u64) {
    until("hearing of the epoch", || {
        matches!(
            route(ambassador, name).target,
            mainstay_ambassador::RouteTarget::Leader { epoch: heard, .. } if heard == epoch
        )
    })
    .await;
}

/// A service that greets with its name and then echoes; dropped with the test's event loop.
pub struct Echo {
    pub at: SocketAddr,
    task: JoinHandle<()>,
}

impl Echo {
    pub async fn start(name: &'static str) -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Echo::on(listener, name)
    }

    pub fn on(listener: TcpListener, name: &'static str) -> Echo {
        let at = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            while let Ok((mut conn, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = conn.write_all(name.as_bytes()).await;
                    let (mut from, mut to) = conn.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                    let _ = to.shutdown().await;
                });
            }
        });
        Echo { at, task }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads exactly this.
pub async fn expect(conn: &mut (impl AsyncReadExt + Unpin), text: &str) {
    let mut read = vec![0; text.len()];
    patiently("reading", conn.read_exact(&mut read)).await.expect("the whole text");
    assert_eq!(String::from_utf8_lossy(&read), text);
}

/// Reads until the connection fails, and says how.
pub async fn failure(conn: &mut (impl AsyncReadExt + Unpin)) -> std::io::ErrorKind {
    let mut rest = Vec::new();
    match patiently("failing", conn.read_to_end(&mut rest)).await {
        Ok(_) => panic!("the connection ended without a failure, after {rest:?}"),
        Err(error) => error.kind(),
    }
}

/// Connects to a route that turns its clients away, which may show while connecting.
pub async fn refused(at: SocketAddr) -> std::io::ErrorKind {
    match patiently("connecting", TcpStream::connect(at)).await {
        Ok(mut client) => failure(&mut client).await,
        Err(error) => error.kind(),
    }
}

/// Sends and expects the same back.
pub async fn echo(conn: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), text: &str) {
    patiently("writing", conn.write_all(text.as_bytes())).await.expect("a living connection");
    expect(conn, text).await;
}
