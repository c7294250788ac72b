//! What is wrong is refused with words that say what, by the API server and through a sidecar.

use std::time::Duration;

use ackwell_proto::Reason;
use ackwell_proto::v1::PeekRequest;
use ackwell_tests::caller::{Caller, ack, delivered, failure, message};
use ackwell_tests::cluster::{Namespace, PortForward};
use tonic::Code;

use crate::manifests::{ORDERS, idle_pod};

/// Promise: a Queue with a bad field is refused by the API server, with the field and what it should be.
#[test]
fn bad_queue_is_refused_with_its_field() {
    let namespace = Namespace::new("bad-queue");
    for (good, bad, says) in [
        ("maxAttempts: 2", "maxAttempts: 0", "maxAttempts"),
        ("size: 256Mi", "size: lots", "size"),
        ("name: orders", "name: Orders", "Orders"),
        ("maxAttempts: 2", "maxAttemps: 2", "maxAttemps"),
        ("minSeconds: 1, maxSeconds: 1", "minSeconds: 5, maxSeconds: 1", "maxSeconds"),
    ] {
        let manifest = ORDERS.replace(good, bad);
        assert_ne!(manifest, ORDERS, "{good} is there to be replaced");
        let refused = namespace.try_apply(&manifest).expect_err(bad);
        assert!(format!("{refused:#}").contains(says), "{bad}: {refused:#}");
    }
    assert!(namespace.list("queues.ackwell.dev", "").unwrap().is_empty());
}

/// Promise: applications learn from code and reason what they did wrong, through their sidecar as from the broker.
#[tokio::test]
async fn wrong_calls_get_their_code_and_reason_through_the_sidecar() {
    let namespace = Namespace::new("wrong-calls");
    namespace.queue(ORDERS);
    namespace.apply(&idle_pod("gateway"));
    namespace.pod_ready("gateway");
    let forward = PortForward::start(&namespace, "gateway", 7400);
    let caller = forward.caller("orders").await;

    let status = caller.queue("oders").send(vec![message("x")]).await.unwrap_err();
    assert_eq!((status.code(), failure(&status).reason), (Code::NotFound, Reason::QueueNotFound));
    assert!(failure(&status).message.contains("oders"), "{status:?}");
    let status = caller.queue("Orders").send(vec![message("x")]).await.unwrap_err();
    assert_eq!((status.code(), failure(&status).reason), (Code::InvalidArgument, Reason::InvalidArgument));

    let status = caller.send(vec![message(vec![0; (1 << 20) + 1])]).await.unwrap_err();
    assert_eq!((status.code(), failure(&status).reason), (Code::InvalidArgument, Reason::MessageTooLarge));
    assert_stale_receipt_is_refused(&caller).await;
}

/// One whose time ran out, after the message was handed out again.
async fn assert_stale_receipt_is_refused(caller: &Caller) {
    caller.send_body("held").await;
    let request = ackwell_proto::v1::ReceiveRequest {
        queue: "orders".to_owned(),
        ack_timeout: Some(ackwell_proto::duration(1000)),
        ..ackwell_proto::v1::ReceiveRequest::default()
    };
    let first = caller.queues.clone().receive(request).await.unwrap().into_inner().deliveries;
    let again = caller.receive(1, Duration::from_secs(20)).await.unwrap();
    assert_eq!(again[0].message.as_ref().unwrap().id, first[0].message.as_ref().unwrap().id);
    let status = caller.settle(vec![ack(&first[0])]).await.expect_err("its time ran out");
    assert_eq!((status.code(), failure(&status).reason), (Code::FailedPrecondition, Reason::ReceiptExpired));
    caller.settle_one(ack(&again[0])).await.unwrap();
}

/// Promise: who is not granted a verb is refused by the broker: a stranger everything, a neighbour what spec.clients does
/// not say; and who is granted it is stamped on the message.
#[tokio::test]
async fn brokers_know_their_callers() {
    let (namespace, strangers) = (Namespace::new("callers"), Namespace::new("strangers"));
    namespace.queue(&ORDERS.replace("verbs: [send, consume, peek, admin]", "verbs: [send, consume]"));
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let nobody = Caller::connect(forward.address(), "orders").await;
    let refused = nobody.try_send(message("x")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Unauthenticated, "{refused}");
    let stranger = nobody.clone().with_token(&strangers.token("default"));
    let refused = stranger.try_send(message("x")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::PermissionDenied, "{refused}");
    assert!(refused.message.contains(strangers.namespace()), "{refused}");

    let neighbour = forward.caller("orders").await;
    neighbour.send_body("from a neighbour").await;
    let status = neighbour.admin.clone().peek(peek()).await.expect_err("there is no grant to peek");
    assert_eq!(failure(&status).reason, Reason::PermissionDenied);
    let delivery = neighbour.receive_one().await;
    let sender = format!("{}/default", namespace.namespace());
    assert_eq!(delivered(&delivery).headers["ackwell-sender"], sender);
    neighbour.settle_one(ack(&delivery)).await.unwrap();
}

fn peek() -> PeekRequest {
    PeekRequest { queue: "orders".to_owned(), limit: 1, ..PeekRequest::default() }
}
