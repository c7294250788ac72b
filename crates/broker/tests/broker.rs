//! A broker of this process, over real sockets: what its callers are promised beyond what the engine decides.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ackwell_proto::duration;
use ackwell_proto::v1::consume_response::Frame;
use ackwell_proto::v1::queue_admin_client::QueueAdminClient;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::shard_client::ShardClient;
use ackwell_proto::v1::{
    Ack, Backoff, BackoffPolicy, ConfigureRequest, ConsumeRequest, ConsumeResponse, Delivery, Drain,
    ExtendFrame, Message, Open, PeekRequest, ProduceBatch, ProduceConfirm, ProduceOpen, ProduceRequest,
    ProduceWindow, QueueConfig, QueueSettings, ReceiveRequest, SendRequest, SettleRequest, Settlement,
    Window, consume_request, produce_request, produce_response, settlement,
};
use ackwelld::broker;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

const QUEUE: &str = "orders";
/// A failed test must not hang the run.
const PATIENCE: Duration = Duration::from_secs(20);

struct Broker {
    channel: Channel,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Broker {
    async fn start(data: &Path, generation: u64) -> Self {
        let options = broker::Options {
            ordinal: None,
            broker_ca: None,
            data: data.to_owned(),
            max_rows: broker::MAX_ROWS,
            encryption_keys: None,
            listen: "127.0.0.1:0".parse().unwrap(),
            http: None,
            tls: None,
            namespace: "shop".to_owned(),
            queues: vec![config(generation)],
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let ready = move |address: SocketAddr| tell.send(address).unwrap();
        let stopped = async { stopped.await.unwrap_or(()) };
        let task = tokio::spawn(async move { broker::run(options, ready, stopped).await });
        let address = told.await.unwrap();
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { channel, stop, task }
    }

    async fn stop(self) {
        drop(self.channel);
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    fn queues(&self) -> QueuesClient<Channel> {
        QueuesClient::new(self.channel.clone())
    }

    async fn send(&self, messages: Vec<Message>) -> Result<(), tonic::Status> {
        for batch in messages.chunks(200) {
            let (queue, messages) = (QUEUE.to_owned(), batch.to_vec());
            let sent = self
                .queues()
                .send(SendRequest { queue, messages, ..SendRequest::default() })
                .await?
                .into_inner();
            assert!(sent.results.iter().all(|result| result.error.is_none()));
        }
        Ok(())
    }

    async fn receive(&self, max_messages: u32, wait_ms: u64) -> Vec<Delivery> {
        let (queue, wait) = (QUEUE.to_owned(), Some(duration(wait_ms)));
        let request = ReceiveRequest { queue, max_messages, wait, ..ReceiveRequest::default() };
        self.queues().receive(request).await.unwrap().into_inner().deliveries
    }

    async fn consume(&self, max_messages: u32) -> Consumer {
        let (frames, requests) = mpsc::channel(16);
        let window = Some(Window { max_messages, max_bytes: 0 });
        let open = Open { queue: QUEUE.to_owned(), window, ..Open::default() };
        let frame = Some(consume_request::Frame::Open(open));
        frames.send(ConsumeRequest { frame }).await.unwrap();
        let responses = self.queues().consume(ReceiverStream::new(requests)).await.unwrap().into_inner();
        let mut consumer = Consumer { frames, responses };
        assert!(matches!(consumer.next().await, Frame::Opened(_)));
        consumer
    }
}

struct Consumer {
    frames: mpsc::Sender<ConsumeRequest>,
    responses: Streaming<ConsumeResponse>,
}

impl Consumer {
    async fn next(&mut self) -> Frame {
        let response = tokio::time::timeout(PATIENCE, self.responses.message()).await.unwrap();
        response.unwrap().expect("the stream goes on").frame.unwrap()
    }

    async fn tell(&self, frame: consume_request::Frame) {
        self.frames.send(ConsumeRequest { frame: Some(frame) }).await.unwrap();
    }
}

fn config(generation: u64) -> QueueConfig {
    let backoff = Backoff { policy: BackoffPolicy::Constant.into(), min_seconds: 1, max_seconds: 1 };
    let settings = QueueSettings {
        ack_timeout_seconds: 30,
        max_processing_seconds: 1800,
        max_attempts: 10,
        backoff: Some(backoff),
        max_message_bytes: 1 << 20,
        max_in_flight: 100_000,
        ..QueueSettings::default()
    };
    QueueConfig {
        placement: None,
        restoring: false,
        namespace: "shop".to_owned(),
        name: QUEUE.to_owned(),
        generation,
        shard_addresses: Vec::new(),
        settings: Some(settings),
        access: None,
    }
}

/// Messages whose headers are most of them.
fn with_headers(count: usize, header_bytes: usize) -> Vec<Message> {
    let headers = [("note".to_owned(), "x".repeat(header_bytes))].into();
    vec![Message { body: "b".into(), headers, ..Message::default() }; count]
}

/// A file that is older than what the operator has told meanwhile is no reason to serve nothing.
#[tokio::test]
async fn broker_with_an_older_file_serves() {
    let data = tempfile::tempdir().unwrap();
    Broker::start(data.path(), 2).await.stop().await;
    let broker = Broker::start(data.path(), 1).await;
    broker.send(with_headers(1, 1)).await.unwrap();
    let configure = ConfigureRequest { config: Some(config(2)) };
    let answer = ShardClient::new(broker.channel.clone()).configure(configure).await.unwrap();
    assert_eq!(answer.into_inner().generation, 2);
    broker.stop().await;
}

/// No client is sent more than the 4 MiB that gRPC takes by default, or it could never get past these messages.
#[tokio::test]
async fn answers_with_large_headers_fit_every_client() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 1).await;
    broker.send(with_headers(1000, 8 << 10)).await.unwrap();
    let request = PeekRequest { queue: QUEUE.to_owned(), limit: 1000, ..PeekRequest::default() };
    let page = QueueAdminClient::new(broker.channel.clone()).peek(request).await.unwrap().into_inner();
    assert!(!page.messages.is_empty() && !page.cursor.is_empty());

    let received = broker.receive(1000, 0).await;
    assert!(!received.is_empty());
    let mut consumer = broker.consume(10_000).await;
    let mut taken = 0;
    while received.len() + taken < 1000 {
        let Frame::Deliveries(frame) = consumer.next().await else { continue };
        taken += frame.deliveries.len();
        assert!(frame.deliveries.iter().all(|delivery| delivery.message.as_ref().unwrap().attempts == 0));
    }
    drop(consumer);
    broker.stop().await;
}

/// A page of Peek goes on where it was cut, however the messages are made.
#[tokio::test]
async fn peek_pages_show_everything_once() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 1).await;
    let mut messages = with_headers(300, 20 << 10);
    messages.extend(vec![Message { body: vec![7; 1 << 20].into(), ..Message::default() }; 9]);
    for batch in messages.chunks(9) {
        broker.send(batch.to_vec()).await.unwrap();
    }
    let mut admin = QueueAdminClient::new(broker.channel.clone());
    let mut peek =
        PeekRequest { queue: QUEUE.to_owned(), limit: 1000, body_bytes: 1 << 20, ..PeekRequest::default() };
    let mut ids = Vec::new();
    loop {
        let page = admin.peek(peek.clone()).await.unwrap().into_inner();
        ids.extend(page.messages.into_iter().map(|message| message.id));
        if page.cursor.is_empty() {
            break;
        }
        peek.cursor = page.cursor;
    }
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_eq!(ids.len(), 309);
    broker.stop().await;
}

