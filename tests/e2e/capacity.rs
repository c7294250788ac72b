//! More shards and fewer, while messages flow.
//!
//! The longest test here: tests begin in the order of their names, and it is among the first.

use std::time::Duration;

use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::keyed::Load;
use ackwell_tests::wait;

use crate::manifests::{ORDERS, idle_pod};

/// Each move takes two minutes at least, and a pod of each shard has to start or end.
pub(crate) const MOVED: Duration = Duration::from_mins(8);

/// Waits until there are so many shards and nothing is left to do.
pub(crate) fn scaled(namespace: &Namespace, shards: u64) {
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

/// Promise: shards come and go with `kubectl scale` under load; keys keep their order, nothing is lost and nothing acked comes again.
/// A pod goes when its shard is empty, its volume stays.
#[tokio::test(flavor = "multi_thread")]
async fn queue_scales_out_and_in_under_load() {
    let namespace = Namespace::new("scale");
    // One in nine fails on purpose, and whoever is slow misses the ack timeout, which counts as well: with two attempts some would
    // end as Dead, and be waited for in vain.
    namespace.queue(&ORDERS.replace("maxAttempts: 2", "maxAttempts: 1000"));
    namespace.apply(&idle_pod("caller"));
    namespace.pod_ready("caller");
    let forward = PortForward::start(&namespace, "caller", 7400);
    let caller = forward.caller("orders").await;
    let load = Load::start(&caller);
    for shards in [3, 1] {
        scaled(&namespace, shards);
    }
    assert!(namespace.get("pod", "ackwell-orders-1").is_err(), "its pod is gone");
    assert!(namespace.get("persistentvolumeclaim", "data-ackwell-orders-1").is_ok(), "its volume stays");
    let count = load.finish(MOVED).await;
    assert!(count > 1000, "{count} messages are no load");
    println!("{count} messages");
}
