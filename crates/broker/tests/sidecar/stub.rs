//! A broker that loses its first answer, or is slow: for what a real one does too rarely to be tested.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ackwell_proto::v1::queues_server::{Queues, QueuesServer};
use ackwell_proto::v1::shard_server::{Shard, ShardServer};
use ackwell_proto::v1::{
    ArriveRequest, ArriveResponse, BeginRestoreRequest, BeginRestoreResponse, BeginSnapshotRequest,
    CommitRequest, CommitResponse, ConfigureRequest, ConfigureResponse, ConsumeRequest, ConsumeResponse,
    Delivery, ExtendRequest, ExtendResponse, ImportRequest, ImportResponse, ProduceRequest, ProduceResponse,
    ReadSnapshotRequest, ReadSnapshotResponse, ReceiveRequest, ReceiveResponse, RestorePageRequest,
    RestorePageResponse, RouteRequest, RouteResponse, RunTaskRequest, RunTaskResponse, SendRequest,
    SendResponse, SettleRequest, SettleResponse, SettleResult, Snapshot,
};
use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// What the broker was asked.
#[derive(Debug)]
pub(crate) enum Asked {
    Receive(ReceiveRequest),
    Settle(SettleRequest),
}

/// Hands out one delivery a call.
pub(crate) struct Stub {
    asked: mpsc::Sender<Asked>,
    loses_next: AtomicBool,
    settles_in: Duration,
}

impl Stub {
    /// Its first answer never arrives.
    pub(crate) async fn start() -> (SocketAddr, mpsc::Receiver<Asked>) {
        Self::serve(true, Duration::ZERO).await
    }

    /// Takes a moment to settle.
    pub(crate) async fn slow() -> (SocketAddr, mpsc::Receiver<Asked>) {
        Self::serve(false, Duration::from_millis(200)).await
    }

    async fn serve(loses_first: bool, settles_in: Duration) -> (SocketAddr, mpsc::Receiver<Asked>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::channel(16);
        let stub = Self { asked: tell, loses_next: AtomicBool::new(loses_first), settles_in };
        let server =
            Server::builder().add_service(QueuesServer::new(stub)).add_service(ShardServer::new(Alone));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (address, asked)
    }
}

#[tonic::async_trait]
impl Queues for Stub {
    type ProduceStream = Pin<Box<dyn Stream<Item = Result<ProduceResponse, Status>> + Send>>;

    async fn produce(
        &self,
        _: Request<Streaming<ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        Err(Status::unimplemented(""))
    }

    type ConsumeStream = Pin<Box<dyn Stream<Item = Result<ConsumeResponse, Status>> + Send>>;

    async fn receive(&self, request: Request<ReceiveRequest>) -> Result<Response<ReceiveResponse>, Status> {
        self.asked.send(Asked::Receive(request.into_inner())).await.unwrap();
        if self.loses_next.swap(false, Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let delivery = Delivery { receipt: "receipt".into(), ..Delivery::default() };
        Ok(Response::new(ReceiveResponse { deliveries: vec![delivery] }))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
        let results = vec![SettleResult::default(); request.get_ref().settlements.len()];
        tokio::time::sleep(self.settles_in).await;
        self.asked.send(Asked::Settle(request.into_inner())).await.unwrap();
        Ok(Response::new(SettleResponse { results }))
    }

    async fn send(&self, _: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn commit(&self, _: Request<CommitRequest>) -> Result<Response<CommitResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn extend(&self, _: Request<ExtendRequest>) -> Result<Response<ExtendResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn consume(
        &self,
        _: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// The only shard.
struct Alone;

#[tonic::async_trait]
impl Shard for Alone {
    async fn configure(&self, _: Request<ConfigureRequest>) -> Result<Response<ConfigureResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn route(&self, _: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        Ok(Response::new(RouteResponse::default()))
    }

    async fn arrive(&self, _: Request<ArriveRequest>) -> Result<Response<ArriveResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn import(&self, _: Request<ImportRequest>) -> Result<Response<ImportResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn run_task(&self, _: Request<RunTaskRequest>) -> Result<Response<RunTaskResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn begin_snapshot(&self, _: Request<BeginSnapshotRequest>) -> Result<Response<Snapshot>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn read_snapshot(
        &self,
        _: Request<ReadSnapshotRequest>,
    ) -> Result<Response<ReadSnapshotResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn begin_restore(
        &self,
        _: Request<BeginRestoreRequest>,
    ) -> Result<Response<BeginRestoreResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn restore_page(
        &self,
        _: Request<RestorePageRequest>,
    ) -> Result<Response<RestorePageResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
