//! The gRPC services, as the application calls them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::queue_admin_server::QueueAdmin;
use ackwell_proto::v1::queues_server::Queues;
use ackwell_proto::v1::{
    CancelRequest, CancelResponse, CommitRequest, CommitResponse, ConsumeRequest, ConsumeResponse,
    ExplainRequest, ExplainResponse, ExtendRequest, ExtendResponse, GetRequest, GetResponse, PauseRequest,
    PauseResponse, PeekRequest, PeekResponse, ProduceRequest, ProduceResponse, PurgeRequest, PurgeResponse,
    ReceiveRequest, ReceiveResponse, RedriveRequest, RedriveResponse, SendRequest, SendResponse,
    SettleRequest, SettleResponse, StatsRequest, StatsResponse,
};
use ackwell_proto::{Failure, Reason};
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::consume::Orphans;
use super::options::Options;
use super::receive::{self, Receiver};
use super::retry::{DEFAULT_BUDGET, Deadline, RETRY_AFTER};
use super::route::Router;
use super::shard_channel::ShardChannel;
use super::{admin, commit, consume, find, produce, send, settle};
use crate::clock;
use crate::tls::Trust;
use crate::traces;

/// Sends that wait for a broker are held in memory; more of them are refused.
const MAX_SENDING_KIB: usize = 128 << 10;
/// A container that ended is not started again at once.
const NEXT_PROCESS_AFTER: Duration = Duration::from_secs(2);
/// Streams have a task and a connection's worth of buffers each.
const MAX_STREAMS: usize = 256;

/// What all calls share.
pub(crate) struct Sidecar {
    pub(crate) router: Router,
    pub(crate) orphans: Orphans,
    pub(crate) tasks: TaskTracker,
    /// The pod ends: no more deliveries. Also when `stopping`.
    pub(crate) draining: CancellationToken,
    pub(crate) stopping: CancellationToken,
    /// Calls that still wait are answered that nobody will.
    pub(crate) leaving: CancellationToken,
    sending_kib: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// The handlers; a stream's task shares the state with them.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Sidecar>);

impl std::ops::Deref for Service {
    type Target = Arc<Sidecar>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Sidecar {
    pub(crate) fn new(
        options: Options,
        trust: Trust,
        tasks: TaskTracker,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            router: Router::new(options, trust, tasks.clone()),
            orphans: Orphans::default(),
            tasks,
            draining: stopping.child_token(),
            stopping,
            leaving: CancellationToken::new(),
            sending_kib: Arc::new(Semaphore::new(MAX_SENDING_KIB)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    /// What a call is answered, unless the process ends before it is.
    async fn answer<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<Response<T>, Status> {
        tokio::select! {
            biased;
            answer = call => answer.map(Response::new),
            () = self.leaving.cancelled() => Err(shutting_down().into()),
        }
    }

    fn sending(&self, request: &impl prost::Message) -> Result<SemaphorePermit<'_>, Failure> {
        self.sending_kib.try_acquire_many(room_kib(request)).map_err(|_| {
            let message =
                format!("{} MiB of sends are waiting for brokers; send less at once", MAX_SENDING_KIB >> 10);
            Failure::new(Reason::Busy, message).retry_after(RETRY_AFTER)
        })
    }

    /// The same for a stream, which is not refused but waits.
    pub(crate) fn room(&self, kib: u32) -> impl Future<Output = OwnedSemaphorePermit> + use<> {
        let room = Arc::clone(&self.sending_kib).acquire_many_owned(kib);
        async move { room.await.expect("the semaphore is never closed") }
    }

    fn stream(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            Failure::new(
                Reason::Busy,
                format!("{MAX_STREAMS} streams are open; share one, its window may be 10 000"),
            )
        })
    }

    pub(crate) fn open_streams(&self) -> usize {
        MAX_STREAMS - self.streams.available_permits()
    }

    pub(crate) fn sending_bytes(&self) -> usize {
        MAX_SENDING_KIB.saturating_sub(self.sending_kib.available_permits()) << 10
    }

    /// Nothing once the pod ends: a poll that waits then is answered at once, for the application to see that it is
    /// asked to stop; a later one waits for its time, since who does not see it would ask again at once. What a poll that
    /// is given up would have delivered goes back.
    async fn receive_unless_draining(&self, receiver: Receiver) -> Result<ReceiveResponse, Status> {
        if self.draining.is_cancelled() {
            _ = timeout_at(receiver.wait_until, self.stopping.cancelled()).await;
            return Ok(ReceiveResponse::default());
        }
        tokio::select! {
            response = receiver.receive() => response,
            () = self.draining.cancelled() => Ok(ReceiveResponse::default()),
        }
    }
}

/// The memory that a request takes while it waits.
pub(crate) fn room_kib(request: &impl prost::Message) -> u32 {
    u32::try_from(request.encoded_len().div_ceil(1024)).unwrap_or(u32::MAX)
}

/// What a call hears that is still waiting when the process stops.
pub(crate) fn shutting_down() -> Failure {
    Failure::new(Reason::ShuttingDown, "the sidecar is stopping because its pod ends")
        .retry_after(NEXT_PROCESS_AFTER)
}

#[tonic::async_trait]
impl Queues for Service {
    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let request = request.into_inner();
        let _sending = self.sending(&request)?;
        let queue = self.router.queue(&request.queue)?;
        traces::sends(|| queue.full_name().to_owned(), &request.messages);
        let response = self.answer(send::send(&queue, request, deadline)).await?;
        traces::sent(&response.get_ref().results);
        Ok(response)
    }

