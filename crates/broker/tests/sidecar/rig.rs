//! Brokers as processes that can be killed, sidecars in this process, and a network that can be cut.

use std::collections::HashMap;
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ackwell_proto::QueueName;
use ackwell_proto::v1::queue_admin_client::QueueAdminClient;
use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::{
    Backoff, BackoffPolicy, ConsumeRequest, ConsumeResponse, Delivery, Message, Open, ProduceBatch,
    ProduceOpen, ProduceOpened, ProduceRequest, ProduceResponse, ProduceResult, QueueConfig, QueueSettings,
    ReceiveRequest, SendRequest, StatsRequest, StatsResponse, Window, consume_request, consume_response,
    produce_request, produce_response,
};
use ackwelld::sidecar;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

pub(crate) const QUEUE: &str = "orders";
const ACK_TIMEOUT_SECONDS: u32 = 30;
/// A failed test must not hang the run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// One broker process; killed without warning when dropped.
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    folder: TempDir,
    process: Option<Child>,
}

impl Broker {
    /// Starts a queue of one broker.
    pub(crate) fn start() -> Self {
        Self::start_all(1).remove(0)
    }

    /// Starts a queue of one broker whose deliveries are held for `ack_timeout_seconds`.
    pub(crate) fn start_with(ack_timeout_seconds: u32) -> Self {
        Self::launch(1, ack_timeout_seconds).remove(0)
    }

    /// Starts the brokers of a queue with as many shards.
    pub(crate) fn start_all(shards: usize) -> Vec<Self> {
        Self::launch(shards, ACK_TIMEOUT_SECONDS)
    }

    /// Makes it a shard with room for so many messages, from its next start on.
    pub(crate) fn limit(&self, max_messages: u64) {
        let path = self.path("queue.json");
        let mut config: QueueConfig = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config.generation += 1;
        config.settings.as_mut().unwrap().max_messages = max_messages;
        std::fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
    }

    fn launch(shards: usize, ack_timeout_seconds: u32) -> Vec<Self> {
        let addresses: Vec<_> = (0..shards).map(|_| free_address()).collect();
        let named =
            if shards == 1 { Vec::new() } else { addresses.iter().map(ToString::to_string).collect() };
        let start = |address: &SocketAddr| {
            let folder = tempfile::tempdir().unwrap();
            let config = serde_json::to_string(&config(&named, ack_timeout_seconds)).unwrap();
            std::fs::write(folder.path().join("queue.json"), config).unwrap();
            let mut broker = Self { address: *address, folder, process: None };
            broker.restart();
            broker
        };
        addresses.iter().map(start).collect()
    }

