//! A sidecar before real broker processes: what an application sees when those are killed, and what they see when it is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "sidecar/drain.rs"]
mod drain;
#[path = "sidecar/http.rs"]
mod http;
#[path = "sidecar/produce.rs"]
mod produce;
#[path = "sidecar/rig.rs"]
mod rig;
#[path = "sidecar/shards.rs"]
mod shards;
#[path = "sidecar/stub.rs"]
mod stub;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use ackwell_proto::v1::consume_response::Frame;
use ackwell_proto::v1::{
    Ack, Delivery, ExtendRequest, Message, Nack, PeekRequest, ReceiveRequest, SendRequest, SettleFrame,
    SettleRequest, SettleResponse, Settlement, consume_request, message, settlement,
};
use ackwell_proto::{Failure, Reason, duration};
use rig::{Broker, Client, Network, PATIENCE, QUEUE, Sidecar, attempts, body};
use stub::{Asked, Stub};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Request};

fn acks<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> Vec<Settlement> {
    let ack = || Some(settlement::Outcome::Ack(Ack {}));
    let settlement = |delivery: &Delivery| Settlement { receipt: delivery.receipt.clone(), outcome: ack() };
    deliveries.into_iter().map(settlement).collect()
}

async fn settle(client: &mut Client, settlements: Vec<Settlement>) -> Result<SettleResponse, tonic::Status> {
    let request = SettleRequest { queue: QUEUE.to_owned(), settlements };
    Ok(client.queues.settle(request).await?.into_inner())
}

/// A broker restart is a pause: no send fails, and nothing is stored twice or lost.
#[tokio::test]
async fn sends_through_broker_kills_are_stored_once() {
    let mut broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    let sender = tokio::spawn({
        let mut client = client.clone();
        async move {
            for index in 0..200 {
                client.send(&index.to_string()).await.unwrap();
            }
        }
    });
    let mut received = Vec::new();
    while received.len() < 200 {
        let deliveries = client.receive(20).await;
        assert!(!deliveries.is_empty(), "{} of 200", received.len());
        received.extend(deliveries.iter().map(body));
        let before = received.len() - deliveries.len();
        if before / 60 != received.len() / 60 {
            broker.restart();
        }
        let settled = settle(&mut client, acks(&deliveries)).await;
        settled.unwrap().results.iter().for_each(|result| assert_eq!(result.error, None));
    }
    sender.await.unwrap();
    let distinct: BTreeSet<_> = received.iter().collect();
    assert_eq!((distinct.len(), received.len()), (200, 200));
    let stats = client.stats().await;
    assert_eq!((stats.ready, stats.delayed, stats.in_flight, stats.dead), (0, 0, 0, 0));
}

/// A receipt from before a restart of the broker, and of the sidecar, still settles.
#[tokio::test]
async fn receipt_after_restarts_settles() {
    let mut broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    client.send("a").await.unwrap();
    let delivery = client.receive_one().await;
    assert!(delivery.receipt.len() <= 64);
    broker.restart();
    let other = Sidecar::start(broker.address).await;
    let mut client = other.client().await;
    let extend = ExtendRequest {
        queue: QUEUE.to_owned(),
        receipts: vec![delivery.receipt.to_vec()],
        ack_timeout: None,
    };
    let extended = client.queues.extend(extend).await.unwrap().into_inner();
    assert_eq!(extended.results[0].error, None);
    let settled = settle(&mut client, acks([&delivery])).await.unwrap();
    assert_eq!(settled.results[0].error, None);
    drop(sidecar);
}

