//! One forwarded connection, on socket pairs.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::direction::{Direction, Ended};
use crate::conn::Conn;

const PATIENCE: Duration = Duration::from_secs(60);

/// A sink that takes little at a time: what it leaves is kept, and follows in order, whether
/// bytes are copied or spliced.
#[tokio::test]
async fn nothing_is_lost_to_a_narrow_sink() {
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    for splice in [false, true] {
        let (mut client, from) = UnixStream::pair().expect("a pair");
        let (to, mut service) = UnixStream::pair().expect("a pair");
        socket2::SockRef::from(&to).set_send_buffer_size(4096).expect("a small buffer");
        let (mut from, mut to) = (Conn::Unix(from), Conn::Unix(to));
        let bytes = sent.clone();
        let sending = tokio::spawn(async move {
            client.write_all(&bytes).await.expect("sent");
            // Ends by being dropped.
        });
        let mut direction = Direction::new(b"first".to_vec(), splice);
        let forwarding = tokio::spawn(async move {
            let ended = poll_fn(|cx| direction.poll(cx, &mut from, &mut to, false)).await;
            assert_eq!(ended, Ended::Finished);
            direction.moved
        });
        let mut got = Vec::new();
        let reading = tokio::time::timeout(PATIENCE, service.read_to_end(&mut got));
        reading.await.expect("in time").expect("unbroken");
        sending.await.expect("the sender");
        assert!(got.starts_with(b"first") && got[5..] == sent, "spliced: {splice}");
        assert_eq!(forwarding.await.expect("the forwarder"), got.len() as u64);
    }
}
