use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use ackwell_proto::v1::queue_admin_server::{QueueAdmin, QueueAdminServer};
use ackwell_proto::v1::shard_server::{Shard, ShardServer};
use ackwell_proto::v1::{
    ArriveRequest, ArriveResponse, BeginRestoreRequest, BeginRestoreResponse, BeginSnapshotRequest,
    CancelRequest, CancelResponse, ExplainRequest, ExplainResponse, GetRequest, GetResponse, ImportRequest,
    ImportResponse, PauseRequest, PauseResponse, PeekRequest, PeekResponse, PurgeRequest, PurgeResponse,
    ReadSnapshotRequest, ReadSnapshotResponse, RedriveRequest, RedriveResponse, RestorePageRequest,
    RestorePageResponse, RouteRequest, RouteResponse, Snapshot,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use super::*;
use crate::certificates::broker::tests::{authority_of, fresh, identity};

/// What a broker reports, one after the other.
type Reports = mpsc::Receiver<Result<StatsResponse, Status>>;

const PROGRAMS: &str = "programs of the operator ask this";
/// What is in the file beside this one, as it is shown.
const TOKEN: &str = "Bearer token-of-the-operator";

/// A broker that takes every setting and reports what the test says.
#[derive(Clone)]
struct Broker {
    configured: mpsc::Sender<u64>,
    reports: Arc<tokio::sync::Mutex<Option<Reports>>>,
}

#[tonic::async_trait]
impl Shard for Broker {
    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), TOKEN);
        let generation = request.into_inner().config.unwrap_or_default().generation;
        self.configured.send(generation).await.map_err(|_| Status::aborted("the test is over"))?;
        Ok(Response::new(ConfigureResponse { generation, moving: None }))
    }

    async fn route(&self, _: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        Err(Status::unimplemented("the operator knows the routes"))
    }

    async fn arrive(&self, _: Request<ArriveRequest>) -> Result<Response<ArriveResponse>, Status> {
        Err(Status::unimplemented("shards speak to each other"))
    }

    async fn import(&self, _: Request<ImportRequest>) -> Result<Response<ImportResponse>, Status> {
        Err(Status::unimplemented("shards speak to each other"))
    }

    async fn run_task(&self, request: Request<RunTaskRequest>) -> Result<Response<RunTaskResponse>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), TOKEN);
        Err(Status::not_found(request.into_inner().uid))
    }

    async fn begin_snapshot(&self, _: Request<BeginSnapshotRequest>) -> Result<Response<Snapshot>, Status> {
        Err(Status::unimplemented(PROGRAMS))
    }

    async fn read_snapshot(
        &self,
        _: Request<ReadSnapshotRequest>,
    ) -> Result<Response<ReadSnapshotResponse>, Status> {
        Err(Status::unimplemented(PROGRAMS))
    }

    async fn begin_restore(
        &self,
        _: Request<BeginRestoreRequest>,
    ) -> Result<Response<BeginRestoreResponse>, Status> {
        Err(Status::unimplemented(PROGRAMS))
    }

    async fn restore_page(
        &self,
        _: Request<RestorePageRequest>,
    ) -> Result<Response<RestorePageResponse>, Status> {
        Err(Status::unimplemented(PROGRAMS))
    }
}

#[tonic::async_trait]
impl QueueAdmin for Broker {
    type WatchStatsStream = Pin<Box<ReceiverStream<Result<StatsResponse, Status>>>>;

    async fn watch_stats(
        &self,
        request: Request<StatsRequest>,
    ) -> Result<Response<Self::WatchStatsStream>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), TOKEN);
        assert_eq!(request.into_inner().queue, "shop/orders");
        let reports = self.reports.lock().await.take().ok_or_else(|| Status::aborted("watched twice"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(reports))))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        Err(Status::unimplemented("the operator watches"))
    }

    async fn peek(&self, _: Request<PeekRequest>) -> Result<Response<PeekResponse>, Status> {
        Err(Status::unimplemented("the operator reads no messages"))
    }

    async fn redrive(&self, _: Request<RedriveRequest>) -> Result<Response<RedriveResponse>, Status> {
        Err(Status::unimplemented("the operator moves no messages"))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        Err(Status::unimplemented("the operator reads no messages"))
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        Err(Status::unimplemented("the operator reads no messages"))
    }

    async fn purge(&self, _: Request<PurgeRequest>) -> Result<Response<PurgeResponse>, Status> {
        Err(Status::unimplemented("the operator moves no messages"))
    }

    async fn cancel(&self, _: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        Err(Status::unimplemented("the operator moves no messages"))
    }

    async fn pause(&self, _: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        Err(Status::unimplemented("people pause"))
    }
}

