//! A pod ends: first the sidecar is told to drain, then the application goes, then the sidecar gets SIGTERM.

use ackwell_proto::v1::ExtendFrame;
use tokio::time::Instant;

use super::*;

/// What is left of a pod's grace period that the application took all of.
const LAST_SECONDS: Duration = Duration::from_secs(2);
/// A message that could be delivered would have been.
const QUIET: Duration = Duration::from_millis(500);

/// A consumer that holds `first` and `second`, of three messages.
async fn consumer_of_two(client: &mut Client) -> (rig::Consumer, Vec<Delivery>) {
    for body in ["first", "second", "third"] {
        client.send(body).await.unwrap();
    }
    let mut consumer = client.consume(2, Vec::new()).await;
    let mut held = consumer.next_deliveries().await;
    while held.len() < 2 {
        held.extend(consumer.next_deliveries().await);
    }
    (consumer, held)
}

async fn settled(consumer: &mut rig::Consumer, seq: u64, deliveries: &[Delivery]) {
    let frame = SettleFrame { seq, settlements: acks(deliveries) };
    consumer.tell(consume_request::Frame::Settle(frame)).await;
    let Frame::Settled(settled) = consumer.next().await else { panic!("more deliveries") };
    assert_eq!(settled.seq, seq);
    settled.results.iter().for_each(|result| assert_eq!(result.error, None));
}

async fn is_silent(consumer: &mut rig::Consumer) -> bool {
    tokio::time::timeout(QUIET, consumer.responses.message()).await.is_err()
}

/// Everything that is ready now.
async fn ready(client: &mut Client, count: usize) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(client.receive(10).await.iter().map(|delivery| (body(delivery), attempts(delivery))));
    }
    all.sort();
    all
}

fn unblamed<const N: usize>(bodies: [&str; N]) -> [(String, u32); N] {
    bodies.map(|body| (body.to_owned(), 0))
}

/// Promise: while its pod ends an application gets nothing new, and all that it holds it can finish: extend, settle, and send.
#[tokio::test]
async fn draining_sidecar_delivers_nothing_and_serves_the_rest() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    let (mut consumer, held) = consumer_of_two(&mut client).await;
    let (producer, _) = client.produce("", false).await;
    sidecar.drain().await;
    sidecar.drain().await;

    settled(&mut consumer, 1, &held[..1]).await;
    assert!(is_silent(&mut consumer).await, "room in the window is not for new messages");
    client.send("sent").await.unwrap();
    let mut producer = producer;
    producer.batch(1, vec![Message { body: "produced".into(), ..Message::default() }]).await;
    producer.confirmed(1).await;
    let receipts = vec![held[1].receipt.to_vec()];
    let extend = consume_request::Frame::Extend(ExtendFrame { seq: 2, receipts, ack_timeout: None });
    consumer.tell(extend).await;
    let Frame::Extended(extended) = consumer.next().await else { panic!("more deliveries") };
    assert_eq!(extended.results[0].error, None);
    settled(&mut consumer, 3, &held[1..]).await;

    let mut direct = broker.client().await;
    assert_eq!(ready(&mut direct, 3).await, unblamed(["produced", "sent", "third"]));
}

/// Promise: a poll that waits when the pod begins to end is answered at once, one that comes later when its time is over:
/// an application that goes on polling neither gets messages nor spins.
#[tokio::test]
async fn draining_sidecar_answers_polls_with_nothing() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let mut client = sidecar.client().await;
    let mut direct = broker.client().await;
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { client.receive(1).await }
    });
    while direct.stats().await.consumers == 0 {
        tokio::task::yield_now().await;
    }
    let drained = Instant::now();
    sidecar.drain().await;
    assert_eq!(waiting.await.unwrap(), []);
    assert!(drained.elapsed() < Duration::from_secs(10), "the poll had 20 s");

    client.send("for others").await.unwrap();
    let request = ReceiveRequest {
        queue: QUEUE.to_owned(),
        max_messages: 1,
        wait: Some(duration(700)),
        ..ReceiveRequest::default()
    };
    let asked = Instant::now();
    assert_eq!(client.queues.receive(request).await.unwrap().into_inner().deliveries, []);
    assert!(asked.elapsed() >= Duration::from_millis(700), "{:?}", asked.elapsed());
    assert_eq!(ready(&mut direct, 1).await, unblamed(["for others"]));
}

