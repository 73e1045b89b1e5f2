//! The least HTTP server that a load generator accepts: `http LISTEN`.
//!
//! Answers every request without a body with the same 128 bytes, and keeps the connection unless
//! the request says `HTTP/1.0` or `Connection: close`. For benchmarks; it parses no more than that.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const BODY: [u8; 128] = [b'.'; 128];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::args().nth(1).ok_or("usage: http LISTEN")?.parse()?;
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener: TcpListener = socket.listen(4096)?;
    loop {
        let (conn, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A client that breaks off is no failure of the server's.
            let _ = serve(conn).await;
        });
    }
}

async fn serve(mut conn: TcpStream) -> std::io::Result<()> {
    conn.set_nodelay(true)?;
    let mut seen = Vec::with_capacity(1024);
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BODY.len()).into_bytes();
    answer.extend_from_slice(&BODY);
    loop {
        while let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
            let last = head.contains("http/1.0") || head.contains("connection: close");
            seen.drain(..end + 4);
            conn.write_all(&answer).await?;
            if last {
                return conn.shutdown().await;
            }
        }
        if conn.read_buf(&mut seen).await? == 0 {
            return Ok(());
        }
    }
}
