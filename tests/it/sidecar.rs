//! Through a sidecar a broker's restart is a pause, not an error.

use std::collections::HashSet;
use std::time::Duration;

use ackwell_proto::Reason;
use ackwell_proto::v1::{SendRequest, SettleResult, State};
use ackwell_tests::caller::{ack, delivered, failure, message, nack, reject, release};
use ackwell_tests::processes::{Broker, QUEUE, Sidecar, settings};
use tonic::{Code, Request};

const SOON: Duration = Duration::from_secs(20);

/// Promise: the sidecar speaks the same API as the broker.
#[tokio::test]
async fn calls_through_a_sidecar_do_what_they_do_on_a_broker() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let caller = sidecar.caller().await;
    for body in ["acked", "nacked", "released", "rejected"] {
        caller.send_body(body).await;
    }
    let deliveries = caller.receive(4, SOON).await.unwrap();
    let [acked, nacked, released, rejected] = &deliveries[..] else {
        panic!("{} deliveries", deliveries.len())
    };
    assert_eq!(delivered(acked).body, "acked");
    let settlements = vec![ack(acked), nack(nacked, None), release(released), reject(rejected)];
    let states: Vec<_> = caller.settle(settlements).await.unwrap().iter().map(SettleResult::state).collect();
    assert_eq!(states, [State::Unspecified, State::Delayed, State::Ready, State::Dead]);
    assert_eq!(caller.peek(&[State::Dead]).await[0].body, "rejected");
    assert_eq!(caller.redrive().await, 1);
    let left = caller.stats().await;
    assert_eq!((left.ready + left.delayed, left.dead), (3, 0));
}

/// Promise: an application that only sends and acks sees no error while its broker is killed and comes back, and every
/// message is processed.
#[tokio::test(flavor = "multi_thread")]
async fn killed_broker_is_a_pause_for_applications() {
    let mut broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let (sender, consumer) = (sidecar.caller().await, sidecar.caller().await);
    let sending = tokio::spawn(async move {
        let mut ids = HashSet::new();
        for number in 0..600_u32 {
            ids.insert(sender.send_body(number.to_string()).await);
        }
        ids
    });
    let consuming = tokio::spawn(async move {
        let mut ids = HashSet::new();
        while ids.len() < 600 {
            let deliveries = consumer.receive(20, SOON).await.expect("no error reaches the application");
            let results = consumer.settle(deliveries.iter().map(ack).collect()).await;
            let results =
                if deliveries.is_empty() { Vec::new() } else { results.expect("no error reaches it") };
            assert!(results.iter().all(|result| result.error.is_none()), "{results:?}");
            ids.extend(deliveries.iter().map(|delivery| delivered(delivery).id.clone()));
        }
        ids
    });
    for _ in 0..3 {
        let before = broker.caller().await.stats().await.sent;
        let moved = async || {
            let sent = broker.caller().await.stats().await.sent;
            if sent > before { Ok(()) } else { Err(anyhow::anyhow!("still {before} sent")) }
        };
        ackwell_tests::wait::until_async("messages to flow", SOON, moved).await;
        broker.kill();
        broker.restart();
    }
    assert_eq!(sending.await.unwrap(), consuming.await.unwrap());
}

/// Promise: when no broker answers, the caller is told so, with the reason, within its own deadline.
#[tokio::test]
async fn absent_broker_is_reported_within_the_callers_deadline() {
    let broker = Broker::prepare(settings());
    let sidecar = Sidecar::start(&broker);
    let caller = sidecar.caller().await;
    let mut request = Request::new(SendRequest {
        queue: QUEUE.to_owned(),
        messages: vec![message("x")],
        ..SendRequest::default()
    });
    request.set_timeout(Duration::from_secs(2));
    let status = caller.queues.clone().send(request).await.expect_err("there is no broker");
    assert_eq!((status.code(), failure(&status).reason), (Code::Unavailable, Reason::BrokerUnavailable));
    assert!(failure(&status).retry_after.is_some());
}

/// Promise: an application may start before its broker.
#[tokio::test(flavor = "multi_thread")]
async fn send_before_the_broker_is_up_succeeds_once_it_is() {
    let mut broker = Broker::prepare(settings());
    let sidecar = Sidecar::start(&broker);
    let caller = sidecar.caller().await;
    let sending = tokio::spawn(async move { caller.send_body("early").await });
    broker.restart();
    let id =
        tokio::time::timeout(Duration::from_secs(30), sending).await.expect("soon after the start").unwrap();
    assert_eq!(delivered(&broker.caller().await.receive_one().await).id, id);
}

/// Promise: a queue that the sidecar does not know is refused as the broker would.
#[tokio::test]
async fn unknown_queue_is_not_found() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let status = sidecar.caller().await.queue("oders").send(vec![message("x")]).await.unwrap_err();
    assert_eq!((status.code(), failure(&status).reason), (Code::NotFound, Reason::QueueNotFound));
}
