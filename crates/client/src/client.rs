//! The client.

use std::time::Duration;

use ackwell_proto::v1::queue_admin_client::QueueAdminClient;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::{
    CancelRequest, CommitRequest, CommitResponse, Delivery, ExplainRequest, ExplainResponse, ExtendRequest,
    GetRequest, ItemError, Message, PauseRequest, PeekRequest, PeekResponse, PurgeRequest, PurgeResponse,
    ReceiveRequest, RedriveRequest, RedriveResponse, SendRequest, SendResult, SettleRequest, SettleResult,
    Settlement, StatsRequest, StatsResponse,
};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::batch::batches;
use crate::connect::{address_of_environment, endpoint};
use crate::consumer::{Consume, Consumer};
use crate::error::cause;
use crate::outcome::Outcome;
use crate::producer::{Produce, Producer};
use crate::retry::retry;
use crate::token::{Connection, Token};
use crate::{Error, trace};

/// How long a call is repeated while the broker is unavailable. Well below the two minutes for which brokers remember
/// request ids, so that a repeated call has no second effect.
const RETRY_LIMIT: Duration = Duration::from_secs(30);
/// Largest answer: 16 MiB of bodies, and as much again for each of headers and histories.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A connection to a sidecar or broker. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    queues: QueuesClient<Connection>,
    admin: QueueAdminClient<Connection>,
    retry_limit: Duration,
}

/// What to receive.
#[derive(Clone, Debug)]
pub struct Receive {
    /// Most messages; 1 to 1000.
    pub max_messages: u32,
    /// How long to wait for the first message; at most 60 s.
    pub wait: Duration,
    /// How long the messages are held; `None`: the queue's own time.
    pub ack_timeout: Option<Duration>,
    /// A name for this consumer in histories.
    pub consumer: String,
}

impl Default for Receive {
    /// One message, waiting 20 s for it.
    fn default() -> Self {
        Self { max_messages: 1, wait: Duration::from_secs(20), ack_timeout: None, consumer: String::new() }
    }
}

/// A message that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Of the message, or of the first one with its `dedup_id`.
    pub id: String,
    /// The `dedup_id` was known: nothing new was stored.
    pub duplicate: bool,
}

impl Client {
    /// Connects to `host:port`; fails when nobody answers there.
    pub async fn connect(address: &str) -> Result<Self, Error> {
        let unreachable = |error| Error::Unreachable { address: address.to_owned(), cause: cause(&error) };
        Ok(Self::over(endpoint(address)?.connect().await.map_err(unreachable)?, Token::default()))
    }

    /// Connects with the first call, which waits for the broker to come up. Needs a Tokio runtime.
    pub fn connect_lazy(address: &str) -> Result<Self, Error> {
        Ok(Self::over(Endpoint::connect_lazy(&endpoint(address)?), Token::default()))
    }

    /// Connects to the sidecar with the first call: at `ACKWELL_ADDRESS`, or [`crate::DEFAULT_ADDRESS`]. Needs a Tokio
    /// runtime.
    pub fn from_env() -> Result<Self, Error> {
        Self::connect_lazy(&address_of_environment())
    }

    fn over(channel: Channel, token: Token) -> Self {
        let connection = InterceptedService::new(channel.clone(), token);
        Self {
            channel,
            queues: QueuesClient::new(connection.clone()).max_decoding_message_size(MAX_ANSWER_BYTES),
            admin: QueueAdminClient::new(connection).max_decoding_message_size(MAX_ANSWER_BYTES),
            retry_limit: RETRY_LIMIT,
        }
    }

    /// Shows a ServiceAccount token for the audience `ackwell.dev` with each call, for brokers that are called without a
    /// sidecar, which would show its pod's. The connection is not encrypted: to a loopback address only, such as
    /// `kubectl port-forward` has.
    pub fn with_token(self, token: &str) -> Result<Self, Error> {
        Ok(Self { retry_limit: self.retry_limit, ..Self::over(self.channel, Token::new(token)?) })
    }

    /// Repeats calls for at most `limit` while the broker is unavailable, instead of for 30 s. From two minutes on a
    /// repeated send can store twice.
    #[must_use]
    pub fn with_retry_limit(self, limit: Duration) -> Self {
        Self { retry_limit: limit, ..self }
    }

    /// Stores one message.
    pub async fn send(&self, queue: &str, message: Message) -> Result<Sent, Error> {
        let mut results = self.send_batch(queue, vec![message]).await?;
        results.pop().expect("send_batch gives as many results as messages")
    }

    /// Stores the messages of one call; a [`crate::Batch`] keeps them within its limits. One result for each, in order.
    pub async fn send_batch(
        &self,
        queue: &str,
        messages: Vec<Message>,
    ) -> Result<Vec<Result<Sent, Error>>, Error> {
        self.send_request(SendRequest { queue: queue.to_owned(), messages, ..SendRequest::default() }).await
    }

