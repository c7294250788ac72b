//! An application with nothing but the generated stubs: one call is one request, and every refusal is seen as it is.

use std::net::SocketAddr;
use std::time::Duration;

use ackwell_proto::Failure;
use ackwell_proto::v1::queue_admin_client::QueueAdminClient;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::settlement::Outcome;
use ackwell_proto::v1::shard_client::ShardClient;
use ackwell_proto::v1::{
    Ack, ConfigureRequest, Delivery, ExtendRequest, ExtendResult, Filter, Message, Nack, PeekRequest,
    QueueConfig, ReceiveRequest, RedriveRequest, Reject, Release, SendRequest, SendResult, SettleRequest,
    SettleResult, Settlement, State, StatsRequest, StatsResponse,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A connection, and the queue that is called through it.
#[derive(Clone)]
pub struct Caller {
    /// The stubs themselves, for what has no shorthand here.
    pub queues: QueuesClient<Connection>,
    /// The same for people's calls.
    pub admin: QueueAdminClient<Connection>,
    /// And for those of operators and sidecars.
    pub shard: ShardClient<Connection>,
    channel: Channel,
    queue: String,
}

/// A connection whose calls show a token, if there is one.
pub type Connection = InterceptedService<Channel, Token>;

/// What calls show.
#[derive(Clone, Default)]
pub struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Caller {
    /// Connects; the process must run.
    pub async fn connect(address: SocketAddr, queue: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("it is an address");
        let channel = endpoint.connect().await.expect("the process runs");
        Self::over(channel, queue, Token::default())
    }

    /// The same connection, showing a token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        let value = format!("Bearer {token}").parse().expect("a token is text");
        Self::over(self.channel, &self.queue, Token(Some(value)))
    }

    /// Connects with each call that finds no connection.
    pub fn connect_lazy(address: SocketAddr, queue: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("it is an address");
        Self::over(endpoint.connect_lazy(), queue, Token::default())
    }

    fn over(channel: Channel, queue: &str, token: Token) -> Self {
        let connection = InterceptedService::new(channel.clone(), token);
        let queues = QueuesClient::new(connection.clone()).max_decoding_message_size(64 << 20);
        let (admin, shard) = (QueueAdminClient::new(connection.clone()), ShardClient::new(connection));
        Self { queues, admin, shard, channel, queue: queue.to_owned() }
    }

    /// The same connection, for another queue.
    #[must_use]
    pub fn queue(&self, queue: &str) -> Self {
        Self { queue: queue.to_owned(), ..self.clone() }
    }

    /// Sends, and answers per message.
    pub async fn send(&self, messages: Vec<Message>) -> Result<Vec<SendResult>, Status> {
        let request = SendRequest { queue: self.queue.clone(), messages, ..SendRequest::default() };
        Ok(self.queues.clone().send(request).await?.into_inner().results)
    }

    /// Sends one message; why it was refused, otherwise.
    pub async fn try_send(&self, message: Message) -> Result<SendResult, Failure> {
        self.send(vec![message]).await.map(only).map_err(|status| failure(&status))
    }

    /// Sends one message that must be stored; its id.
    pub async fn send_one(&self, message: Message) -> String {
        self.try_send(message).await.expect("it is stored").id
    }

    /// Sends one body.
    pub async fn send_body(&self, body: impl Into<Vec<u8>>) -> String {
        self.send_one(message(body)).await
    }

    /// Up to `max` messages that are Ready now, or become so within `wait`.
    pub async fn receive(&self, max: u32, wait: Duration) -> Result<Vec<Delivery>, Status> {
        let wait = Some(ackwell_proto::duration(u64::try_from(wait.as_millis()).expect("a short time")));
        let request = ReceiveRequest {
            queue: self.queue.clone(),
            max_messages: max,
            wait,
            ..ReceiveRequest::default()
        };
        Ok(self.queues.clone().receive(request).await?.into_inner().deliveries)
    }

    /// The next message, which must come within 20 s.
    pub async fn receive_one(&self) -> Delivery {
        let mut deliveries = self.receive(1, Duration::from_secs(20)).await.expect("the call succeeds");
        deliveries.pop().expect("a message is there")
    }

    /// Whether nothing is Ready now.
    pub async fn is_empty(&self) -> bool {
        self.receive(1, Duration::ZERO).await.expect("the call succeeds").is_empty()
    }

    /// Settles, and answers per settlement.
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<SettleResult>, Status> {
        let request = SettleRequest { queue: self.queue.clone(), settlements };
        Ok(self.queues.clone().settle(request).await?.into_inner().results)
    }

    /// Settles one delivery; what became of it, or why not.
    pub async fn settle_one(&self, settlement: Settlement) -> Result<SettleResult, Failure> {
        let results = self.settle(vec![settlement]).await.map_err(|status| failure(&status))?;
        Ok(only(results))
    }

    /// Holds a delivery for `hold` from now.
    pub async fn extend(&self, delivery: &Delivery, hold: Duration) -> Result<ExtendResult, Failure> {
        let ack_timeout =
            Some(ackwell_proto::duration(u64::try_from(hold.as_millis()).expect("a short time")));
        let receipts = vec![delivery.receipt.to_vec()];
        let request = ExtendRequest { queue: self.queue.clone(), receipts, ack_timeout };
        let response = self.queues.clone().extend(request).await.map_err(|status| failure(&status))?;
        Ok(only(response.into_inner().results))
    }

    /// Changes the settings of a queue, as operators do.
    pub async fn configure(&self, config: QueueConfig) -> Result<(), Status> {
        let request = ConfigureRequest { config: Some(config) };
        self.shard.clone().configure(request).await.map(drop)
    }

    /// Counts.
    pub async fn stats(&self) -> StatsResponse {
        let request = StatsRequest { queue: self.queue.clone(), interval: None };
        self.admin.clone().stats(request).await.expect("the call succeeds").into_inner()
    }

    /// All messages in any of `states`; none given: all messages.
    pub async fn peek(&self, states: &[State]) -> Vec<Message> {
        let request = PeekRequest {
            queue: self.queue.clone(),
            filter: Some(filter(states)),
            limit: 1000,
            body_bytes: 1 << 20,
            ..PeekRequest::default()
        };
        self.admin.clone().peek(request).await.expect("the call succeeds").into_inner().messages
    }

    /// Puts all Dead messages back; how many.
    pub async fn redrive(&self) -> u64 {
        let request = RedriveRequest { queue: self.queue.clone(), ..RedriveRequest::default() };
        self.admin.clone().redrive(request).await.expect("the call succeeds").into_inner().redriven
    }
}