/// A consumer sees a broker's death as a pause: nothing is revoked, every ack counts, no attempt is burnt.
#[tokio::test]
async fn consume_through_broker_kills_is_a_pause() {
    let mut broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    for index in 0..60 {
        client.send(&index.to_string()).await.unwrap();
    }
    let mut consumer = client.consume(10, Vec::new()).await;
    let mut open: HashMap<u64, Vec<Delivery>> = HashMap::new();
    let mut acked = BTreeSet::new();
    let mut seq = 0;
    while acked.len() < 60 {
        match consumer.next().await {
            Frame::Deliveries(frame) => {
                frame.deliveries.iter().for_each(|delivery| assert_eq!(attempts(delivery), 0));
                if seq % 3 == 1 {
                    broker.restart();
                }
                seq += 1;
                let settlements = acks(&frame.deliveries);
                open.insert(seq, frame.deliveries);
                consumer.tell(consume_request::Frame::Settle(SettleFrame { seq, settlements })).await;
            }
            Frame::Settled(frame) => {
                frame.results.iter().for_each(|result| assert_eq!(result.error, None));
                let deliveries = open.remove(&frame.seq).unwrap();
                assert_eq!(frame.results.len(), deliveries.len());
                assert!(deliveries.iter().all(|delivery| acked.insert(body(delivery))));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(seq >= 6, "the broker was killed at least twice");
    assert_eq!(client.stats().await.in_flight, 0);
}

/// What an application received before it cancelled, or never got, is free for others at once.
#[tokio::test]
async fn cancelled_stream_costs_no_attempt() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    client.send("a").await.unwrap();
    let mut consumer = client.consume(1, Vec::new()).await;
    assert_eq!(consumer.next_deliveries().await.len(), 1);
    drop(consumer);
    let delivery = client.receive_one().await;
    assert_eq!(attempts(&delivery), 0);
}

/// An application that died loses an attempt after its grace, one that came back does not.
#[tokio::test]
async fn broken_connection_costs_an_attempt_unless_held() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let network = Network::to(sidecar.address).await;
    let mut client = Client::connect(network.address).await;
    client.send("kept").await.unwrap();
    client.send("lost").await.unwrap();
    let mut consumer = client.consume(2, Vec::new()).await;
    let mut deliveries = consumer.next_deliveries().await;
    while deliveries.len() < 2 {
        deliveries.extend(consumer.next_deliveries().await);
    }
    network.cut();
    let kept = deliveries.iter().find(|delivery| body(delivery) == "kept").unwrap();
    let mut client = sidecar.client().await;
    let mut consumer = client.consume(2, vec![kept.receipt.to_vec()]).await;
    let back = consumer.next_deliveries().await;
    assert_eq!(
        back.iter().map(|delivery| (body(delivery), attempts(delivery))).collect::<Vec<_>>(),
        [("lost".into(), 1)]
    );
    let frame = SettleFrame { seq: 1, settlements: acks([kept, &back[0]]) };
    consumer.tell(consume_request::Frame::Settle(frame)).await;
    let Frame::Settled(settled) = consumer.next().await else { panic!() };
    assert_eq!(settled.results.iter().map(|result| &result.error).collect::<Vec<_>>(), [&None, &None]);
}

/// A long poll that its caller gave up takes no message away.
#[tokio::test]
async fn abandoned_receive_keeps_nothing() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    for _ in 0..20 {
        let mut waiting = client.clone();
        let poll = tokio::spawn(async move { waiting.receive(5).await });
        let mut sending = client.clone();
        let send = tokio::spawn(async move { sending.send("a").await });
        poll.abort();
        send.await.unwrap().unwrap();
    }
    let mut count = 0;
    while count < 20 {
        let deliveries = client.receive(5).await;
        deliveries.iter().for_each(|delivery| assert_eq!(attempts(delivery), 0));
        count += deliveries.len();
        assert!(!deliveries.is_empty(), "{count} of 20");
        settle(&mut client, acks(&deliveries)).await.unwrap();
    }
}

/// Deliveries whose answer was on its way when the application gave up are found and given back.
#[tokio::test]
async fn answer_that_nobody_got_is_released() {
    let (address, mut asked) = Stub::start().await;
    let sidecar = Sidecar::start(address).await;
    let mut client = sidecar.client().await;
    let poll = tokio::spawn(async move { client.receive(5).await });
    let Some(Asked::Receive(first)) = asked.recv().await else { panic!() };
    poll.abort();
    let Some(Asked::Receive(second)) = asked.recv().await else { panic!() };
    assert_eq!((second.request_id, second.wait), (first.request_id, Some(duration(0))));
    let Some(Asked::Settle(settle)) = asked.recv().await else { panic!() };
    assert_eq!(settle.settlements[0].receipt, "receipt");
    assert!(matches!(settle.settlements[0].outcome, Some(settlement::Outcome::Release(_))));
}

