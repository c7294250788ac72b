//! More shards and fewer, with the messages that are there.

use std::collections::HashMap;
use std::time::Duration;

use ackwell_proto::v1::Message;
use ackwell_tests::caller::{ack, delivered, message};
use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::wait;

use crate::manifests::{ORDERS, idle_pod};

/// Each move takes two minutes at least, and a pod of each shard has to start or end.
const MOVED: Duration = Duration::from_mins(8);

fn keyed(number: usize) -> Message {
    Message { ordering_key: format!("key-{}", number % 12), ..message(number.to_string()) }
}

/// Waits until there are so many shards and nothing is left to do.
fn scaled(namespace: &Namespace, shards: u64) {
    namespace.expect(&["scale", "queues.ackwell.dev/orders", &format!("--replicas={shards}")]);
    wait::until(&format!("{shards} shards"), MOVED, || {
        let queue = namespace.get("queues.ackwell.dev", "orders")?;
        let status = &queue["status"];
        let is = |type_: &str, value: &str| {
            let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            conditions.iter().any(|one| one["type"] == type_ && one["status"] == value)
        };
        let is_current = status["observedGeneration"] == queue["metadata"]["generation"];
        let is_done =
            is_current && is("Ready", "True") && is("Reconciling", "False") && is("Draining", "False");
        anyhow::ensure!(is_done && status["shards"] == shards, "{status}");
        Ok(())
    });
}

/// Promise: shards come and go with `kubectl scale`; messages stay, with their ids, and keys keep their order.
#[tokio::test]
async fn queue_scales_out_and_in_with_its_messages() {
    let namespace = Namespace::new("scale");
    namespace.queue(ORDERS);
    namespace.apply(&idle_pod("caller"));
    namespace.pod_ready("caller");
    let forward = PortForward::start(&namespace, "caller", 7400);
    let caller = forward.caller("orders").await;
    let mut sent = HashMap::new();
    for (step, shards) in [3, 1].into_iter().enumerate() {
        for number in step * 40..(step + 1) * 40 {
            sent.insert(caller.send_one(keyed(number)).await, number);
        }
        scaled(&namespace, shards);
    }
    assert!(namespace.get("pod", "ackwell-orders-1").is_err(), "its pod is gone");
    assert!(namespace.get("persistentvolumeclaim", "data-ackwell-orders-1").is_ok(), "its volume stays");

    let mut last = HashMap::new();
    for _ in 0..sent.len() {
        let delivery = caller.receive_one().await;
        let message = delivered(&delivery);
        let number = sent[&message.id];
        assert_eq!(message.body, number.to_string());
        let before = last.insert(message.ordering_key.clone(), number);
        assert!(before.is_none_or(|before| before < number), "{number} after {before:?}");
        caller.settle_one(ack(&delivery)).await.unwrap();
    }
}