    /// An application without a sidecar, once the broker answers.
    pub(crate) async fn client(&self) -> Client {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        let connect = async {
            loop {
                match endpoint.connect().await {
                    Ok(channel) => return Client::over(channel),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, connect).await.expect("the broker starts")
    }

    /// SIGSTOP: it is there, and says nothing.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// After either of the others.
    pub(crate) fn come_back(&mut self) {
        match &self.process {
            Some(_) => self.resume(),
            None => self.restart(),
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.process.as_ref().expect("it runs").id();
        let command = format!("kill -{signal} {id}");
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again at the same address with what is on disk.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let process = Command::new(env!("CARGO_BIN_EXE_ackwelld"))
            .arg("broker")
            .arg("--config")
            .arg(self.path("queue.json"))
            .arg("--data")
            .arg(self.path("data"))
            .args(["--http", "127.0.0.1:0", "--listen", &self.address.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A sidecar of this process.
pub(crate) struct Sidecar {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Sidecar {
    pub(crate) async fn start(broker: SocketAddr) -> Self {
        let options = sidecar::Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            unix_socket: None,
            http: None,
            namespace: "shop".to_owned(),
            queues: vec![QueueName::parse(QUEUE, "shop").unwrap()],
            broker_address: broker.to_string(),
            entries: HashMap::new(),
            broker_ca: None,
            token: None,
        };
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let ready = move |address| tell.send(address).unwrap();
        let task =
            tokio::spawn(
                async move { sidecar::run(options, ready, async { stopped.await.unwrap_or(()) }).await },
            );
        Self { address: told.await.unwrap(), stop, task }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// As the preStop hook does when the pod ends.
    pub(crate) async fn drain(&self) {
        let address = self.address;
        tokio::task::spawn_blocking(move || sidecar::tell_to_drain(address)).await.unwrap().unwrap();
    }

    /// As SIGTERM does.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

/// An application.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) queues: QueuesClient<Channel>,
    pub(crate) admin: QueueAdminClient<Channel>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self::over(channel)
    }

    fn over(channel: Channel) -> Self {
        Self { queues: QueuesClient::new(channel.clone()), admin: QueueAdminClient::new(channel) }
    }

    pub(crate) async fn send(&mut self, body: &str) -> Result<(), tonic::Status> {
        let message = Message { body: body.to_owned().into(), ..Message::default() };
        let request =
            SendRequest { queue: QUEUE.to_owned(), messages: vec![message], ..SendRequest::default() };
        let response = self.queues.send(request).await?.into_inner();
        assert_eq!(response.results.len(), 1);
        assert_eq!(response.results[0].error, None);
        Ok(())
    }

    pub(crate) async fn receive(&mut self, max_messages: u32) -> Vec<Delivery> {
        let request = ReceiveRequest { queue: QUEUE.to_owned(), max_messages, ..ReceiveRequest::default() };
        self.queues.receive(request).await.unwrap().into_inner().deliveries
    }

    pub(crate) async fn receive_one(&mut self) -> Delivery {
        self.receive(1).await.pop().expect("a message within the default wait")
    }

    pub(crate) async fn stats(&mut self) -> StatsResponse {
        let request = StatsRequest { queue: QUEUE.to_owned(), interval: None };
        self.admin.stats(request).await.unwrap().into_inner()
    }

    /// Opens a stream for batches; with its name, and what it is told first.
    pub(crate) async fn produce(&mut self, producer: &str, want_ids: bool) -> (Producer, ProduceOpened) {
        let (frames, requests) = mpsc::channel(64);
        let open = ProduceOpen { queue: QUEUE.to_owned(), producer: producer.to_owned(), want_ids };
        let frame = Some(produce_request::Frame::Open(open));
        frames.send(ProduceRequest { frame }).await.unwrap();
        let responses = self.queues.produce(ReceiverStream::new(requests)).await.unwrap().into_inner();
        let mut producer = Producer { frames, responses };
        match producer.next().await {
            produce_response::Frame::Opened(opened) => (producer, opened),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn consume(&mut self, max_messages: u32, held: Vec<Vec<u8>>) -> Consumer {
        let (frames, requests) = mpsc::channel(16);
        let window = Some(Window { max_messages, max_bytes: 0 });
        let open = Open { queue: QUEUE.to_owned(), consumer: "test".to_owned(), window, held };
        let frame = Some(consume_request::Frame::Open(open));
        frames.send(ConsumeRequest { frame }).await.unwrap();
        let responses = self.queues.consume(ReceiverStream::new(requests)).await.unwrap().into_inner();
        let mut consumer = Consumer { frames, responses };
        assert!(matches!(consumer.next().await, consume_response::Frame::Opened(_)));
        consumer
    }
}

/// A stream of an application that sends.
pub(crate) struct Producer {
    pub(crate) frames: mpsc::Sender<ProduceRequest>,
    pub(crate) responses: Streaming<ProduceResponse>,
}

impl Producer {
    pub(crate) async fn batch(&self, seq: u64, messages: Vec<Message>) {
        let frame = Some(produce_request::Frame::Batch(ProduceBatch { seq, messages }));
        self.frames.send(ProduceRequest { frame }).await.unwrap();
    }

    pub(crate) async fn try_next(&mut self) -> Result<Option<produce_response::Frame>, tonic::Status> {
        let response = tokio::time::timeout(PATIENCE, self.responses.message()).await.unwrap()?;
        Ok(response.map(|response| response.frame.unwrap()))
    }

    pub(crate) async fn next(&mut self) -> produce_response::Frame {
        self.try_next().await.unwrap().expect("the stream goes on")
    }

    /// Until the batch is confirmed; what was said of single messages on the way.
    pub(crate) async fn confirmed(&mut self, seq: u64) -> Vec<ProduceResult> {
        let (mut results, mut through) = (Vec::new(), 0);
        while through < seq {
            if let produce_response::Frame::Confirm(confirm) = self.next().await {
                assert!(confirm.through_seq > through, "{} after {through}", confirm.through_seq);
                through = confirm.through_seq;
                results.extend(confirm.results);
            }
        }
        assert_eq!(through, seq);
        results
    }
}

/// A stream of an application that receives.
pub(crate) struct Consumer {
    pub(crate) frames: mpsc::Sender<ConsumeRequest>,
    pub(crate) responses: Streaming<ConsumeResponse>,
}

impl Consumer {
    pub(crate) async fn next(&mut self) -> consume_response::Frame {
        let response = tokio::time::timeout(PATIENCE, self.responses.message()).await.unwrap();
        response.unwrap().expect("the stream goes on").frame.unwrap()
    }

    pub(crate) async fn next_deliveries(&mut self) -> Vec<Delivery> {
        match self.next().await {
            consume_response::Frame::Deliveries(frame) => frame.deliveries,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn tell(&self, frame: consume_request::Frame) {
        self.frames.send(ConsumeRequest { frame: Some(frame) }).await.unwrap();
    }
}

/// A network between an application and its sidecar; cut when dropped.
pub(crate) struct Network {
    pub(crate) address: SocketAddr,
    wire: JoinHandle<()>,
}

impl Network {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let wire = tokio::spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(server).await.unwrap();
            _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            pending::<()>().await;
        });
        Self { address, wire }
    }

    pub(crate) fn cut(self) {
        self.wire.abort();
    }
}

pub(crate) fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.as_ref().unwrap().body.to_vec()).unwrap()
}

pub(crate) fn attempts(delivery: &Delivery) -> u32 {
    delivery.message.as_ref().unwrap().attempts
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn config(shard_addresses: &[String], ack_timeout_seconds: u32) -> QueueConfig {
    let backoff = Backoff { policy: BackoffPolicy::Constant.into(), min_seconds: 1, max_seconds: 1 };
    let settings = QueueSettings {
        ack_timeout_seconds,
        max_processing_seconds: 1800,
        max_attempts: 10,
        backoff: Some(backoff),
        max_message_bytes: 1 << 20,
        max_in_flight: 100_000,
        dead_seconds: 3600,
        dedup_window_seconds: 600,
        ..QueueSettings::default()
    };
    QueueConfig {
        placement: None,
        restoring: false,
        namespace: "shop".to_owned(),
        name: QUEUE.to_owned(),
        generation: 1,
        shard_addresses: shard_addresses.to_vec(),
        settings: Some(settings),
        access: None,
    }
}