    /// The same, all or none: if one is refused, nothing is stored and every message has an error.
    pub async fn send_atomic(
        &self,
        queue: &str,
        messages: Vec<Message>,
    ) -> Result<Vec<Result<Sent, Error>>, Error> {
        let queue = queue.to_owned();
        self.send_request(SendRequest { queue, messages, atomic: true, ..SendRequest::default() }).await
    }

    async fn send_request(&self, mut request: SendRequest) -> Result<Vec<Result<Sent, Error>>, Error> {
        request.messages.iter_mut().for_each(trace::inject);
        request.request_id = request_id();
        let expected = request.messages.len();
        let call = |request| {
            let mut queues = self.queues.clone();
            async move { queues.send(request).await }
        };
        let results = retry(self.retry_limit, request, call).await?.results;
        one_for_each(expected, results.into_iter().map(sent).collect())
    }

    /// Stores any number of messages, one call after the other, in order. One result for each; after a call that failed
    /// as a whole nothing more is sent, and the rest fails as it did.
    pub async fn send_many(
        &self,
        queue: &str,
        messages: impl IntoIterator<Item = Message>,
    ) -> Vec<Result<Sent, Error>> {
        let mut results = Vec::new();
        let mut failed = None;
        for batch in batches(messages) {
            let count = batch.len();
            let answer = match failed.clone() {
                None => self.send_batch(queue, batch).await,
                Some(error) => Err(error),
            };
            match answer {
                Ok(answered) => results.extend(answered),
                // A call with one message fails as a whole with it; the others are not affected.
                Err(error) if count == 1 && error.is_of_an_item() => results.push(Err(error)),
                Err(error) => {
                    results.extend(std::iter::repeat_n(Err(error.clone()), count));
                    failed = Some(error);
                }
            }
        }
        results
    }

    /// Sends many messages without waiting for each: see [`Producer`].
    pub fn producer(&self, queue: &str, options: Produce) -> Producer {
        Producer::start(self.queues.clone(), queue, options, self.retry_limit)
    }

    /// Runs `handler` for each message of the queue, up to `concurrency` at a time.
    ///
    /// `Ok` acks; an error nacks with its text; [`Outcome`] says otherwise. While a handler runs its message is extended, up
    /// to the queue's maxProcessing; it is dropped when it lost the message. A broken connection is opened again; handlers do
    /// not notice.
    pub fn consume<H, F>(&self, queue: &str, options: Consume, handler: H) -> Consumer
    where
        H: Fn(Delivery) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Outcome>> + Send + 'static,
    {
        Consumer::start(self.queues.clone(), queue, options, handler)
    }

    /// Takes up to `max_messages` as soon as there is one; empty when none came within `wait`.
    pub async fn receive(&self, queue: &str, receive: Receive) -> Result<Vec<Delivery>, Error> {
        let request = ReceiveRequest {
            queue: queue.to_owned(),
            max_messages: receive.max_messages,
            max_bytes: 0,
            wait: Some(wire_duration(receive.wait)),
            ack_timeout: receive.ack_timeout.map(wire_duration),
            request_id: request_id(),
            consumer: receive.consumer,
        };
        let call = |request| {
            let mut queues = self.queues.clone();
            async move { queues.receive(request).await }
        };
        Ok(retry(receive.wait + self.retry_limit, request, call).await?.deliveries)
    }

