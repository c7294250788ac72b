//! What becomes of a message: acked, nacked, released, rejected, timed out, expired, redriven.

use std::time::Duration;

use ackwell_proto::v1::message::Available;
use ackwell_proto::v1::{Message, SendRequest, State};
use ackwell_proto::{Reason, duration, timestamp_millis};
use ackwell_tests::caller::{ack, delivered, message, nack, reject, release};
use ackwell_tests::processes::{Broker, settings};
use ackwell_tests::wait::until_async;

const SOON: Duration = Duration::from_secs(20);

/// Promise: what is received is byte for byte what was sent, in the order it was stored; acked is gone.
#[tokio::test]
async fn messages_come_whole_and_in_order_and_are_gone_once_acked() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    let bodies: Vec<Vec<u8>> = (0..=255_u8).map(|byte| vec![byte; usize::from(byte)]).collect();
    let sent = caller.send(bodies.iter().map(|body| message(body.clone())).collect()).await.unwrap();

    let deliveries = caller.receive(1000, SOON).await.unwrap();
    assert_eq!(deliveries.iter().map(|one| delivered(one).body.to_vec()).collect::<Vec<_>>(), bodies);
    let ids = |ids: Vec<&str>| ids.join(" ");
    assert_eq!(
        ids(deliveries.iter().map(|one| delivered(one).id.as_str()).collect()),
        ids(sent.iter().map(|one| one.id.as_str()).collect())
    );
    let settled = caller.settle(deliveries.iter().map(ack).collect()).await.unwrap();
    assert!(settled.iter().all(|one| one.error.is_none() && one.state() == State::Unspecified));
    let stats = caller.stats().await;
    assert_eq!((stats.ready, stats.in_flight, stats.bytes), (0, 0, 0));
    assert!(caller.peek(&[]).await.is_empty());
}

/// Promise: headers, content type and trace context are carried untouched.
#[tokio::test]
async fn what_the_sender_set_is_what_the_consumer_sees() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    let headers =
        [("customer", "17"), ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")];
    let headers = headers.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let sent = Message {
        headers: headers.clone().into_iter().collect(),
        content_type: "application/json".to_owned(),
        ..message("{}")
    };
    caller.send_one(sent).await;
    let delivery = caller.receive_one().await;
    let seen = delivered(&delivery);
    assert_eq!(seen.headers, headers.into_iter().collect());
    assert_eq!(seen.content_type, "application/json");
    assert_eq!((seen.attempts, seen.deliveries), (0, 1));
}

/// Promise: a failed attempt is counted and remembered, and the message comes back after its backoff, not before.
#[tokio::test]
async fn nacked_message_comes_back_after_its_backoff() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    caller.send_body("order").await;
    let first = caller.receive_one().await;

    let settled = caller.settle_one(nack(&first, None)).await.unwrap();
    assert_eq!(settled.state(), State::Delayed);
    let due = timestamp_millis(&settled.next_attempt_at.expect("a Delayed message has a time")).unwrap();
    assert!(caller.is_empty().await, "it is not handed out before its time");
    let again = caller.receive_one().await;
    let seen = delivered(&again);
    assert_eq!((seen.attempts, seen.deliveries), (1, 2));
    assert_eq!((seen.history[0].outcome.as_str(), seen.history[0].reason.as_str()), ("nack", "broken"));
    assert!(
        timestamp_millis(&again.ack_deadline.unwrap()).unwrap() >= due + 30_000,
        "handed out at {due} or later"
    );
}

/// Promise: a consumer may say itself when to try again.
#[tokio::test]
async fn nack_with_delay_overrides_the_backoff() {
    let mut long = settings();
    long.backoff.as_mut().unwrap().min_seconds = 300;
    long.backoff.as_mut().unwrap().max_seconds = 300;
    let broker = Broker::start(long);
    let caller = broker.caller().await;
    caller.send_body("order").await;
    let first = caller.receive_one().await;
    caller.settle_one(nack(&first, Some(Duration::from_millis(50)))).await.unwrap();
    assert_eq!(delivered(&caller.receive_one().await).attempts, 1);
}

