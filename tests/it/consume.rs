//! Consume: deliveries and settlements on one stream, within a window.

use std::time::Duration;

use ackwell_proto::v1::consume_request::Frame as Ask;
use ackwell_proto::v1::consume_response::Frame as Told;
use ackwell_proto::v1::{ConsumeRequest, Delivery, Drain, Open, SettleFrame, Settlement, Window};
use ackwell_tests::caller::{Caller, ack, delivered, message};
use ackwell_tests::processes::{Broker, QUEUE, Sidecar, settings};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Everything on a stream comes well within this.
const SOON: Duration = Duration::from_secs(20);

/// One stream, as an application holds it.
pub(crate) struct Stream {
    asks: mpsc::Sender<ConsumeRequest>,
    told: Streaming<ackwell_proto::v1::ConsumeResponse>,
    /// Deliveries that came while something else was waited for.
    early: Vec<Delivery>,
}

impl Stream {
    pub(crate) async fn open(caller: &Caller, max_messages: u32, held: Vec<Vec<u8>>) -> Self {
        let (asks, requests) = mpsc::channel(16);
        let window = Some(Window { max_messages, max_bytes: 0 });
        let open = Open { queue: QUEUE.to_owned(), consumer: "test".to_owned(), window, held };
        asks.send(ConsumeRequest { frame: Some(Ask::Open(open)) }).await.unwrap();
        let told = caller.queues.clone().consume(ReceiverStream::new(requests)).await.unwrap().into_inner();
        let mut stream = Self { asks, told, early: Vec::new() };
        assert!(matches!(stream.next().await, Told::Opened(_)), "the first answer is Opened");
        stream
    }

    async fn ask(&self, frame: Ask) {
        self.asks.send(ConsumeRequest { frame: Some(frame) }).await.unwrap();
    }

    /// Why it was ended, once it is.
    pub(crate) async fn refused(&mut self) -> Status {
        let refused = async {
            loop {
                match self.told.message().await {
                    Ok(told) => assert!(told.is_some(), "the stream was closed without a word"),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(SOON * 2, refused).await.expect("the stream is ended")
    }

    async fn next(&mut self) -> Told {
        let told = tokio::time::timeout(SOON, self.told.message()).await.expect("an answer comes soon");
        told.unwrap().expect("the stream goes on").frame.expect("an answer says something")
    }

    /// The next deliveries, until there are `count`.
    pub(crate) async fn deliveries(&mut self, count: usize) -> Vec<Delivery> {
        let mut all = std::mem::take(&mut self.early);
        while all.len() < count {
            match self.next().await {
                Told::Deliveries(more) => all.extend(more.deliveries),
                other => panic!("{other:?}"),
            }
        }
        all
    }

    /// Settles, and waits for the answer.
    pub(crate) async fn settle(&mut self, seq: u64, settlements: Vec<Settlement>) {
        self.ask(Ask::Settle(SettleFrame { seq, settlements })).await;
        loop {
            match self.next().await {
                Told::Settled(settled) => {
                    assert_eq!(settled.seq, seq);
                    assert!(settled.results.iter().all(|result| result.error.is_none()), "{settled:?}");
                    return;
                }
                Told::Deliveries(more) => self.early.extend(more.deliveries),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Promise: a consumer gets at most its window, and the next message once it has settled one.
#[tokio::test]
async fn window_bounds_what_is_handed_out() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    caller.send((0..5_u8).map(|number| message([number])).collect()).await.unwrap();
    let mut stream = Stream::open(&caller, 2, Vec::new()).await;
    let first = stream.deliveries(2).await;
    assert_eq!(caller.stats().await.in_flight, 2);
    stream.settle(1, vec![ack(&first[0])]).await;
    let more = stream.deliveries(1).await;
    assert_eq!(delivered(&more[0]).body.as_ref(), [2]);
    assert_eq!(caller.stats().await.in_flight, 2);
}

/// Promise: a message that comes later reaches an open stream at once.
#[tokio::test]
async fn new_message_reaches_an_open_stream() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    for caller in [broker.caller().await, sidecar.caller().await] {
        let mut stream = Stream::open(&caller, 10, Vec::new()).await;
        let id = caller.send_body("order").await;
        let deliveries = stream.deliveries(1).await;
        assert_eq!(delivered(&deliveries[0]).id, id);
        stream.settle(1, vec![ack(&deliveries[0])]).await;
    }
}

/// Promise: a consumer that ends on purpose gives back what it holds, at no cost.
#[tokio::test]
async fn closed_stream_gives_back_without_counting_an_attempt() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    caller.send_body("order").await;
    let mut stream = Stream::open(&caller, 10, Vec::new()).await;
    stream.deliveries(1).await;
    stream.ask(Ask::Drain(Drain {})).await;
    let Stream { asks, mut told, .. } = stream;
    drop(asks);
    while tokio::time::timeout(SOON, told.message()).await.expect("it ends soon").unwrap().is_some() {}
    let again = caller.receive_one().await;
    assert_eq!((delivered(&again).attempts, delivered(&again).deliveries), (0, 2));
}

/// Promise: a stream that broke goes on with its deliveries when it comes back in time, at no cost.
#[tokio::test]
async fn broken_stream_resumes_with_what_it_held() {
    let broker = Broker::start(settings());
    // The connection lives on a runtime of its own: when that is gone, so is the socket, without a word.
    let wire = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let caller = wire.spawn(Caller::connect(broker.address(), QUEUE)).await.unwrap();
    caller.send_body("order").await;
    let mut stream = Stream::open(&caller, 10, Vec::new()).await;
    let held = stream.deliveries(1).await;
    wire.shutdown_background();
    let second = broker.caller().await;
    let mut stream = Stream::open(&second, 10, vec![held[0].receipt.to_vec()]).await;
    stream.settle(1, vec![ack(&held[0])]).await;
    assert!(stream.early.is_empty(), "it was not handed out again");
    assert!(second.peek(&[]).await.is_empty());
}

/// Promise: an open stream through a sidecar survives a killed broker.
#[tokio::test(flavor = "multi_thread")]
async fn stream_through_a_sidecar_outlives_a_killed_broker() {
    let mut broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let caller = sidecar.caller().await;
    let mut stream = Stream::open(&caller, 10, Vec::new()).await;
    caller.send_body("before").await;
    let before = stream.deliveries(1).await;
    broker.kill();
    broker.restart();
    caller.send_body("after").await;
    stream.settle(1, vec![ack(&before[0])]).await;
    let after = stream.deliveries(1).await;
    assert_eq!(delivered(&after[0]).body, "after");
}
