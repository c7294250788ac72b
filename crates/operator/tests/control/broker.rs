//! Plays the brokers of all Queues: takes every setting, and has no messages. Notes what of it contradicts itself.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ackwell_api::names;
use ackwell_proto::v1::queue_admin_server::{QueueAdmin, QueueAdminServer};
use ackwell_proto::v1::shard_server::{Shard, ShardServer};
use ackwell_proto::v1::{
    ArriveRequest, ArriveResponse, BeginRestoreRequest, BeginRestoreResponse, BeginSnapshotRequest,
    CancelRequest, CancelResponse, ConfigureRequest, ConfigureResponse, ExplainRequest, ExplainResponse,
    GetRequest, GetResponse, ImportRequest, ImportResponse, Moving, PauseRequest, PauseResponse, PeekRequest,
    PeekResponse, Placement, PurgeRequest, PurgeResponse, ReadSnapshotRequest, ReadSnapshotResponse,
    RedriveRequest, RedriveResponse, RestorePageRequest, RestorePageResponse, RouteRequest, RouteResponse,
    RunTaskRequest, RunTaskResponse, Snapshot, StatsRequest, StatsResponse,
};
use anyhow::Context;
use futures::StreamExt;
use futures::stream::{BoxStream, once, pending};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::tasks;

/// Serves until the process ends, with the certificate of whichever broker is called.
pub(crate) async fn serve(address: SocketAddrV4, client: &Client) {
    let listener = TcpListener::bind(address).await.expect("no other run of these tests has the address");
    let calls = TcpListenerStream::new(listener).then(|call| accept(call, client.clone()));
    // One that cannot be served is tried again by the operator.
    let calls = calls.filter_map(async |call| call.ok().map(Ok::<_, std::io::Error>));
    let served = Server::builder()
        .add_service(ShardServer::new(Broker))
        .add_service(QueueAdminServer::new(Broker))
        .serve_with_incoming(calls);
    Box::pin(served).await.expect("the listener stays");
}

async fn accept(call: std::io::Result<TcpStream>, client: Client) -> anyhow::Result<TlsStream<TcpStream>> {
    let call = LazyConfigAcceptor::new(Acceptor::default(), call?).await?;
    let name = call.client_hello().server_name().context("a name is asked for")?.to_owned();
    let config = certificate(&client, &name).await?;
    Ok(call.into_stream(Arc::new(config)).await?)
}

/// The one in the Secret that is mounted in real brokers. `name` is like `ackwell-orders-0.ackwell-orders-shards.NAMESPACE.svc`.
async fn certificate(client: &Client, name: &str) -> anyhow::Result<ServerConfig> {
    let namespace = name.split('.').nth(2).context("the name has a namespace")?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut data = secrets.get(&names::certificate("orders")).await?.data.context("the Secret has data")?;
    let [chain, key] = ["tls.crt", "tls.key"].map(|file| data.remove(file).unwrap_or_default().0);
    let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>()?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

struct Broker;

/// How namespaces begin in which brokers answer late, as those do whose disk is busy.
pub(crate) const SLOW: &str = "slow";
/// Less than what an operator waits for.
const ANSWER: Duration = Duration::from_secs(1);

/// By namespace and generation the numbers of shards before and after.
type Told = BTreeMap<(String, u64), Vec<[u32; 2]>>;

/// What brokers were told.
static TOLD: Mutex<Told> = Mutex::new(BTreeMap::new());

fn told() -> MutexGuard<'static, Told> {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Generations of placements that meant one thing for some brokers of the namespace and another for others.
pub(crate) fn contradictions(namespace: &str) -> Vec<String> {
    let told = told();
    let of_namespace = told.iter().filter(|((within, _), _)| within == namespace);
    let ambiguous = of_namespace.filter(|(_, meanings)| meanings.len() > 1);
    ambiguous.map(|((_, generation), meanings)| format!("{generation}: {meanings:?}")).collect()
}

fn note(namespace: String, Placement { generation, from, to }: Placement) {
    let mut told = told();
    let meanings = told.entry((namespace, generation)).or_default();
    if !meanings.contains(&[from, to]) {
        meanings.push([from, to]);
    }
}

fn unasked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the operator does not ask this"))
}

#[tonic::async_trait]
impl Shard for Broker {
    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        if !request.metadata().contains_key("authorization") {
            return Err(Status::unauthenticated("the operator shows no token"));
        }
        let config = request.into_inner().config.unwrap_or_default();
        let placement = config.placement.unwrap_or_default();
        let takes_its_time = config.namespace.starts_with(SLOW);
        note(config.namespace, placement);
        if takes_its_time {
            sleep(ANSWER).await;
        }
        let Placement { generation, from, to } = placement;
        let moving = Moving { generation, from, to, done: true, ..Moving::default() };
        Ok(Response::new(ConfigureResponse { generation: config.generation, moving: Some(moving) }))
    }

    async fn arrive(&self, _: Request<ArriveRequest>) -> Result<Response<ArriveResponse>, Status> {
        unasked()
    }

    async fn import(&self, _: Request<ImportRequest>) -> Result<Response<ImportResponse>, Status> {
        unasked()
    }

    async fn route(&self, _: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        unasked()
    }

    async fn run_task(&self, request: Request<RunTaskRequest>) -> Result<Response<RunTaskResponse>, Status> {
        if !request.metadata().contains_key("authorization") {
            return Err(Status::unauthenticated("the operator shows no token"));
        }
        Ok(Response::new(tasks::work_on(&request.into_inner())))
    }

    async fn begin_snapshot(&self, _: Request<BeginSnapshotRequest>) -> Result<Response<Snapshot>, Status> {
        unasked()
    }

    async fn read_snapshot(
        &self,
        _: Request<ReadSnapshotRequest>,
    ) -> Result<Response<ReadSnapshotResponse>, Status> {
        unasked()
    }

    async fn begin_restore(
        &self,
        _: Request<BeginRestoreRequest>,
    ) -> Result<Response<BeginRestoreResponse>, Status> {
        unasked()
    }

    async fn restore_page(
        &self,
        _: Request<RestorePageRequest>,
    ) -> Result<Response<RestorePageResponse>, Status> {
        unasked()
    }
}

#[tonic::async_trait]
impl QueueAdmin for Broker {
    type WatchStatsStream = Pin<Box<dyn futures::Stream<Item = Result<StatsResponse, Status>> + Send>>;

    async fn watch_stats(
        &self,
        _: Request<StatsRequest>,
    ) -> Result<Response<Self::WatchStatsStream>, Status> {
        let reports: BoxStream<'static, _> =
            once(async { Ok(StatsResponse::default()) }).chain(pending()).boxed();
        Ok(Response::new(reports))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        unasked()
    }

    async fn peek(&self, _: Request<PeekRequest>) -> Result<Response<PeekResponse>, Status> {
        unasked()
    }

    async fn redrive(&self, _: Request<RedriveRequest>) -> Result<Response<RedriveResponse>, Status> {
        unasked()
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        unasked()
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        unasked()
    }

    async fn purge(&self, _: Request<PurgeRequest>) -> Result<Response<PurgeResponse>, Status> {
        unasked()
    }

    async fn cancel(&self, _: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        unasked()
    }

    async fn pause(&self, _: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        unasked()
    }
}