/// Promise: a hand-over is no failure.
#[tokio::test]
async fn released_message_keeps_its_place_and_loses_no_attempt() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    let ids = [caller.send_body("first").await, caller.send_body("second").await];
    let first = caller.receive_one().await;
    assert_eq!(caller.settle_one(release(&first)).await.unwrap().state(), State::Ready);
    let again = caller.receive(2, SOON).await.unwrap();
    assert_eq!(again.iter().map(|one| delivered(one).id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(delivered(&again[0]).attempts, 0);
}

/// Promise: what keeps failing is set aside whole, can be looked at, and comes back on command.
#[tokio::test]
async fn message_out_of_attempts_is_dead_until_redriven() {
    let broker = Broker::start(ackwell_proto::v1::QueueSettings { max_attempts: 2, ..settings() });
    let caller = broker.caller().await;
    let id = caller.send_body("poison").await;
    let first = caller.receive_one().await;
    caller.settle_one(nack(&first, Some(Duration::ZERO))).await.unwrap();
    let second = caller.receive_one().await;
    assert_eq!(caller.settle_one(nack(&second, None)).await.unwrap().state(), State::Dead);

    let dead = caller.peek(&[State::Dead]).await;
    assert_eq!((dead.len(), &dead[0].id, dead[0].dead_reason.as_str()), (1, &id, "MAX_ATTEMPTS"));
    assert_eq!((dead[0].attempts, dead[0].history.len()), (2, 2));
    assert_eq!(dead[0].body, "poison");
    assert!(caller.is_empty().await);

    assert_eq!(caller.redrive().await, 1);
    let redriven = caller.receive_one().await;
    assert_eq!((&delivered(&redriven).id, delivered(&redriven).attempts), (&id, 0));
}

/// Promise: a rejected message is never tried again.
#[tokio::test]
async fn rejected_message_is_dead_at_once() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    caller.send_body("nonsense").await;
    let delivery = caller.receive_one().await;
    assert_eq!(caller.settle_one(reject(&delivery)).await.unwrap().state(), State::Dead);
    let dead = caller.peek(&[State::Dead]).await;
    assert_eq!((dead[0].dead_reason.as_str(), dead[0].attempts), ("REJECTED", 1));
    assert_eq!(dead[0].history[0].reason, "nonsense");
}

/// Promise: a consumer that vanished holds nothing for longer than the ack timeout; its receipt is then worthless.
#[tokio::test]
async fn message_held_too_long_is_handed_to_another() {
    let broker = Broker::start(ackwell_proto::v1::QueueSettings { ack_timeout_seconds: 1, ..settings() });
    let caller = broker.caller().await;
    caller.send_body("order").await;
    let late = caller.receive_one().await;
    let second = caller.receive_one().await;
    assert_eq!(delivered(&second).history[0].outcome, "ack-timeout");
    assert_eq!(delivered(&second).attempts, 1);
    assert!(second.fencing_token > late.fencing_token);
    let refused = caller.settle_one(ack(&late)).await.expect_err("a late ack is refused");
    assert_eq!(refused.reason, Reason::ReceiptExpired);
    caller.settle_one(ack(&second)).await.unwrap();
}

/// Promise: whoever extends in time keeps the message beyond the ack timeout.
#[tokio::test]
async fn extended_message_stays_with_its_holder() {
    let broker = Broker::start(ackwell_proto::v1::QueueSettings { ack_timeout_seconds: 1, ..settings() });
    let caller = broker.caller().await;
    caller.send_body("slow").await;
    caller.send_body("marker").await;
    let slow = caller.receive_one().await;
    caller.extend(&slow, Duration::from_mins(1)).await.unwrap();
    let marker = caller.receive_one().await;
    // The second message shows that the first one's original time has passed.
    let again = caller.receive_one().await;
    assert_eq!(delivered(&again).id, delivered(&marker).id);
    caller.settle_one(ack(&slow)).await.unwrap();
}

