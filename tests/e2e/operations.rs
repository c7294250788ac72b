//! What a person does to a Queue while it is in use.

use std::collections::HashSet;
use std::time::Duration;

use ackwell_tests::caller::{Caller, ack, delivered};
use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::wait;
use serde_json::{Value, json};

use crate::manifests::ORDERS;

/// A broker is replaced, or a volume has grown, well within this.
const LIMIT: Duration = Duration::from_mins(3);

fn patch(namespace: &Namespace, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    namespace.expect(&["patch", "queues.ackwell.dev", "orders", "--type=merge", "--patch", &patch]);
}

/// `Status/Reason` of a condition that is about the newest spec.
fn condition(namespace: &Namespace, type_: &str) -> anyhow::Result<String> {
    let queue = namespace.get("queues.ackwell.dev", "orders")?;
    anyhow::ensure!(
        queue["status"]["observedGeneration"] == queue["metadata"]["generation"],
        "an old status"
    );
    let conditions = queue["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = conditions.iter().find(|one| one["type"] == type_).unwrap_or(&Value::Null);
    Ok(format!("{}/{}", text(&found["status"]), text(&found["reason"])))
}

fn wait_condition(namespace: &Namespace, type_: &str, wanted: &str) {
    wait::until(&format!("{type_} to be {wanted}"), LIMIT, || {
        let is = condition(namespace, type_)?;
        anyhow::ensure!(is == wanted, "{is}");
        Ok(())
    });
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn uid(namespace: &Namespace, pod: &str) -> Value {
    namespace.get("pod", pod).unwrap()["metadata"]["uid"].clone()
}

/// Receives and acks everything, until `ids` have all been seen.
async fn receive_all(caller: &Caller, mut ids: HashSet<String>) {
    while !ids.is_empty() {
        let delivery = caller.receive_one().await;
        ids.remove(&delivered(&delivery).id);
        caller.settle_one(ack(&delivery)).await.unwrap();
    }
}

/// Promise: volumes grow under a broker that is in use; it does not restart, and no message is lost.
#[tokio::test]
async fn volume_grows_under_load_without_a_restart() {
    let namespace = Namespace::new("grow");
    namespace.queue(ORDERS);
    let before = namespace.get("pod", "ackwell-orders-0").unwrap();
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let caller = forward.caller("orders").await;
    patch(&namespace, &json!({"storage": {"size": "512Mi"}}));
    let mut sent = HashSet::new();
    wait::until_async("the volume to grow while messages are sent", LIMIT, async || {
        sent.insert(caller.send_body("under load").await);
        let queue = namespace.get("queues.ackwell.dev", "orders")?;
        anyhow::ensure!(queue["status"]["storage"]["floor"] == "512Mi", "{}", queue["status"]["storage"]);
        Ok(())
    })
    .await;
    wait_condition(&namespace, "Reconciling", "False/UpToDate");
    let after = namespace.get("pod", "ackwell-orders-0").unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    let set = namespace.get("statefulset", "ackwell-orders").unwrap();
    let template = &set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
    assert_eq!(template, "512Mi", "a shard that comes later has the same size");
    receive_all(&caller, sent).await;
}

/// Promise: a class that cannot grow is said at once, and the Queue serves on.
#[test]
fn class_that_cannot_grow_is_said_and_the_queue_serves_on() {
    let namespace = Namespace::new("fixed");
    namespace.queue(&ORDERS.replace("size: 256Mi", "size: 256Mi, className: fixed"));
    patch(&namespace, &json!({"storage": {"size": "512Mi"}}));
    wait_condition(&namespace, "Stalled", "True/ExpansionUnsupported");
    assert_eq!(condition(&namespace, "Ready").unwrap(), "True/AllShardsReady");
    patch(&namespace, &json!({"storage": {"size": "256Mi"}}));
    wait_condition(&namespace, "Stalled", "False/UpToDate");
}

/// Promise: a suspended Queue runs no broker and keeps everything; resumed, it goes on where it was.
#[tokio::test]
async fn suspended_queue_keeps_its_messages() {
    let namespace = Namespace::new("suspend");
    namespace.queue(ORDERS);
    let id = {
        let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
        forward.caller("orders").await.send_body("kept").await
    };
    patch(&namespace, &json!({"suspend": true}));
    wait_condition(&namespace, "Suspended", "True/BySpec");
    namespace.wait("pod/ackwell-orders-0", "delete", LIMIT);
    wait_condition(&namespace, "Reconciling", "False/UpToDate");
    patch(&namespace, &json!({"suspend": false}));
    wait_condition(&namespace, "Ready", "True/AllShardsReady");
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    receive_all(&forward.caller("orders").await, [id].into()).await;
}

/// Promise: a template that does not work reaches one broker; the others serve, and taking it back is all that a person
/// has to do.
#[test]
fn bad_template_stops_at_one_broker_and_is_taken_back() {
    let namespace = Namespace::new("bad-template");
    namespace.queue(&ORDERS.replace("spec:\n", "spec:\n  shards: 2\n"));
    let (first, last) = (uid(&namespace, "ackwell-orders-0"), uid(&namespace, "ackwell-orders-1"));
    patch(&namespace, &json!({"scheduling": {"nodeSelector": {"nowhere": "true"}}}));
    wait_condition(&namespace, "Ready", "False/PodFailing");
    assert_ne!(uid(&namespace, "ackwell-orders-1"), last, "it has the new template");
    assert_eq!(condition(&namespace, "Available").unwrap(), "True/MinimumShards");
    patch(&namespace, &json!({"scheduling": {"nodeSelector": null}}));
    wait_condition(&namespace, "Ready", "True/AllShardsReady");
    assert_eq!(uid(&namespace, "ackwell-orders-0"), first, "it never stopped");
}

/// Promise: a change that takes new brokers replaces them one after the other, while messages are sent, and loses none.
#[tokio::test]
async fn brokers_are_replaced_one_after_the_other() {
    let namespace = Namespace::new("roll");
    namespace.queue(&ORDERS.replace("spec:\n", "spec:\n  shards: 2\n"));
    let mut sent = HashSet::new();
    for shard in ["ackwell-orders-0", "ackwell-orders-1"] {
        let forward = PortForward::start(&namespace, shard, 7400);
        sent.insert((shard, forward.caller("orders").await.send_body(shard.to_owned()).await));
    }
    patch(&namespace, &json!({"terminationGracePeriodSeconds": 45}));
    wait::until("both brokers to be replaced", LIMIT, || {
        let pods = namespace.list("pods", "ackwell.dev/queue=orders")?;
        let serve = pods.iter().filter(|pod| text(&pod["status"]["phase"]) == "Running").count();
        let new = pods.iter().filter(|pod| pod["spec"]["terminationGracePeriodSeconds"] == 45).count();
        assert!(pods.len() - serve <= 1, "more than one broker is away");
        anyhow::ensure!(new == 2, "{new} of 2 are new");
        Ok(())
    });
    wait_condition(&namespace, "Ready", "True/AllShardsReady");
    for (shard, id) in sent {
        let forward = PortForward::start(&namespace, shard, 7400);
        receive_all(&forward.caller("orders").await, [id].into()).await;
    }
}

/// Promise: hands off means hands off: not even a broker's settings are pushed, and afterwards they are.
#[test]
fn paused_queue_is_left_alone_until_it_is_not() {
    let namespace = Namespace::new("paused");
    namespace.queue(ORDERS);
    let queue = ["annotate", "queues.ackwell.dev", "orders"];
    namespace.expect(&[&queue[..], &["ackwell.dev/paused=true"]].concat());
    wait_condition(&namespace, "Reconciling", "False/Paused");
    patch(&namespace, &json!({"terminationGracePeriodSeconds": 45}));
    wait_condition(&namespace, "Ready", "Unknown/Paused");
    let set = namespace.get("statefulset", "ackwell-orders").unwrap();
    assert_ne!(set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 45);
    namespace.expect(&[&queue[..], &["ackwell.dev/paused-"]].concat());
    wait_condition(&namespace, "Ready", "True/AllShardsReady");
    let set = namespace.get("statefulset", "ackwell-orders").unwrap();
    assert_eq!(set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 45);
}
