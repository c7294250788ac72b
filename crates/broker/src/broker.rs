//! The broker: drives the engine and serves it over gRPC.

use std::net::SocketAddr;
use std::path::PathBuf;

use ackwell_proto::v1::QueueConfig;

/// How a broker runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the store; made when missing.
    pub data: PathBuf,
    /// gRPC.
    pub listen: SocketAddr,
    /// Health and metrics over HTTP; `None`: not served.
    pub http: Option<SocketAddr>,
    /// For queue names without a namespace.
    pub namespace: String,
    /// Queues to serve. Queues that the store knows and this list lacks stay stored and are not served.
    pub queues: Vec<QueueConfig>,
}

/// Serves until `shutdown` resolves, then stops granting, finishes the batch and closes the store.
/// `ready` is told the bound gRPC address once calls are served.
pub async fn run(
    options: Options,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let _ = (options, ready, shutdown);
    anyhow::bail!("not built yet")
}
