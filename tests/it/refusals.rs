//! Every refusal has its gRPC code and its stable reason, and says what was wrong.

use std::time::Duration;

use ackwell_proto::v1::{
    Message, PeekRequest, QueueSettings, ReceiveRequest, SendRequest, Settlement, State,
};
use ackwell_proto::{Reason, duration};
use ackwell_tests::caller::{ack, failure, filter, message, nack};
use ackwell_tests::processes::{Broker, settings};
use tonic::{Code, Status};

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, reason: Reason, code: Code, says: &str) {
    let status = answer.expect_err("it is refused");
    let failure = failure(&status);
    assert_eq!((failure.reason, status.code()), (reason, code), "{failure}");
    assert!(failure.message.contains(says), "{:?} says {says:?}", failure.message);
}

/// Promise: a queue that does not exist is named.
#[tokio::test]
async fn unknown_queue_is_not_found() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await.queue("oders");
    let answer = caller.send(vec![message("x")]).await;
    assert_refused(answer, Reason::QueueNotFound, Code::NotFound, "oders");
    let answer = caller.receive(1, Duration::ZERO).await;
    assert_refused(answer, Reason::QueueNotFound, Code::NotFound, "oders");
}

/// Promise: what cannot be a queue's name is a malformed field, not a missing queue.
#[tokio::test]
async fn malformed_queue_name_is_invalid() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    for name in ["", "Orders", "shop/", "a/b/c"] {
        let answer = caller.queue(name).send(vec![message("x")]).await;
        assert_refused(answer, Reason::InvalidArgument, Code::InvalidArgument, "queue name");
    }
}

/// Promise: batches have 1 to 1000 items.
#[tokio::test]
async fn batch_sizes_are_bounded() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    let answer = caller.send(Vec::new()).await;
    assert_refused(answer, Reason::InvalidArgument, Code::InvalidArgument, "messages");
    let answer = caller.send(vec![message("x"); 1001]).await;
    assert_refused(answer, Reason::BatchTooLarge, Code::InvalidArgument, "1000");
    let answer = caller.settle(vec![Settlement::default(); 1001]).await;
    assert_refused(answer, Reason::BatchTooLarge, Code::InvalidArgument, "1000");
    assert_eq!(caller.stats().await.ready, 0);
}

/// Promise: fields out of their range are refused, with the field named, and nothing happens.
#[tokio::test]
async fn fields_out_of_range_are_invalid() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    let wait = ReceiveRequest {
        queue: "orders".to_owned(),
        wait: Some(duration(61_000)),
        ..ReceiveRequest::default()
    };
    let answer = caller.queues.clone().receive(wait).await;
    assert_refused(answer, Reason::InvalidArgument, Code::InvalidArgument, "wait");
    let peek = PeekRequest { queue: "orders".to_owned(), limit: 1001, ..PeekRequest::default() };
    let answer = caller.admin.clone().peek(peek).await;
    assert_refused(answer, Reason::InvalidArgument, Code::InvalidArgument, "limit");
    let states = PeekRequest {
        queue: "orders".to_owned(),
        filter: Some(ackwell_proto::v1::Filter { states: vec![17], ..filter(&[State::Dead]) }),
        ..PeekRequest::default()
    };
    let answer = caller.admin.clone().peek(states).await;
    assert_refused(answer, Reason::InvalidArgument, Code::InvalidArgument, "state");
}

/// Promise: one bad message of a batch is refused alone.
#[tokio::test]
async fn bad_message_does_not_spoil_its_batch() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    let bad = [
        (Message { max_attempts: Some(0), ..message("x") }, "INVALID_ARGUMENT"),
        (Message { ttl: Some(duration(0)), ..message("x") }, "INVALID_ARGUMENT"),
        (Message { dedup_id: "d".repeat(129), ..message("x") }, "INVALID_ARGUMENT"),
        (Message { content_type: "c".repeat(257), ..message("x") }, "INVALID_ARGUMENT"),
        (
            Message { headers: [("ackwell-x".to_owned(), String::new())].into(), ..message("x") },
            "INVALID_ARGUMENT",
        ),
        (message(vec![0; (1 << 20) + 1]), "MESSAGE_TOO_LARGE"),
    ];
    for (item, reason) in bad {
        let results = caller.send(vec![message("good"), item, message("good")]).await.unwrap();
        let reasons: Vec<_> =
            results.iter().map(|one| one.error.as_ref().map(|error| error.reason.as_str())).collect();
        assert_eq!(reasons, [None, Some(reason), None]);
    }
    assert_eq!(caller.stats().await.ready, 12);
}

/// Promise: an atomic batch is stored whole or not at all.
#[tokio::test]
async fn atomic_batch_with_a_bad_message_stores_nothing() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    let messages = vec![message("good"), message(vec![0; (1 << 20) + 1])];
    let request =
        SendRequest { queue: "orders".to_owned(), messages, atomic: true, ..SendRequest::default() };
    let results = caller.queues.clone().send(request).await.unwrap().into_inner().results;
    let reasons: Vec<_> = results.iter().map(|one| one.error.as_ref().unwrap().reason.as_str()).collect();
    assert_eq!(reasons, ["BATCH_REFUSED", "MESSAGE_TOO_LARGE"]);
    assert_eq!(caller.stats().await.ready, 0);
}

/// Promise: a full queue refuses, says when to try again, drops nothing, and takes messages again once there is room.
#[tokio::test]
async fn full_queue_refuses_until_there_is_room() {
    let broker = Broker::start(QueueSettings { max_messages: 2, ..settings() });
    let caller = broker.caller().await;
    caller.send_body("1").await;
    caller.send_body("2").await;
    let refused = caller.send(vec![message("3")]).await;
    assert!(failure(refused.as_ref().unwrap_err()).retry_after.is_some());
    assert_refused(refused, Reason::QueueFull, Code::ResourceExhausted, "full");
    let delivery = caller.receive_one().await;
    caller.settle_one(ack(&delivery)).await.unwrap();
    caller.send_body("3").await;
    assert_eq!(caller.stats().await.ready, 2);
}

/// Promise: a receipt that this queue did not make changes nothing.
#[tokio::test]
async fn forged_receipt_is_invalid() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    caller.send_body("order").await;
    let mut forged = caller.receive_one().await;
    let mut bytes = forged.receipt.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    forged.receipt = bytes.into();
    assert_eq!(caller.settle_one(ack(&forged)).await.unwrap_err().reason, Reason::InvalidReceipt);
    assert_eq!(
        caller.extend(&forged, Duration::from_secs(5)).await.unwrap_err().reason,
        Reason::InvalidReceipt
    );
    assert_eq!(caller.stats().await.in_flight, 1);
}

/// Promise: one delivery has one outcome.
#[tokio::test]
async fn second_outcome_for_one_delivery_is_refused() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    caller.send_body("order").await;
    let delivery = caller.receive_one().await;
    caller.settle_one(ack(&delivery)).await.unwrap();
    let refused = caller.settle_one(nack(&delivery, None)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::SettledOtherwise);
}

/// Promise: a call with a single item fails with it, with code and reason, so that no client can overlook it.
#[tokio::test]
async fn oversized_body_alone_fails_the_call_and_says_the_limit() {
    let broker = Broker::start(QueueSettings { max_message_bytes: 1024, ..settings() });
    let caller = broker.caller().await;
    let answer = caller.send(vec![message(vec![0; 1025])]).await;
    assert_refused(answer, Reason::MessageTooLarge, Code::InvalidArgument, "1024");
    caller.send_body(vec![0; 1024]).await;
}