/// What a consumer works on for long stays its own through a broker's death.
#[tokio::test]
async fn held_delivery_outlives_its_ack_timeout_through_a_kill() {
    let mut broker = Broker::start_with(ACK_TIMEOUT);
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    client.send("held").await.unwrap();
    let mut consumer = client.consume(5, Vec::new()).await;
    let held = consumer.next_deliveries().await;
    broker.restart();
    let delay = Some(message::Available::Delay(duration(2 * 1000 * u64::from(ACK_TIMEOUT))));
    let later = Message { body: "later".into(), available: delay, ..Message::default() };
    let send = SendRequest { queue: QUEUE.to_owned(), messages: vec![later], ..SendRequest::default() };
    client.queues.send(send).await.unwrap();
    let later = consumer.next_deliveries().await;
    assert_eq!(later.iter().map(body).collect::<Vec<_>>(), ["later"]);
    let frame = SettleFrame { seq: 1, settlements: acks(held.iter().chain(&later)) };
    consumer.tell(consume_request::Frame::Settle(frame)).await;
    let Frame::Settled(settled) = consumer.next().await else { panic!() };
    assert_eq!(settled.results.iter().map(|result| &result.error).collect::<Vec<_>>(), [&None, &None]);
}

/// Long enough for a killed broker to be back on a busy machine.
const ACK_TIMEOUT: u32 = 5;

/// An application that is frozen keeps its connection open until the last moment; what it holds is given back all the same.
#[tokio::test]
async fn frozen_application_does_not_keep_deliveries() {
    let (address, mut asked) = Stub::slow().await;
    let sidecar = Sidecar::start(address).await;
    sidecar.client().await.receive_one().await;
    let Some(Asked::Receive(_)) = asked.recv().await else { panic!() };
    let mut frozen = TcpStream::connect(sidecar.address).await.unwrap();
    frozen.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    frozen.read_u8().await.expect("a connection that is served");
    sidecar.stop().await;
    let Ok(Asked::Settle(settle)) = asked.try_recv() else { panic!("not given back") };
    assert!(matches!(settle.settlements[0].outcome, Some(settlement::Outcome::Release(_))));
}

/// When the pod ends, what its application did not settle is free for others, without blame.
#[tokio::test]
async fn stopped_sidecar_releases_what_was_received() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    client.send("unary").await.unwrap();
    client.send("stream").await.unwrap();
    let first = client.receive_one().await;
    let mut consumer = client.consume(1, Vec::new()).await;
    assert_eq!(consumer.next_deliveries().await.len(), 1);
    tokio::time::timeout(Duration::from_secs(6), sidecar.stop()).await.expect("within the grace period");
    let mut direct = Client::connect(broker.address).await;
    let mut bodies = BTreeSet::new();
    while bodies.len() < 2 {
        let delivery = direct.receive_one().await;
        assert_eq!(attempts(&delivery), 0);
        bodies.insert(body(&delivery));
    }
    drop((first, consumer));
}

/// Nobody waits for ever, and everybody is told why.
#[tokio::test]
async fn broker_that_stays_away_is_named_before_the_deadline() {
    let mut broker = Broker::start();
    broker.kill();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    let message = Message::default();
    let send = SendRequest { queue: QUEUE.to_owned(), messages: vec![message], ..SendRequest::default() };
    let mut request = Request::new(send);
    request.set_timeout(Duration::from_secs(2));
    let status = client.queues.send(request).await.unwrap_err();
    let failure = Failure::from_status(&status).expect("our own answer, not the transport's");
    assert_eq!((status.code(), failure.reason), (Code::Unavailable, Reason::BrokerUnavailable));
    assert!(failure.message.contains(&broker.address.to_string()), "{failure}");
    assert!(failure.message.contains("refused"), "{failure}");
    assert!(failure.retry_after.is_some());
}