    async fn receive(&self, request: Request<ReceiveRequest>) -> Result<Response<ReceiveResponse>, Status> {
        let wait = receive::wait_of(request.get_ref())?;
        let deadline = Deadline::of(request.metadata(), receive::budget_of(wait));
        let queue = self.router.queue(&request.get_ref().queue)?;
        let receiver = Receiver {
            queue: Arc::clone(&queue),
            request: request.into_inner(),
            deadline,
            wait_until: deadline.at().min(Instant::now() + wait),
            tasks: self.tasks.clone(),
        };
        let response = self.receive_unless_draining(receiver).await?;
        queue.held.add(&response.deliveries, clock::now().0);
        traces::receives(|| queue.full_name().to_owned(), &response.deliveries);
        Ok(Response::new(response))
    }

    type ProduceStream = ResponseStream<ProduceResponse>;

    async fn produce(
        &self,
        request: Request<Streaming<ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let permit = self.stream()?;
        Ok(Response::new(Box::pin(produce::start(self, request.into_inner(), permit))))
    }

    type ConsumeStream = ResponseStream<ConsumeResponse>;

    async fn consume(
        &self,
        request: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let permit = self.stream()?;
        Ok(Response::new(Box::pin(consume::start(self, request.into_inner(), permit))))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let SettleRequest { queue, settlements } = request.into_inner();
        let queue = self.router.queue(&queue)?;
        let receipts: Vec<_> = settlements.iter().map(|settlement| settlement.receipt.clone()).collect();
        traces::settles(|| queue.full_name().to_owned(), &settlements);
        let response = self.answer(settle::settle(&queue, settlements, deadline)).await?;
        traces::settled(&response.get_ref().results);
        settle::forget(&queue, &receipts, &response.get_ref().results);
        Ok(response)
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<CommitResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let request = request.into_inner();
        let _sending = self.sending(&request)?;
        traces::commits(|name| Some(self.router.queue(name).ok()?.full_name().to_owned()), &request);
        self.answer(commit::commit(&self.router, request, deadline)).await
    }

    async fn extend(&self, request: Request<ExtendRequest>) -> Result<Response<ExtendResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let request = request.into_inner();
        let queue = self.router.queue(&request.queue)?;
        let receipts = request.receipts.clone();
        let response = self.answer(settle::extend(&queue, request, deadline)).await?;
        queue.held.extended(receipts.iter().map(Vec::as_slice).zip(&response.get_ref().results));
        Ok(response)
    }
}

#[tonic::async_trait]
impl QueueAdmin for Service {
    async fn peek(&self, request: Request<PeekRequest>) -> Result<Response<PeekResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let queue = self.router.queue(&request.get_ref().queue)?;
        self.answer(admin::peek(&queue, request.into_inner(), deadline)).await
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let queue = self.router.queue(&request.get_ref().queue)?;
        self.answer(admin::stats(&queue, deadline)).await
    }

    type WatchStatsStream = ResponseStream<StatsResponse>;

    async fn watch_stats(
        &self,
        request: Request<StatsRequest>,
    ) -> Result<Response<Self::WatchStatsStream>, Status> {
        let interval = admin::interval_of(request.get_ref())?;
        let queue = self.router.queue(&request.get_ref().queue)?;
        let stream = self.stream()?;
        let (give, answers) = tokio::sync::mpsc::channel(1);
        let watch = admin::watch(queue, interval, give);
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            stopping.run_until_cancelled(watch).await;
            drop(stream);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn redrive(&self, request: Request<RedriveRequest>) -> Result<Response<RedriveResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let queue = self.router.queue(&request.get_ref().queue)?;
        self.answer(admin::redrive(&queue, request.into_inner(), deadline)).await
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let GetRequest { queue, id } = request.into_inner();
        let queue = self.router.queue(&queue)?;
        let attempt = |channel: Arc<ShardChannel>| {
            let request = GetRequest { queue: queue.full_name().to_owned(), id: id.clone() };
            async move { channel.admin().get(request).await }
        };
        self.answer(find::find(&queue, deadline, attempt)).await
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let ExplainRequest { queue, id } = request.into_inner();
        let queue = self.router.queue(&queue)?;
        let attempt = |channel: Arc<ShardChannel>| {
            let request = ExplainRequest { queue: queue.full_name().to_owned(), id: id.clone() };
            async move { channel.admin().explain(request).await }
        };
        self.answer(find::find(&queue, deadline, attempt)).await
    }

    async fn purge(&self, request: Request<PurgeRequest>) -> Result<Response<PurgeResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let queue = self.router.queue(&request.get_ref().queue)?;
        self.answer(admin::purge(&queue, request.into_inner(), deadline)).await
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let CancelRequest { queue, ids } = request.into_inner();
        let queue = self.router.queue(&queue)?;
        self.answer(find::cancel(&queue, ids, deadline)).await
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        let deadline = Deadline::of(request.metadata(), DEFAULT_BUDGET);
        let PauseRequest { queue, paused } = request.into_inner();
        let queue = self.router.queue(&queue)?;
        self.answer(admin::pause(&queue, paused, deadline)).await
    }
}