/// A link and both of its ends.
struct Scene {
    configs: watch::Sender<QueueConfig>,
    view: watch::Receiver<ShardView>,
    visits: mpsc::Receiver<QueueRef>,
    configured: mpsc::Receiver<u64>,
    reports: mpsc::Sender<Result<StatsResponse, Status>>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

fn config(generation: u64) -> QueueConfig {
    QueueConfig {
        placement: None,
        restoring: false,
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
        generation,
        ..QueueConfig::default()
    }
}

/// The broker of shard 0, at this address.
fn peer(address: SocketAddr, authority: Authority) -> Peer {
    let token = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/queue_controller/shards/link/token");
    Peer { address, name: ackwell_api::names::server_name("shop", "orders", 0), authority, token }
}

/// A broker and a link to it that trusts who signed its certificate.
async fn linked() -> Scene {
    let authority = fresh();
    let shown = identity(&authority, "orders");
    link_to(authority_of(&authority), &shown).await
}

async fn link_to(authority: Authority, (certificate, key): &(String, String)) -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (configured_sender, configured) = mpsc::channel(8);
    let (reports, reports_receiver) = mpsc::channel(8);
    let reports_receiver = Arc::new(tokio::sync::Mutex::new(Some(reports_receiver)));
    let broker = Broker { configured: configured_sender, reports: reports_receiver };
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let server = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(ShardServer::new(broker.clone()))
        .add_service(QueueAdminServer::new(broker))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let (configs, config_receiver) = watch::channel(config(1));
    let (view_sender, view) = watch::channel(ShardView::default());
    let (visit, visits) = mpsc::channel(8);
    let queue = QueueRef::new("orders").within("shop");
    let link = run(peer(address, authority).into(), config_receiver, view_sender, visit, queue);
    let serve = async { server.await.unwrap() };
    let tasks = [tokio::spawn(serve), tokio::spawn(link)].map(AbortOnDropHandle::new);
    Scene { configs, view, visits, configured, reports, _tasks: tasks }
}

/// Far longer than anything takes here: a broken link fails its test instead of hanging it.
const LIMIT: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("it happens soon")
}

impl Scene {
    async fn seen(&mut self, condition: impl FnMut(&ShardView) -> bool) {
        soon(self.view.wait_for(condition)).await.unwrap();
    }
}

/// Settings reach a running broker: on connecting, and whenever they change.
#[tokio::test]
async fn settings_are_told_on_connect_and_on_change() {
    let mut scene = linked().await;
    assert_eq!(soon(scene.configured.recv()).await, Some(1));
    scene.seen(|view| view.generation == Some(1)).await;
    scene.configs.send_replace(config(2));
    assert_eq!(soon(scene.configured.recv()).await, Some(2));
    scene.seen(|view| view.generation == Some(2)).await;
}

/// Counts come by themselves and lead to a visit.
#[tokio::test]
async fn counts_are_seen_and_lead_to_a_visit() {
    let mut scene = linked().await;
    scene.seen(|view| view.generation == Some(1)).await;
    assert_eq!(soon(scene.visits.recv()).await.unwrap().name, "orders", "for the confirmed settings");
    let report = StatsResponse { ready: 7, ..StatsResponse::default() };
    scene.reports.send(Ok(report)).await.unwrap();
    scene.seen(|view| view.stats.is_some_and(|stats| stats.ready == 7)).await;
    assert_eq!(soon(scene.visits.recv()).await.unwrap().name, "orders", "for the counts");
    scene.reports.send(Ok(report)).await.unwrap();
    scene.reports.send(Ok(StatsResponse { ready: 8, ..report })).await.unwrap();
    scene.seen(|view| view.stats.is_some_and(|stats| stats.ready == 8)).await;
    assert!(soon(scene.visits.recv()).await.is_some());
    assert!(scene.visits.try_recv().is_err(), "the same counts again are no news");
}

/// A broker that stays away is reported once it has been away for longer than a restart takes.
#[tokio::test(start_paused = true)]
async fn broker_that_stays_away_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (_configs, config_receiver) = watch::channel(config(1));
    let (view_sender, mut view) = watch::channel(ShardView::default());
    let (visit, _visits) = mpsc::channel(8);
    let queue = QueueRef::new("orders").within("shop");
    let link = run(peer(address, authority_of(&fresh())).into(), config_receiver, view_sender, visit, queue);
    let _task = AbortOnDropHandle::new(tokio::spawn(link));
    let away = soon(view.wait_for(|view| view.unreachable.is_some())).await.unwrap();
    assert!(away.unreachable.as_ref().unwrap().starts_with(&address.to_string()));
}

/// Settings are told to nobody who cannot prove to be the broker: with a certificate of another authority, or of another
/// Queue.
#[tokio::test]
async fn who_is_not_the_broker_is_told_nothing() {
    let (ours, theirs) = (fresh(), fresh());
    for (shown, says) in
        [(identity(&theirs, "orders"), "UnknownIssuer"), (identity(&ours, "logs"), "not valid for name")]
    {
        let mut scene = link_to(authority_of(&ours), &shown).await;
        let view = soon(scene.view.wait_for(|view| view.unreachable.is_some())).await.unwrap().clone();
        assert!(view.unreachable.as_ref().unwrap().contains(says), "{view:?}");
        assert!(scene.configured.try_recv().is_err());
    }
}

/// Promise: people always read a reason, and what to do if it is the broker's age.
#[test]
fn failure_without_words_has_a_reason() {
    let says = |status| Error::Call("RunTask", status).to_string();
    assert!(says(Status::unimplemented("")).contains("older version"));
    assert_eq!(says(Status::internal("")), "RunTask: Internal error");
    assert_eq!(says(Status::internal("full")), "RunTask: full");
}