/// Refusals reach the application unchanged.
#[tokio::test]
async fn refusals_have_their_reasons() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    let reason = |status: tonic::Status| Failure::from_status(&status).map(|failure| failure.reason);
    let wrong = ReceiveRequest { queue: "other".to_owned(), ..ReceiveRequest::default() };
    assert_eq!(reason(client.queues.receive(wrong).await.unwrap_err()), Some(Reason::QueueNotFound));
    let large = "x".repeat((1 << 20) + 1);
    assert_eq!(reason(client.send(&large).await.unwrap_err()), Some(Reason::MessageTooLarge));
    let garbled = Settlement { receipt: "garbled".into(), outcome: Some(settlement::Outcome::Ack(Ack {})) };
    let refused = settle(&mut client, vec![garbled.clone()]).await.unwrap_err();
    assert_eq!(reason(refused), Some(Reason::InvalidReceipt));
    client.send("a").await.unwrap();
    let delivery = client.receive_one().await;
    let mut mixed = acks([&delivery]);
    mixed.push(garbled);
    let results = settle(&mut client, mixed).await.unwrap().results;
    assert_eq!(results[0].error, None);
    assert_eq!(results[1].error.as_ref().unwrap().reason, "INVALID_RECEIPT");
}

/// Two shards look like one queue.
#[tokio::test]
async fn two_shards_are_one_queue() {
    let brokers = Broker::start_all(2);
    let sidecar = Sidecar::start(brokers[1].address).await;
    let mut client = sidecar.client().await;
    for index in 0..40 {
        let message =
            Message { body: index.to_string().into(), dedup_id: format!("id-{index}"), ..Default::default() };
        let send = SendRequest {
            queue: QUEUE.to_owned(),
            messages: vec![message.clone(); 2],
            ..SendRequest::default()
        };
        let results = client.queues.send(send).await.unwrap().into_inner().results;
        assert_eq!(results.iter().map(|result| result.duplicate).collect::<Vec<_>>(), [false, true]);
    }
    for broker in &brokers {
        let there = Client::connect(broker.address).await.stats().await.ready;
        assert!(there > 0 && there < 40, "{there} of 40 at one shard");
    }
    assert_eq!(client.stats().await.ready, 40);
    assert_eq!(peek_all(&mut client).await, 40);
    let mut half = BTreeSet::new();
    while half.len() < 20 {
        let deliveries = client.receive(7).await;
        assert!(!deliveries.is_empty() && deliveries.len() <= 7);
        settle(&mut client, acks(&deliveries)).await.unwrap();
        half.extend(deliveries.iter().map(body));
    }
    consume_rest(&mut client, half, 40).await;
    assert_eq!(client.stats().await.ready, 0);
}

async fn peek_all(client: &mut Client) -> usize {
    let mut cursor = Vec::new();
    let mut count = 0;
    loop {
        let request = PeekRequest { queue: QUEUE.to_owned(), limit: 7, cursor, ..PeekRequest::default() };
        let page = client.admin.peek(request).await.unwrap().into_inner();
        count += page.messages.len();
        cursor = page.cursor;
        if cursor.is_empty() {
            return count;
        }
    }
}

/// The consumer's window holds over all shards. It acks one at a time: of acks for several shards in one frame, those that
/// are done make room before the frame is answered.
async fn consume_rest(client: &mut Client, mut seen: BTreeSet<String>, total: usize) {
    let mut consumer = client.consume(3, Vec::new()).await;
    let mut held: VecDeque<Delivery> = VecDeque::new();
    let mut seq = 0;
    let mut answered = 0;
    while seen.len() < total || !held.is_empty() {
        match consumer.next().await {
            Frame::Deliveries(frame) => held.extend(frame.deliveries),
            Frame::Settled(frame) => {
                answered = frame.seq;
                held.pop_front();
            }
            other => panic!("{other:?}"),
        }
        assert!(held.len() <= 3, "{} held", held.len());
        if let (Some(first), true) = (held.front(), answered == seq) {
            seq += 1;
            seen.insert(body(first));
            let settlements = acks(std::slice::from_ref(first));
            consumer.tell(consume_request::Frame::Settle(SettleFrame { seq, settlements })).await;
        }
    }
}