/// Promise: a connection that breaks while the pod ends can still be resumed with what the application holds.
#[tokio::test]
async fn draining_sidecar_resumes_a_broken_stream() {
    let broker = Broker::start();
    let sidecar = Sidecar::start(broker.address).await;
    let network = Network::to(sidecar.address).await;
    let mut client = Client::connect(network.address).await;
    let (consumer, held) = consumer_of_two(&mut client).await;
    sidecar.drain().await;
    network.cut();
    let receipts = held.iter().map(|delivery| delivery.receipt.to_vec()).collect();
    let mut consumer_again = sidecar.client().await.consume(2, receipts).await;
    settled(&mut consumer_again, 1, &held).await;
    assert!(is_silent(&mut consumer_again).await, "a new stream is not for new messages");
    drop(consumer);
}

/// Promise: an application that is killed at the end of its pod's grace period pays no attempt, whichever of both the sidecar
/// sees first, and the little time that is left suffices.
#[tokio::test]
async fn application_that_took_the_whole_grace_period_is_not_blamed() {
    for (is_drained, is_break_first) in [(true, true), (false, true), (true, false)] {
        let broker = Broker::start();
        let sidecar = Sidecar::start(broker.address).await;
        let network = Network::to(sidecar.address).await;
        let mut client = Client::connect(network.address).await;
        let (consumer, _) = consumer_of_two(&mut client).await;
        let polled = client.receive(1).await;
        assert_eq!(polled.len(), 1);
        if is_drained {
            sidecar.drain().await;
        }
        network.cut();
        if is_break_first {
            // On a machine so busy that this is not enough, it is the other order once more.
            tokio::time::sleep(QUIET).await;
        }
        let told = Instant::now();
        sidecar.stop().await;
        assert!(told.elapsed() < LAST_SECONDS, "{:?}", told.elapsed());
        let mut direct = broker.client().await;
        let all = ready(&mut direct, 3).await;
        assert_eq!(all, unblamed(["first", "second", "third"]), "drained: {is_drained}");
        drop(consumer);
    }
}

/// Promise: an application whose connection hangs at the end does not use up the time in which its messages go back.
#[tokio::test]
async fn call_that_hangs_does_not_keep_what_is_held() {
    let mut brokers = Broker::start_all(2);
    let sidecar = Sidecar::start(brokers[0].address).await;
    let mut client = sidecar.client().await;
    client.stats().await;
    brokers[1].kill();
    let hanging: Vec<_> = (0..50)
        .map(|key| {
            let message = Message { ordering_key: key.to_string(), ..Message::default() };
            let request =
                SendRequest { queue: QUEUE.to_owned(), messages: vec![message], ..SendRequest::default() };
            let mut client = client.clone();
            tokio::spawn(async move { client.queues.send(request).await })
        })
        .collect();
    let id = client.receive_one().await.message.unwrap().id;
    let released = async {
        let mut direct = brokers[0].client().await;
        loop {
            let deliveries = direct.receive(100).await;
            if let Some(again) = deliveries.iter().find(|again| again.message.as_ref().unwrap().id == id) {
                return attempts(again);
            }
        }
    };
    let (attempts, ()) = tokio::join!(
        async { tokio::time::timeout(LAST_SECONDS, released).await.expect("before the kubelet kills") },
        sidecar.stop()
    );
    assert_eq!(attempts, 0);
    drop(hanging);
}
