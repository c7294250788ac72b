//! Order within a key, turns between tenants, and head starts, as an application sees them.

use std::time::Duration;

use ackwell_proto::v1::{Delivery, Filter, Message, PeekRequest};
use ackwell_proto::{Failure, Reason};
use ackwell_tests::caller::{Caller, ack, delivered, message, nack};
use ackwell_tests::processes::{Broker, QUEUE, Sidecar, settings};

fn keyed(key: &str, body: &str) -> Message {
    Message { ordering_key: key.to_owned(), ..message(body) }
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| String::from_utf8_lossy(&delivered(delivery).body).into_owned())
        .collect()
}

async fn all_now(caller: &Caller) -> Vec<Delivery> {
    caller.receive(100, Duration::ZERO).await.unwrap()
}

/// Promise: of one key, one message at a time, in stored order; a failed one is waited for, other keys are not.
#[tokio::test]
async fn messages_of_a_key_come_in_order_one_at_a_time() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    for caller in [broker.caller().await, sidecar.caller().await] {
        caller
            .send(vec![keyed("a", "a1"), keyed("a", "a2"), keyed("b", "b1"), message("free")])
            .await
            .unwrap();
        let first = all_now(&caller).await;
        assert_eq!(bodies(&first), ["a1", "b1", "free"]);
        assert_eq!(delivered(&first[0]).ordering_key, "a");
        caller.settle(vec![nack(&first[0], None), ack(&first[1]), ack(&first[2])]).await.unwrap();
        assert!(caller.is_empty().await, "a2 waits for a1, which waits for its backoff");
        for expected in ["a1", "a2"] {
            let next = caller.receive_one().await;
            assert_eq!(delivered(&next).body, expected);
            caller.settle_one(ack(&next)).await.unwrap();
        }
    }
}

/// Promise: a tenant with one message is served beside one with a backlog, and the urgent come first.
#[tokio::test]
async fn tenants_take_turns_and_urgent_messages_come_first() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let caller = sidecar.caller().await;
    let of = |tenant: &str, body: &str| Message { fairness_key: tenant.to_owned(), ..message(body) };
    let noisy = (0..50).map(|number| of("noisy", &format!("n{number}")));
    caller.send(noisy.chain([of("quiet", "q")]).collect()).await.unwrap();
    let first = bodies(&caller.receive(2, Duration::ZERO).await.unwrap());
    assert!(first.contains(&"q".to_owned()), "{first:?}");

    let urgent = Message { priority: Some(9), ..of("noisy", "urgent") };
    caller.send_one(urgent).await;
    let next = caller.receive_one().await;
    assert_eq!((delivered(&next).body.as_ref(), delivered(&next).priority), (&b"urgent"[..], Some(9)));
}

/// Promise: what a key or a priority may be is said where it is not, on broker and sidecar alike.
#[tokio::test]
async fn keys_out_of_bounds_are_refused_by_name() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let bad = [
        (keyed(&"k".repeat(129), "x"), "ordering_key"),
        (Message { fairness_key: "k".repeat(65), ..message("x") }, "fairness_key"),
        (Message { priority: Some(10), ..message("x") }, "priority"),
    ];
    for caller in [broker.caller().await, sidecar.caller().await] {
        for (message, field) in bad.clone() {
            let Failure { reason, message, .. } = caller.try_send(message).await.unwrap_err();
            assert_eq!(reason, Reason::InvalidArgument);
            assert!(message.contains(field), "{message}");
        }
    }
}

/// Promise: people find the messages of a key.
#[tokio::test]
async fn peek_filters_by_key() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let caller = sidecar.caller().await;
    let both = Message { fairness_key: "acme".to_owned(), ..keyed("a", "a1") };
    caller.send(vec![both, keyed("b", "b1"), message("free")]).await.unwrap();
    let by_order = Filter { ordering_key: "a".to_owned(), ..Filter::default() };
    let by_tenant = Filter { fairness_key: "acme".to_owned(), ..Filter::default() };
    let neither =
        Filter { fairness_key: "acme".to_owned(), ordering_key: "b".to_owned(), ..Filter::default() };
    for (filter, count) in [(by_order, 1), (by_tenant, 1), (neither, 0)] {
        let request = PeekRequest { queue: QUEUE.to_owned(), filter: Some(filter), ..PeekRequest::default() };
        let found = caller.admin.clone().peek(request).await.unwrap().into_inner().messages;
        assert_eq!(found.len(), count);
        found.iter().for_each(|message| assert_eq!(message.priority, Some(4)));
    }
}
