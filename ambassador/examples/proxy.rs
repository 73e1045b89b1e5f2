//! A proxy to one static upstream: `proxy LISTEN UPSTREAM [THREADS]`. What the benchmark runs.

use std::time::Duration;

use mainstay_ambassador::{Ambassador, RouteConfig, Settings, Source, UpstreamsConfig};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (listen, upstream, threads) = match &args[..] {
        [listen, upstream] => (listen, upstream, None),
        [listen, upstream, threads] => (listen, upstream, Some(threads.parse()?)),
        _ => return Err("usage: proxy LISTEN UPSTREAM [THREADS]".into()),
    };
    let mut settings = Settings::default();
    settings.threads = threads.unwrap_or(settings.threads);
    let mut upstreams = UpstreamsConfig::new(vec![upstream.parse()?]);
    upstreams.check_interval = Duration::from_secs(3600);
    let route = RouteConfig::new("example", listen.parse()?, Source::Upstreams(upstreams));
    let ambassador = Ambassador::start(settings, vec![route])?;
    signal(SignalKind::terminate())?.recv().await;
    ambassador.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