/// Drain is for good: a window that was on its way changes nothing.
#[tokio::test]
async fn window_after_drain_brings_nothing() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 1).await;
    let mut consumer = broker.consume(10).await;
    consumer.tell(consume_request::Frame::Drain(Drain {})).await;
    consumer.tell(consume_request::Frame::Window(Window { max_messages: 10, max_bytes: 0 })).await;
    consumer.tell(consume_request::Frame::Extend(ExtendFrame { seq: 1, ..ExtendFrame::default() })).await;
    assert!(matches!(consumer.next().await, Frame::Extended(_)));
    broker.send(with_headers(1, 1)).await.unwrap();
    assert_eq!(broker.receive(1, 5_000).await.len(), 1);
    drop(consumer);
    broker.stop().await;
}

/// Leaving a broker that stops is free: what was held is Ready when it is back, not after its ack timeout.
#[tokio::test]
async fn leaving_on_go_away_is_free() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 1).await;
    broker.send(with_headers(1, 1)).await.unwrap();
    let mut consumer = broker.consume(1).await;
    assert!(matches!(consumer.next().await, Frame::Deliveries(_)));
    let leave = async move {
        assert!(matches!(consumer.next().await, Frame::GoAway(_)));
        drop(consumer);
    };
    tokio::join!(broker.stop(), leave);
    let broker = Broker::start(data.path(), 1).await;
    let again = broker.receive(1, 0).await;
    let message = again[0].message.as_ref().unwrap();
    assert_eq!((message.attempts, message.deliveries), (0, 2));
    broker.stop().await;
}

