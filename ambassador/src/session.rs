//! One client from its arrival to its end.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;

use crate::access::{Access, AccessLog, End};
use crate::address::Address;
use crate::conn::Conn;
use crate::dial::dial;
use crate::forward::Forward;
use crate::proxy_protocol::{self, HEADER_MAX, Header, Parsed};
use crate::route::{ClientId, Event, Generation};
use crate::router::{Router, Verdict};

/// A PROXY header comes with a connection's first segment, or something is wrong.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves one client.
pub(crate) async fn serve(client: Conn, router: Arc<Router>, id: ClientId, log: AccessLog) {
    router.counters.arrived.fetch_add(1, Relaxed);
    let mut session = Session {
        id,
        arrived: Instant::now(),
        source: None,
        target: None,
        held: Duration::ZERO,
        connect: Duration::ZERO,
        bytes: (0, 0),
        logged: router.config.access_log && !matches!(log, AccessLog::Off),
        router: &router,
    };
    let end = session.run(client).await;
    router.counters.ended(end);
    if !session.logged {
        return;
    }
    log.tell(&Access {
        ended_unix_ms: unix_ms(),
        route: &router.config.name,
        client: session.source,
        target: session.target.as_ref(),
        held: session.held,
        connect: session.connect,
        total: session.arrived.elapsed(),
        bytes_in: session.bytes.0,
        bytes_out: session.bytes.1,
        end,
    });
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

struct Session<'a> {
    router: &'a Router,
    id: ClientId,
    arrived: Instant,
    source: Option<SocketAddr>,
    target: Option<Address>,
    held: Duration,
    connect: Duration,
    bytes: (u64, u64),
    logged: bool,
}

/// A client's place in its route's books. However its session ends, the route must know.
struct Entry<'a>(&'a Router, ClientId);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.0.left(self.1);
    }
}

impl Session<'_> {
    async fn run(&mut self, mut client: Conn) -> End {
        let config = &self.router.config;
        let _entry = Entry(self.router, self.id);
        let mut destination = None;
        if config.proxy_out.is_some() || self.logged {
            self.source = client.peer();
            destination = client.local();
        }
        let mut early = Vec::new();
        if config.proxy_in {
            match timeout(HEADER_TIMEOUT, read_header(&mut client, &mut early)).await {
                Ok(Some(Header::Tcp(from, to))) => {
                    (self.source, destination) = (Some(from), Some(to))
                }
                Ok(Some(Header::Unknown)) => (self.source, destination) = (None, None),
                Ok(None) | Err(_) => {
                    client.reset();
                    return End::BadHeader;
                }
            }
        }
        let reached = self.reach(&client).await;
        if !self.held.is_zero() {
            self.router.counters.held.fetch_add(1, Relaxed);
            self.router.counters.hold_time.record(self.held);
        }
        let (target, generation) = match reached {
            Ok(reached) => reached,
            Err(end) => {
                client.reset();
                return end;
            }
        };
        let mut first = early;
        if let Some(version) = config.proxy_out {
            let mut header = proxy_protocol::write(version, self.source, destination);
            header.append(&mut first);
            first = header;
        }
        let counters = (&self.router.counters.bytes_in, &self.router.counters.bytes_out);
        let mut forward = Forward::new(client, target, first, config.idle_timeout, counters);
        let end = tokio::select! {
            biased;
            () = self.router.cut(generation) => End::Cut,
            end = &mut forward => end,
        };
        self.bytes = (forward.bytes_in, forward.bytes_out);
        forward.close(end);
        end
    }

    /// Waits for a target and connects to it, again and again while the route says so.
    async fn reach(&mut self, client: &Conn) -> Result<(Conn, Generation), End> {
        let (router, config) = (self.router, &self.router.config);
        let mut event = Event::Arrive(self.id);
        loop {
            let asked = Instant::now();
            let (verdict, waited) = router.admit(self.id, client, event).await;
            if waited {
                self.held += asked.elapsed();
            }
            let (to, generation) = match verdict {
                Some(Verdict::Forward { to, generation }) => (to, generation),
                Some(Verdict::Refuse(reason)) => return Err(End::Refused(reason)),
                None => return Err(End::GaveUp),
            };
            let began = Instant::now();
            let dialled = tokio::select! {
                biased;
                () = router.cut(generation) => None,
                dialled = dial(&to, config.connect_timeout, config.keepalive) => Some(dialled),
            };
            event = match dialled {
                Some(Ok(target)) => {
                    self.connect = began.elapsed();
                    router.counters.connect_time.record(self.connect);
                    router.counters.connected.fetch_add(1, Relaxed);
                    self.target = Some(to);
                    return Ok((target, generation));
                }
                Some(Err(error)) => {
                    router.counters.unreached.fetch_add(1, Relaxed);
                    tracing::debug!(route = config.name, %to, %error, "cannot reach the target");
                    Event::Unreached(self.id)
                }
                None => Event::Overtaken(self.id),
            };
            self.target = Some(to);
        }
    }
}

/// Reads until there is a whole header; `early` takes what came after it. `None`: there is none.
async fn read_header(client: &mut Conn, early: &mut Vec<u8>) -> Option<Header> {
    let mut seen = Vec::new();
    let mut buffer = vec![0; HEADER_MAX];
    loop {
        let read = poll_fn(|cx| client.poll_read(cx, &mut buffer)).await.ok()?;
        seen.extend_from_slice(&buffer[..read]);
        match proxy_protocol::parse(&seen).ok()? {
            Parsed::Complete(header, used) => {
                early.extend_from_slice(&seen[used..]);
                return Some(header);
            }
            Parsed::Partial if read == 0 => return None,
            Parsed::Partial => {}
        }
    }
}