    /// Settles up to 1000 deliveries; see [`crate::ack`] and its siblings. One result for each, in order.
    pub async fn settle(
        &self,
        queue: &str,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Result<SettleResult, Error>>, Error> {
        let expected = settlements.len();
        let request = SettleRequest { queue: queue.to_owned(), settlements };
        let call = |request| {
            let mut queues = self.queues.clone();
            async move { queues.settle(request).await }
        };
        let results = retry(self.retry_limit, request, call).await?.results;
        let item = |mut result: SettleResult| or_error(result.error.take(), result);
        one_for_each(expected, results.into_iter().map(item).collect())
    }

    /// Holds up to 1000 deliveries for `ack_timeout` from now, or for the queue's own time. The new ack deadlines, in
    /// order.
    pub async fn extend(
        &self,
        queue: &str,
        deliveries: &[Delivery],
        ack_timeout: Option<Duration>,
    ) -> Result<Vec<Result<prost_types::Timestamp, Error>>, Error> {
        let request = ExtendRequest {
            queue: queue.to_owned(),
            receipts: deliveries.iter().map(|delivery| delivery.receipt.to_vec()).collect(),
            ack_timeout: ack_timeout.map(wire_duration),
        };
        let call = |request| {
            let mut queues = self.queues.clone();
            async move { queues.extend(request).await }
        };
        let results = retry(self.retry_limit, request, call).await?.results;
        let items =
            results.into_iter().map(|item| or_error(item.error, item.ack_deadline.unwrap_or_default()));
        one_for_each(deliveries.len(), items.collect())
    }

    /// Settles and sends in one step, on one shard: all of it is done, or nothing. It gets a `request_id` if it has none, so
    /// that it can be repeated.
    pub async fn commit(&self, mut request: CommitRequest) -> Result<CommitResponse, Error> {
        if request.request_id.is_empty() {
            request.request_id = request_id();
        }
        let call = |request| {
            let mut queues = self.queues.clone();
            async move { queues.commit(request).await }
        };
        retry(self.retry_limit, request, call).await
    }

    /// Shows one page of messages without holding them; ask again with the answer's cursor for the next one.
    pub async fn peek(&self, request: PeekRequest) -> Result<PeekResponse, Error> {
        let call = |request| {
            let mut admin = self.admin.clone();
            async move { admin.peek(request).await }
        };
        retry(self.retry_limit, request, call).await
    }

    /// Counts of a queue.
    pub async fn stats(&self, queue: &str) -> Result<StatsResponse, Error> {
        let request = StatsRequest { queue: queue.to_owned(), interval: None };
        let call = |request| {
            let mut admin = self.admin.clone();
            async move { admin.stats(request).await }
        };
        retry(self.retry_limit, request, call).await
    }

    /// Puts Dead messages back to Ready. Called once only: a second call would count what the first one left.
    pub async fn redrive(&self, request: RedriveRequest) -> Result<RedriveResponse, Error> {
        Ok(self.admin.clone().redrive(request).await?.into_inner())
    }

    /// One message with its whole body, whatever its state.
    pub async fn get(&self, queue: &str, id: &str) -> Result<Message, Error> {
        let request = GetRequest { queue: queue.into(), id: id.into() };
        let call = |request| {
            let mut admin = self.admin.clone();
            async move { admin.get(request).await }
        };
        Ok(retry(self.retry_limit, request, call).await?.message.unwrap_or_default())
    }

    /// Why a message is not being delivered now.
    pub async fn explain(&self, queue: &str, id: &str) -> Result<ExplainResponse, Error> {
        let request = ExplainRequest { queue: queue.into(), id: id.into() };
        let call = |request| {
            let mut admin = self.admin.clone();
            async move { admin.explain(request).await }
        };
        retry(self.retry_limit, request, call).await
    }

    /// Removes messages for good. Called once only: a second call would count what the first one left.
    pub async fn purge(&self, request: PurgeRequest) -> Result<PurgeResponse, Error> {
        Ok(self.admin.clone().purge(request).await?.into_inner())
    }

    /// Removes up to 1000 single messages that nobody holds. One result for each, in order. Called once only: a second
    /// call would not find what the first one removed.
    pub async fn cancel(&self, queue: &str, ids: Vec<String>) -> Result<Vec<Result<(), Error>>, Error> {
        let expected = ids.len();
        let request = CancelRequest { queue: queue.to_owned(), ids };
        let results = self.admin.clone().cancel(request).await?.into_inner().results;
        one_for_each(expected, results.into_iter().map(|item| or_error(item.error, ())).collect())
    }

    /// Stops handing messages out, until [`Client::resume`].
    pub async fn pause(&self, queue: &str) -> Result<(), Error> {
        self.set_paused(PauseRequest { queue: queue.to_owned(), paused: true }).await
    }

    /// Hands messages out again.
    pub async fn resume(&self, queue: &str) -> Result<(), Error> {
        self.set_paused(PauseRequest { queue: queue.to_owned(), paused: false }).await
    }

    async fn set_paused(&self, request: PauseRequest) -> Result<(), Error> {
        let call = |request| {
            let mut admin = self.admin.clone();
            async move { admin.pause(request).await }
        };
        retry(self.retry_limit, request, call).await.map(|_| ())
    }
}

/// Durations beyond 292 billion years are cut.
pub(crate) fn wire_duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

fn request_id() -> String {
    Uuid::new_v4().to_string()
}

fn sent(result: SendResult) -> Result<Sent, Error> {
    or_error(result.error, Sent { id: result.id, duplicate: result.duplicate })
}

fn or_error<T>(error: Option<ItemError>, value: T) -> Result<T, Error> {
    error.map_or(Ok(value), |error| Err(error.into()))
}

fn one_for_each<T>(expected: usize, results: Vec<T>) -> Result<Vec<T>, Error> {
    let got = results.len();
    if got == expected { Ok(results) } else { Err(Error::Mismatch { expected, got }) }
}
