//! Serving, and stopping without blame.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::DESCRIPTORS;
use ackwell_proto::v1::queue_admin_server::QueueAdminServer;
use ackwell_proto::v1::queues_server::QueuesServer;
use anyhow::Context as _;
use futures::future::join_all;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::drain;
use super::options::Options;
use super::retry::Deadline;
use super::service::{Service, Sidecar};
use super::shard_channel::MAX_MESSAGE_BYTES;
use super::{metrics, receive};
use crate::calls::CountCalls;
use crate::clock;
use crate::http::{self, Probes};
use crate::json;
use crate::receiving::Receiving;
use crate::tls::Trust;

/// An application that does not answer pings is stopped or frozen: its deliveries go to others.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls and streams of one application connection at once.
const MAX_CONCURRENT_CALLS: u32 = 1024;
/// A native sidecar is stopped last and may have no more than the rest of the pod's grace period.
const STOP_BUDGET: Duration = Duration::from_secs(5);
/// Calls that are under way settle first; those that still wait for a broker then hear that we leave. Below the two seconds that remain when the application took all of that period.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Serves until `shutdown` resolves, then gives back what the application did not settle.
/// `ready` is told the bound gRPC address once calls are served, whether or not any broker is up.
pub async fn run(
    options: Options,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let trust = Trust::load(options.broker_ca.clone(), options.token.clone());
    let trust = trust.context("load the authorities of the brokers, and the token for them")?;
    let listener = bind(options.listen).await?;
    let socket = options.unix_socket.as_deref().map(bind_socket).transpose()?;
    let probes = match options.http {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let address = listener.local_addr().context("reading the bound address")?;
    let stopping = CancellationToken::new();
    let sidecar = Arc::new(Sidecar::new(options, trust, TaskTracker::new(), stopping.clone()));
    let serving = serve(listener, socket, Arc::clone(&sidecar));
    let probing = probe(probes, Arc::clone(&sidecar));
    tokio::pin!(serving, probing);
    tracing::info!(%address, "sidecar serves");
    ready(address);
    tokio::select! {
        result = &mut serving => return result.context("serving gRPC"),
        result = &mut probing => return result.context("serving health and metrics"),
        () = shutdown => {}
    }
    stopping.cancel();
    stop(&sidecar, serving, Instant::now() + STOP_BUDGET).await;
    Ok(())
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

/// A socket file outlives its process, and keeps the next one from listening.
fn bind_socket(path: &Path) -> anyhow::Result<UnixListener> {
    let doing = || format!("listening on the socket {}", path.display());
    if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        std::fs::remove_file(path).with_context(doing)?;
    }
    let listener = UnixListener::bind(path).with_context(doing)?;
    // Applications have users of their own; who shall connect is decided by who has the folder.
    std::fs::set_permissions(path, Permissions::from_mode(0o666)).with_context(doing)?;
    Ok(listener)
}

async fn serve(
    listener: TcpListener,
    socket: Option<UnixListener>,
    sidecar: Arc<Sidecar>,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<QueuesServer<Service>>().await;
    health.set_serving::<QueueAdminServer<Service>>().await;
    let describe =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    let (draining, stopping) = (sidecar.draining.clone(), sidecar.stopping.clone());
    let service = Service(sidecar);
    let routes = Routes::new(QueuesServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(QueueAdminServer::new(service.clone()))
        .add_service(health_service)
        .add_service(describe().build_v1()?)
        .add_service(describe().build_v1alpha()?);
    let routes = Routes::from(routes.into_axum_router().merge(drain::routes(draining)));
    let routes = json::beside(routes, service);
    let server = Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(MAX_CONCURRENT_CALLS)
        .layer(CountCalls)
        .layer(Receiving::new())
        .add_routes(routes);
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    let over_tcp =
        server.clone().serve_with_incoming_shutdown(connections, stopping.clone().cancelled_owned());
    let over_socket = async move {
        let Some(socket) = socket else { return Ok(()) };
        let connections = UnixListenerStream::new(socket);
        server.serve_with_incoming_shutdown(connections, stopping.cancelled_owned()).await
    };
    tokio::try_join!(over_tcp, over_socket)?;
    Ok(())
}

/// Readiness says that this process serves, and that its pod does not end; it never depends on brokers, or an outage of
/// theirs would take the application out of its Services.
async fn probe(listener: Option<TcpListener>, sidecar: Arc<Sidecar>) -> anyhow::Result<()> {
    let Some(listener) = listener else { return std::future::pending().await };
    let draining = sidecar.draining.clone();
    let probes = Probes {
        is_ready: Arc::new(move || !draining.is_cancelled()),
        metrics: Arc::new(move || Box::pin(std::future::ready(metrics::text(&sidecar)))),
    };
    Ok(http::serve(listener, probes).await?)
}

/// The application's containers ended before this one was told to: nobody will settle what is still held.
async fn stop(sidecar: &Sidecar, serving: impl Future, until: Instant) {
    tokio::pin!(serving);
    let is_over = timeout(LAST_CALLS, &mut serving).await.is_ok();
    sidecar.leaving.cancel();
    let last_calls = async { is_over || timeout_at(until, serving).await.is_ok() };
    let (ended, ()) = tokio::join!(last_calls, release_held(sidecar, until));
    if !ended {
        tracing::warn!("calls were still open {STOP_BUDGET:?} after the signal");
    }
    sidecar.tasks.close();
    if timeout_at(until, sidecar.tasks.wait()).await.is_err() {
        tracing::warn!("some deliveries could not be given back in time; they return by their ack timeout");
    }
}

async fn release_held(sidecar: &Sidecar, until: Instant) {
    let deadline = Deadline::within(until.saturating_duration_since(Instant::now()));
    let queues = sidecar.router.queues();
    let releases =
        queues.iter().map(|queue| receive::release(queue, queue.held.take(clock::now().0), deadline));
    join_all(releases).await;
}
