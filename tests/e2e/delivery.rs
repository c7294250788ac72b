//! What fails is tried again, then set aside, and comes back on command.

use std::time::Duration;

use ackwell_proto::v1::State;
use ackwell_tests::caller::{ack, delivered, nack};
use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::wait;
use serde_json::json;

use crate::manifests::ORDERS;

/// Promise: a nacked message comes back after its backoff with its attempts counted; out of attempts it is Dead, in the
/// Queue's status too, visible with peek, and comes back whole with redrive.
#[tokio::test]
async fn poison_is_set_aside_and_redriven() {
    let namespace = Namespace::new("poison");
    namespace.queue(ORDERS);
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let caller = forward.caller("orders").await;
    let id = caller.send_body("poison").await;

    let first = caller.receive_one().await;
    let settled = caller.settle_one(nack(&first, None)).await.unwrap();
    assert_eq!(settled.state(), State::Delayed);
    assert!(caller.is_empty().await, "not before its backoff");
    let second = caller.receive_one().await;
    assert_eq!((&delivered(&second).id, delivered(&second).attempts), (&id, 1));
    assert_eq!(caller.settle_one(nack(&second, None)).await.unwrap().state(), State::Dead);

    wait::until("the status to show the Dead message", Duration::from_secs(45), || {
        let queue = namespace.get("queues.ackwell.dev", "orders")?;
        anyhow::ensure!(queue["status"]["messages"]["dead"] == 1, "{}", queue["status"]["messages"]);
        Ok(())
    });
    let peek = ["peek", "orders", "--state", "dead", "--body", "--output", "json"];
    let dead = forward.command_line(&peek).exits(0).json();
    assert_eq!((&dead[0]["id"], &dead[0]["body"]), (&json!(id), &json!("poison")));
    assert_eq!(dead[0]["history"].as_array().map(Vec::len), Some(2));

    let _ = forward.command_line(&["redrive", "orders"]).exits(0);
    let redriven = caller.receive_one().await;
    assert_eq!((&delivered(&redriven).id, delivered(&redriven).attempts), (&id, 0));
    caller.settle_one(ack(&redriven)).await.unwrap();
}