/// Promise: a message with a delay waits for its time.
#[tokio::test]
async fn delayed_message_is_not_handed_out_before_its_time() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    let delayed = Message { available: Some(Available::Delay(duration(700))), ..message("later") };
    caller.send_one(delayed).await;
    caller.send_body("now").await;
    assert_eq!(caller.stats().await.delayed, 1);
    assert_eq!(delivered(&caller.receive_one().await).body, "now");
    assert_eq!(delivered(&caller.receive_one().await).body, "later");
}

/// Promise: a message that outlived its ttl is Dead, with the reason, where the queue says so.
#[tokio::test]
async fn expired_message_is_dead() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    caller.send_one(Message { ttl: Some(duration(100)), ..message("news") }).await;
    let dead = until_async("the message to expire", SOON, async || {
        caller.peek(&[State::Dead]).await.pop().ok_or_else(|| anyhow::anyhow!("none is Dead"))
    });
    assert_eq!(dead.await.dead_reason, "EXPIRED");
    assert!(caller.is_empty().await);
}

/// Promise: within the window a second send with the same id stores nothing and is told the first one's id, even after
/// a crash.
#[tokio::test]
async fn duplicate_is_stored_once_across_a_crash() {
    let mut broker = Broker::start(settings());
    let with_id = || Message { dedup_id: "order-17".to_owned(), ..message("order") };
    let caller = broker.caller().await;
    let first = caller.send_one(with_id()).await;
    let again = caller.try_send(with_id()).await.unwrap();
    assert_eq!((&again.id, again.duplicate), (&first, true));

    broker.kill();
    broker.restart();
    let caller = broker.caller().await;
    let after = caller.try_send(with_id()).await.unwrap();
    assert_eq!((&after.id, after.duplicate), (&first, true));
    assert_eq!(caller.stats().await.ready, 1);
}

/// Promise: a repeated call with one request id has one effect and one answer.
#[tokio::test]
async fn repeated_send_with_one_request_id_stores_once() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    let request = SendRequest {
        queue: "orders".to_owned(),
        messages: vec![message("a"), message("b")],
        request_id: "r1".to_owned(),
        ..SendRequest::default()
    };
    let first = caller.queues.clone().send(request.clone()).await.unwrap().into_inner();
    let second = caller.queues.clone().send(request).await.unwrap().into_inner();
    let ids = |answer: &ackwell_proto::v1::SendResponse| -> Vec<String> {
        answer.results.iter().map(|result| result.id.clone()).collect()
    };
    assert_eq!(ids(&first), ids(&second));
    assert_eq!(caller.stats().await.ready, 2);
}

/// Promise: settling is safe to repeat.
#[tokio::test]
async fn repeated_ack_is_answered_like_the_first() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    caller.send_body("order").await;
    let delivery = caller.receive_one().await;
    let first = caller.settle_one(ack(&delivery)).await.unwrap();
    assert_eq!(caller.settle_one(ack(&delivery)).await.unwrap(), first);
}

/// Promise: a waiting Receive is answered as soon as a message comes, not when its wait is over.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_receive_is_answered_by_the_next_message() {
    let broker = Broker::start(settings());
    let caller = broker.caller().await;
    let waiting = tokio::spawn({
        let caller = caller.clone();
        async move { caller.receive(1, Duration::from_mins(1)).await }
    });
    until_async("the call to wait", SOON, async || match caller.stats().await.consumers {
        1 => Ok(()),
        other => anyhow::bail!("{other} consumers"),
    })
    .await;
    let id = caller.send_body("order").await;
    let came =
        tokio::time::timeout(SOON, waiting).await.expect("long before its wait is over").unwrap().unwrap();
    assert_eq!(delivered(&came[0]).id, id);
}
