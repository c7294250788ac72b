//! The first phase of a pod's end: no new deliveries, everything else as ever.
//!
//! A native sidecar gets SIGTERM only after the application's containers ended. That its pod ends it hears from its
//! `preStop` hook, `ackwelld drain`: one HTTP request to the loopback address, answered at once. The application goes on
//! with what it holds, sends and settles; SIGTERM is the second phase.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use tokio_util::sync::CancellationToken;

/// Beside the API, on loopback: who reaches it can also settle what the application holds.
const PATH: &str = "/drain";
/// The kubelet takes the hook's time from the pod's grace period.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Of an answer; its first line is read.
const MAX_ANSWER_BYTES: u64 = 1024;

/// Where the process is told that its pod ends.
pub(crate) fn routes(draining: CancellationToken) -> Router {
    let drain = async move || {
        if !draining.is_cancelled() {
            tracing::info!("told to drain: no more deliveries");
            draining.cancel();
        }
        "draining\n"
    };
    Router::new().route(PATH, post(drain))
}

/// Tells the sidecar at `address` that its pod ends; returns when it knows.
///
/// # Errors
///
/// When none answers within a second.
pub fn tell(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let head =
        format!("POST {PATH} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&answer);
    let line = answer.lines().next().unwrap_or_default();
    Err(io::Error::other(format!("what listens on {address} is no sidecar that can drain: {line:?}")))
}