/// A long poll over shards is answered by whichever gets a message, also while another is down.
#[tokio::test]
async fn long_poll_hears_every_living_shard() {
    let mut brokers = Broker::start_all(2);
    let sidecar = Sidecar::start(brokers[0].address).await;
    let mut client = sidecar.client().await;
    assert_eq!(client.stats().await.ready, 0);
    brokers[1].kill();
    let mut waiting = client.clone();
    let poll = tokio::spawn(async move { waiting.receive(10).await });
    let mut direct = Client::connect(brokers[0].address).await;
    direct.send("a").await.unwrap();
    let deliveries = tokio::time::timeout(PATIENCE, poll).await.unwrap().unwrap();
    assert_eq!(deliveries.iter().map(body).collect::<Vec<_>>(), ["a"]);
    let empty =
        ReceiveRequest { queue: QUEUE.to_owned(), wait: Some(duration(100)), ..ReceiveRequest::default() };
    assert!(client.queues.receive(empty).await.unwrap().into_inner().deliveries.is_empty());
}

/// Answers of several shards at the same time: what the application does not get of them goes back, free of charge.
#[tokio::test]
async fn shards_that_answer_together_lose_nothing() {
    let brokers = Broker::start_all(2);
    let mut direct = Vec::new();
    let sidecar = Sidecar::start(brokers[0].address).await;
    let mut client = sidecar.client().await;
    client.stats().await;
    for broker in &brokers {
        direct.push(Client::connect(broker.address).await);
    }
    for round in 0..20 {
        let mut waiting = client.clone();
        let poll = tokio::spawn(async move { waiting.receive(1).await });
        for shard in &mut direct {
            while shard.stats().await.consumers == 0 {}
        }
        let (mut first, mut second) = (direct[0].clone(), direct[1].clone());
        let (first, second) = tokio::join!(first.send("a"), second.send("b"));
        first.and(second).unwrap();
        let mut deliveries = poll.await.unwrap();
        deliveries.extend(client.receive(1).await);
        assert_eq!(deliveries.len(), 2, "round {round}");
        deliveries.iter().for_each(|delivery| assert_eq!(attempts(delivery), 0, "round {round}"));
        settle(&mut client, acks(&deliveries)).await.unwrap();
    }
}

/// A settlement that was refused changed nothing: its delivery is still held, and still resumed after a restart.
#[tokio::test]
async fn refused_settlement_leaves_the_delivery_in_hand() {
    let mut broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    client.send("a").await.unwrap();
    let mut consumer = client.consume(1, Vec::new()).await;
    let delivery = consumer.next_deliveries().await.remove(0);
    let negative = prost_types::Duration { seconds: -1, nanos: 0 };
    let nack = Nack { delay: Some(negative), reason: String::new() };
    let outcome = Some(settlement::Outcome::Nack(nack));
    let settlements = vec![Settlement { receipt: delivery.receipt.clone(), outcome }];
    consumer.tell(consume_request::Frame::Settle(SettleFrame { seq: 1, settlements })).await;
    let Frame::Settled(refused) = consumer.next().await else { panic!() };
    assert_eq!(refused.results[0].error.as_ref().unwrap().reason, "INVALID_ARGUMENT");
    broker.restart();
    client.send("b").await.unwrap();
    let resumed = loop {
        let stats = client.stats().await;
        if stats.consumers == 1 {
            break stats;
        }
    };
    assert_eq!((resumed.in_flight, resumed.ready), (1, 1), "the window is full");
    let settlements = acks([&delivery]);
    consumer.tell(consume_request::Frame::Settle(SettleFrame { seq: 2, settlements })).await;
    let Frame::Settled(acked) = consumer.next().await else { panic!() };
    assert_eq!(acked.results[0].error, None);
    assert_eq!(body(&consumer.next_deliveries().await[0]), "b");
}
