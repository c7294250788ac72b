//! The broker: drives the engine and serves it over gRPC.
//!
//! [`run`] wires it: [`shard`] owns the engine on a thread of its own, [`service`] translates gRPC, [`served`] knows which
//! queues there are. The broker knows nothing of Kubernetes, and nothing of other shards but their addresses.

mod access;
mod convert;
mod keys;
mod metrics;
mod mover;
mod refusal;
mod served;
mod service;
mod settings;
mod shard;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use ackwell_engine::store::MAX_ROWS;
use ackwell_proto::v1::{self, QueueConfig};
use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tracing::info;

use crate::answering::Answering;
use crate::calls::CountCalls;
use crate::http::{self, Probes};
use crate::json;
use crate::receiving::Receiving;
use crate::tls::{self, Identity, Peers, ServerFiles};
use served::Queues;
use service::{Counts, Progress, Service};
use shard::{Job, Place, Shard};

/// How long open calls may take to end once the process is told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// A peer that does not answer a ping for this long is gone, and so is its hold on messages.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// Calls of one connection at once; a connection is one sidecar with all its application's calls.
const MAX_STREAMS_PER_CONNECTION: u32 = 1024;
/// Request headers: the API needs less than 1 KiB, traces and tokens some more.
const MAX_HEADER_LIST_BYTES: u32 = 64 << 10;

/// How a broker runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the store; made when missing.
    pub data: PathBuf,
    /// Rows of messages in memory; the others are read from disk when they are needed.
    pub max_rows: usize,
    /// Folder of the keys that the store is sealed with; `None`: it is in clear.
    pub encryption_keys: Option<PathBuf>,
    /// gRPC.
    pub listen: SocketAddr,
    /// Health and metrics over HTTP; `None`: not served.
    pub http: Option<SocketAddr>,
    /// What callers are shown; `None`: plain, for one machine only.
    pub tls: Option<ServerFiles>,
    /// For queue names without a namespace.
    pub namespace: String,
    /// Which of its queues' shards this is; `None`: there is no other.
    pub ordinal: Option<u32>,
    /// Authorities of the other shards' certificates; `None`: they show none, or no messages move.
    pub broker_ca: Option<PathBuf>,
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
    let peers = Peers::new(options.tls.clone(), options.broker_ca);
    let counts = Counts::new(peers.clone());
    let identity = options.tls.map(Identity::load).transpose().context("load the TLS certificate")?;
    let followed = options.encryption_keys.map(|folder| keys::follow(folder, &options.data)).transpose()?;
    let keys = followed.as_ref().map(|followed| followed.keys.clone());
    let (shard, thread) = shard::start(Place { folder: options.data, max_rows: options.max_rows, keys })?;
    let queues = Queues::new(&options.namespace, options.ordinal);
    for config in options.queues {
        let name = format!("{}/{}", config.namespace, config.name);
        queues.add(&shard, config).await.with_context(|| format!("configure queue {name}"))?;
    }
    let (stopping, sessions) = (CancellationToken::new(), TaskTracker::new());
    let receiving = Receiving::new();
    let reports = mover::start(&shard, &queues, &stopping, (&sessions, peers.clone()));
    let service = Service {
        shard: shard.clone(),
        queues,
        stopping,
        sessions,
        receiving,
        answering: Answering::default(),
        counts,
        reports,
        peers,
        backups: Progress::default(),
    };
    let listen = Listen { grpc: options.listen, identity, http: options.http };
    let served = serve(&service, listen, ready, shutdown).await;
    shard.tell(Job::Stop).await;
    thread.join().await;
    info!("the store is closed");
    served
}

/// Where to listen, and what to show there.
struct Listen {
    grpc: SocketAddr,
    identity: Option<Identity>,
    http: Option<SocketAddr>,
}

async fn serve(
    service: &Service,
    listen: Listen,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let Listen { grpc: address, identity, http } = listen;
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("listen on {address} for gRPC"))?;
    let address = listener.local_addr().context("read the gRPC address")?;
    let probes = probe(service, http).await?;
    let server = tokio::spawn(grpc(service, listener, identity)?);
    info!(%address, "serving");
    ready(address);
    tokio::select! {
        () = shutdown => {}
        ended = probes => return ended.context("serve health and metrics"),
        () = service.shard.ended() => anyhow::bail!("the engine's thread ended"),
    }
    service.shard.tell(Job::Drain).await;
    service.stopping.cancel();
    let ended = async {
        let joined = server.await;
        service.sessions.close();
        service.sessions.wait().await;
        joined
    };
    // Streams that outlive the grace are cut; their consumers return with what they hold.
    match tokio::time::timeout(STOP_GRACE, ended).await {
        Ok(joined) => joined.context("join the gRPC server")?,
        Err(_) => Ok(()),
    }
}

fn grpc(
    service: &Service,
    listener: TcpListener,
    identity: Option<Identity>,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<>> {
    let (_, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .build_v1()
        .context("read the API's descriptors")?;
    let routes = service.routes().add_service(health).add_service(reflection);
    let routes = json::beside(routes, service.clone());
    let stopping = service.stopping.clone().cancelled_owned();
    let server = Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .layer(CountCalls)
        .layer(service.receiving.clone())
        .layer(service.answering.clone())
        .add_routes(routes)
        .serve_with_incoming_shutdown(tls::accept(listener, identity), stopping);
    Ok(async move { server.await.context("serve gRPC") })
}

/// Serves health and metrics; the future ends only with an error.
async fn probe(
    service: &Service,
    address: Option<SocketAddr>,
) -> anyhow::Result<impl Future<Output = std::io::Result<()>> + use<>> {
    let listener = match address {
        Some(address) => {
            let bound = TcpListener::bind(address).await;
            Some(bound.with_context(|| format!("listen on {address} for health and metrics"))?)
        }
        None => None,
    };
    let probes = probes(service);
    Ok(async move {
        match listener {
            Some(listener) => http::serve(listener, probes).await,
            None => std::future::pending().await,
        }
    })
}

fn probes(service: &Service) -> Probes {
    let shard: Shard = service.shard.clone();
    let service = service.clone();
    Probes {
        is_ready: Arc::new(move || shard.is_ready()),
        metrics: Arc::new(move || {
            let service = service.clone();
            Box::pin(async move { metrics::text(&service).await })
        }),
    }
}
