//! Asks a leader, at its API, whether it still leads: `GET /attest`.
//!
//! The answer names service and epoch and says for how long nobody else can lead. It is not
//! authenticated, like all that is read at the API: the network between a service and its
//! ambassadors is trusted with the service's own traffic as well. What it must not do is to confuse
//! two leaders: an answer counts only if service and epoch are those that were asked for, so that
//! another process at an address that was handed on, or at a loopback address meant for another
//! machine, attests nothing.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use mainstay_ambassador::{Attested, Moment};
use mainstay_election::values::Epoch;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// An attestation is one short line.
const BODY_BYTES_MAX: usize = 4096;

/// Who can say that it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Witness {
    pub service: String,
    pub epoch: Epoch,
    /// Its API, as `host:port`.
    pub address: String,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Attestation {
    service: String,
    epoch: u64,
    /// From when it was asked.
    fresh_ms: u64,
}

/// Asks once. None: it does not attest, or not in time.
pub(super) async fn ask(witness: &Witness, ttl: Duration, within: Duration) -> Option<Attested> {
    // Before anything is sent: what it answers was true then or later.
    let sent = Moment::now();
    let answer = tokio::time::timeout(within, get(&witness.address)).await;
    match answer.map_err(|_| "no answer in time".into()).and_then(|answer| answer) {
        Ok(body) => judge(witness, &body, sent, ttl),
        Err(error) => {
            tracing::debug!(?witness, %error, "the leader does not attest");
            None
        }
    }
}

/// What an answer to a question that was sent at `sent` is worth: never more than a lease.
fn judge(witness: &Witness, body: &[u8], sent: Moment, ttl: Duration) -> Option<Attested> {
    let said: Attestation = serde_json::from_slice(body).ok()?;
    let is_meant = said.service == witness.service && said.epoch == witness.epoch.0;
    let fresh = Duration::from_millis(said.fresh_ms).min(ttl);
    is_meant.then_some(Attested { epoch: said.epoch, until: sent + fresh })
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn get(address: &str) -> Result<Bytes, Failure> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with this call, however that ends.
    let mut carried = JoinSet::new();
    carried.spawn(connection);
    let request = Request::get("/attest").header(HOST, address).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answers {}", response.status()).into());
    }
    Ok(Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await?.to_bytes())
}

/// Where an API that listens at `api` is reached: one that listens at every address of its machine
/// is where the replica's peers reach it.
pub(super) fn reachable(api: &str, peer: &str) -> Option<String> {
    match api.parse::<SocketAddr>() {
        Ok(listens) if listens.ip().is_unspecified() => {
            let (host, _) = peer.rsplit_once(':')?;
            Some(format!("{host}:{}", listens.port()))
        }
        _ => Some(api.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn witness(address: String) -> Witness {
        Witness { service: "db".to_owned(), epoch: Epoch(7), address }
    }

    fn until(body: &str) -> Option<Duration> {
        let sent = Moment::BOOT + Duration::from_secs(100);
        let attested = judge(&witness(String::new()), body.as_bytes(), sent, TTL)?;
        assert_eq!(attested.epoch, 7);
        Some(attested.until.since(sent))
    }

    #[test]
    fn only_the_epoch_and_service_that_were_asked_for_count_and_only_for_a_lease() {
        let good = r#"{"service":"db","epoch":7,"fresh_ms":900,"more":1}"#;
        assert_eq!(until(good), Some(Duration::from_millis(900)));
        assert_eq!(until(r#"{"service":"db","epoch":7,"fresh_ms":900000}"#), Some(TTL));
        assert_eq!(until(r#"{"service":"db","epoch":8,"fresh_ms":900}"#), None);
        assert_eq!(until(r#"{"service":"d","epoch":7,"fresh_ms":900}"#), None);
        assert_eq!(until("leading"), None);
    }

    #[test]
    fn an_api_at_every_address_is_reached_where_the_peer_is() {
        let at = |api: &str| reachable(api, "db-a.internal:7400").unwrap();
        assert_eq!(at("0.0.0.0:7480"), "db-a.internal:7480");
        assert_eq!(at("[::]:7480"), "db-a.internal:7480");
        assert_eq!(at("10.0.0.1:7480"), "10.0.0.1:7480");
    }

    async fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut conn, _) = listener.accept().await.unwrap();
            let mut asked = [0; 512];
            let read = conn.read(&mut asked).await.unwrap();
            assert!(asked[..read].starts_with(b"GET /attest HTTP/1.1\r\n"));
            conn.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn it_is_asked_over_http() {
        let yes = "HTTP/1.1 200 OK\r\ncontent-length: 44\r\n\r\n\
                   {\"service\":\"db\",\"epoch\":7,\"fresh_ms\":1000  }";
        let patience = Duration::from_secs(60);
        let began = Moment::now();
        let attested = ask(&witness(answering(yes).await), TTL, patience).await.unwrap();
        assert!(attested.until >= began + Duration::from_secs(1));
        let no = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(ask(&witness(answering(no).await), TTL, patience).await, None);
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_not_waited_for() {
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = mute.local_addr().unwrap().to_string();
        assert_eq!(ask(&witness(address), TTL, Duration::from_millis(50)).await, None);
    }
}