/// The answer to a call with a single item, which would have failed as a whole with it.
fn only<T>(mut results: Vec<T>) -> T {
    assert_eq!(results.len(), 1, "one result per item");
    results.pop().expect("there is one")
}

/// A filter for states.
pub fn filter(states: &[State]) -> Filter {
    Filter { states: states.iter().map(|state| i32::from(*state)).collect(), ..Filter::default() }
}

/// A message with nothing but a body.
pub fn message(body: impl Into<Vec<u8>>) -> Message {
    let body: Vec<u8> = body.into();
    Message { body: body.into(), ..Message::default() }
}

/// The message in a delivery.
pub fn delivered(delivery: &Delivery) -> &Message {
    delivery.message.as_ref().expect("a delivery has a message")
}

/// Done.
pub fn ack(delivery: &Delivery) -> Settlement {
    settlement(delivery, Outcome::Ack(Ack {}))
}

/// Failed; again after `delay`, or after the queue's backoff.
pub fn nack(delivery: &Delivery, delay: Option<Duration>) -> Settlement {
    let delay =
        delay.map(|delay| ackwell_proto::duration(u64::try_from(delay.as_millis()).expect("a short time")));
    settlement(delivery, Outcome::Nack(Nack { delay, reason: "broken".to_owned() }))
}

/// Not processed.
pub fn release(delivery: &Delivery) -> Settlement {
    settlement(delivery, Outcome::Release(Release {}))
}

/// Never again.
pub fn reject(delivery: &Delivery) -> Settlement {
    settlement(delivery, Outcome::Reject(Reject { reason: "nonsense".to_owned() }))
}

fn settlement(delivery: &Delivery, outcome: Outcome) -> Settlement {
    Settlement { receipt: delivery.receipt.clone(), outcome: Some(outcome) }
}

/// What a refused call says; panics where it is no refusal of ours.
#[track_caller]
pub fn failure(status: &Status) -> Failure {
    Failure::from_status(status).unwrap_or_else(|| panic!("not one of our refusals: {status:?}"))
}
