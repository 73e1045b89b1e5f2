//! The ambassador's numbers over HTTP: a page for people at `/ambassador`, the same as JSON at
//! `/ambassador.json`. Beside a replica they are part of its API; an ambassador alone has one of its
//! own, with the page at `/` too, and `/metrics` and `/health`.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Response, StatusCode};
use mainstay_ambassador::{Ambassador, Stats, prometheus_text, status_page};
use tokio::net::TcpListener;

use super::{JSON, Limits, PROMETHEUS, TEXT, accept, respond};

const HTML: &str = "text/html; charset=utf-8";

/// Answers for an ambassador alone; `further` metrics go with its own. For ever.
pub async fn serve(
    listener: TcpListener,
    ambassador: Arc<Ambassador>,
    further: impl Fn() -> String + Clone + Send + 'static,
    limits: Limits,
) {
    let answers = move |method: &Method, path: &str| {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered here\n");
        }
        match path {
            // That it answers is all there is to say: who leads is each route's own matter.
            "/health" => respond(StatusCode::OK, TEXT, "forwarding\n"),
            "/metrics" => {
                let text = prometheus_text(&ambassador.stats()) + &further();
                respond(StatusCode::OK, PROMETHEUS, text)
            }
            path => {
                let path = if path == "/" { PAGE } else { path };
                page(path, &ambassador.stats()).unwrap_or_else(|| {
                    let known = "ask for /, /ambassador.json, /metrics or /health\n";
                    respond(StatusCode::NOT_FOUND, TEXT, known)
                })
            }
        }
    };
    accept(&listener, limits, answers).await;
}

const PAGE: &str = "/ambassador";

/// The answer to `path`, if it asks for an ambassador's numbers.
pub(super) fn page(path: &str, stats: &Stats) -> Option<Response<Full<Bytes>>> {
    match path {
        PAGE => Some(respond(StatusCode::OK, HTML, status_page(stats))),
        "/ambassador.json" => {
            let json = serde_json::to_string(stats).expect("its keys are strings");
            Some(respond(StatusCode::OK, JSON, json))
        }
        _ => None,
    }
}
