//! What a replica tells over HTTP: `/status` (JSON), `/health`, `/leader` and `/metrics`, for load
//! balancers, probes and Prometheus, and the ambassador's numbers ([`ambassador`]). It only reads;
//! nothing can be changed here.
//!
//! The replica publishes a [`Snapshot`] from time to time; requests are answered from the newest,
//! so a scrape never waits for the replica, and never slows it. If the replica stops publishing,
//! the answers say so.
//!
//! Hazard: whoever reaches the port may ask. Connections, their life and their headers are
//! bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mainstay_ambassador::Stats;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

pub mod ambassador;

/// Whether a replica does its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It leads, and the service answers.
    Leading,
    /// It follows a leader and keeps up its copy.
    Following,
    /// Neither, for this reason.
    Unwell(String),
}

/// What is told of a replica.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whether it does its part.
    pub condition: Condition,
    /// The report, as JSON ([`crate::status::Report::to_json`]).
    pub status: String,
    /// The metrics, as Prometheus reads them ([`crate::telemetry::metrics::Metrics::render`]).
    pub metrics: String,
    /// What this replica can attest of its leadership, as JSON, and until when; none if nothing.
    pub attestation: Option<Attestation>,
    /// The ambassador beside the replica, if there is one.
    pub ambassador: Option<Arc<Stats>>,
    /// When it was made.
    pub at: Instant,
}

/// That a write quorum holds this replica in office.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// Whose leader it is.
    pub service: String,
    /// In which epoch.
    pub epoch: u64,
    /// Until when a route may rest on it: a ttl, less the time it takes to kill the service, after
    /// the newest word that a write quorum has answered was said.
    pub until: Instant,
}

impl Attestation {
    /// As `GET /attest` answers, at this moment; none once it is over.
    fn to_json(&self) -> Option<String> {
        let left = self.until.checked_duration_since(Instant::now())?;
        let (service, epoch, fresh_ms) = (&self.service, self.epoch, left.as_millis() as u64);
        Some(
            serde_json::json!({ "service": service, "epoch": epoch, "fresh_ms": fresh_ms })
                .to_string(),
        )
    }
}

/// Bounds on what strangers can make of us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the listen queue.
    pub connections_max: usize,
    /// A connection's life, and hence the longest request's.
    pub connection_life: Duration,
    /// A request's head must be complete by then.
    pub head_within: Duration,
    /// An older snapshot means that the replica hangs.
    pub snapshot_age_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 64,
            connection_life: Duration::from_secs(60),
            head_within: Duration::from_secs(5),
            snapshot_age_max: Duration::from_secs(15),
        }
    }
}

/// A request's head may have so many bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// How long accepting pauses when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers on `listener` until the snapshots' sender is gone.
pub async fn serve(
    listener: TcpListener,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    limits: Limits,
) {
    let mut ends = snapshots.clone();
    let ended = async move { while ends.changed().await.is_ok() {} };
    let answers = move |method: &Method, path: &str| {
        let snapshot = Arc::clone(&snapshots.borrow());
        answer(method, path, &snapshot, limits)
    };
    tokio::select! {
        () = ended => {}
        () = accept(&listener, limits, answers) => {}
    }
}

/// What is answered to a method and a path.
trait Answers: Fn(&Method, &str) -> Response<Full<Bytes>> + Clone + Send + 'static {}
impl<A: Fn(&Method, &str) -> Response<Full<Bytes>> + Clone + Send + 'static> Answers for A {}

/// Takes connections for ever, within the bounds.
async fn accept(listener: &TcpListener, limits: Limits, answers: impl Answers) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let answers = answers.clone();
                tokio::spawn(async move {
                    let talk = converse(stream, answers, limits);
                    let _ = tokio::time::timeout(limits.connection_life, talk).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the API cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, answers: impl Answers, limits: Limits) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answers(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_within)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an API connection ended badly");
    }
}

fn answer(
    method: &Method,
    path: &str,
    snapshot: &Snapshot,
    limits: Limits,
) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered here\n");
    }
    let age = snapshot.at.elapsed();
    let condition = if age > limits.snapshot_age_max {
        let age_s = age.as_secs();
        Condition::Unwell(format!("the replica has told nothing for {age_s} s; it may hang"))
    } else {
        snapshot.condition.clone()
    };
    match path {
        "/attest" => match snapshot.attestation.as_ref().and_then(Attestation::to_json) {
            Some(said) => respond(StatusCode::OK, JSON, said),
            None => unavailable("no write quorum holds this replica in office"),
        },
        "/status" => respond(StatusCode::OK, JSON, snapshot.status.clone()),
        "/metrics" => respond(StatusCode::OK, PROMETHEUS, snapshot.metrics.clone()),
        "/health" => match condition {
            Condition::Leading => respond(StatusCode::OK, TEXT, "leading\n"),
            Condition::Following => respond(StatusCode::OK, TEXT, "following\n"),
            Condition::Unwell(why) => unavailable(&why),
        },
        "/leader" => match condition {
            Condition::Leading => respond(StatusCode::OK, TEXT, "leading\n"),
            Condition::Following => unavailable("it follows"),
            Condition::Unwell(why) => unavailable(&why),
        },
        _ => {
            let of_it = snapshot.ambassador.as_ref().and_then(|it| ambassador::page(path, it));
            let known = "ask for /status, /health, /leader, /metrics or /ambassador\n";
            of_it.unwrap_or_else(|| respond(StatusCode::NOT_FOUND, TEXT, known))
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn unavailable(why: &str) -> Response<Full<Bytes>> {
    respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n"))
}

fn respond(
    status: StatusCode,
    content: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content)
        // A cached "leading" would lead clients to a former leader.
        .header(CACHE_CONTROL, "no-store")
        .body(Full::new(body.into()))
        .expect("its headers are constants")
}

#[cfg(test)]
mod tests;