/// Sends single messages until one is refused or `count` are confirmed; the windows that were told, and how many were stored.
async fn produce_alone(broker: &Broker, count: u64) -> (Vec<ProduceWindow>, u64) {
    let (say, requests) = mpsc::channel(4);
    let say = async |frame| say.send(ProduceRequest { frame: Some(frame) }).await.unwrap();
    let open = ProduceOpen { queue: QUEUE.to_owned(), ..ProduceOpen::default() };
    say(produce_request::Frame::Open(open)).await;
    let mut heard = broker.queues().produce(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let (mut windows, mut seq) = (Vec::new(), 0);
    loop {
        let heard = tokio::time::timeout(PATIENCE, heard.message()).await.unwrap().unwrap().unwrap();
        match heard.frame.unwrap() {
            produce_response::Frame::Opened(opened) => windows.push(opened.window.unwrap()),
            produce_response::Frame::Window(window) => {
                windows.push(window);
                continue;
            }
            produce_response::Frame::Confirm(ProduceConfirm { results, .. }) if !results.is_empty() => {
                let error = results[0].result.as_ref().unwrap().error.as_ref().unwrap();
                assert_eq!(error.reason, "QUEUE_FULL");
                assert!(error.retry_after.is_some());
                return (windows, seq - 1);
            }
            produce_response::Frame::Confirm(_) => {}
            produce_response::Frame::GoAway(_) => panic!("nobody stops"),
        }
        if seq == count {
            return (windows, seq);
        }
        seq += 1;
        let batch = ProduceBatch { seq, messages: vec![Message::default()] };
        say(produce_request::Frame::Batch(batch)).await;
    }
}

/// Producers are told to slow down before anything is refused, and to go on when there is room again.
#[tokio::test]
async fn window_of_a_producer_follows_the_room_in_the_queue() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 1).await;
    let mut config = config(2);
    config.settings.as_mut().unwrap().max_messages = 40;
    let configure = ConfigureRequest { config: Some(config) };
    ShardClient::new(broker.channel.clone()).configure(configure).await.unwrap();
    let (windows, stored) = produce_alone(&broker, 100).await;
    let widths: Vec<_> = windows.iter().map(|window| window.max_messages).collect();
    assert_eq!((widths, stored), (vec![10, 5, 2, 1], 40), "all of them before the refusal");
    let settlements = broker.receive(40, 0).await.into_iter().map(|delivery| Settlement {
        receipt: delivery.receipt,
        outcome: Some(settlement::Outcome::Ack(Ack {})),
    });
    let settle = SettleRequest { queue: QUEUE.to_owned(), settlements: settlements.collect() };
    broker.queues().settle(settle).await.unwrap();
    let (windows, stored) = produce_alone(&broker, 1).await;
    assert_eq!((windows[0].max_messages, stored), (10, 1));
    broker.stop().await;
}

/// A consumer that does not read takes no more than what fits between it and the broker, however large its window is: the
/// rest is for others, and not in the broker's memory.
#[tokio::test]
async fn consumer_that_does_not_read_leaves_the_rest_to_others() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), 1).await;
    let (frames, requests) = mpsc::channel(16);
    let window = Some(Window { max_messages: 10_000, max_bytes: 256 << 20 });
    let open = Open { queue: QUEUE.to_owned(), window, ..Open::default() };
    frames.send(ConsumeRequest { frame: Some(consume_request::Frame::Open(open)) }).await.unwrap();
    let unread = broker.queues().consume(ReceiverStream::new(requests)).await.unwrap();
    for _ in 0..50 {
        let message = Message { body: vec![7; 1 << 20].into(), ..Message::default() };
        broker.send(vec![message]).await.unwrap();
    }
    let others = broker.receive(1, 10_000).await;
    assert_eq!(others.len(), 1);
    drop((unread, frames));
    broker.stop().await;
}
