//! What a person does to a Queue while it is in use.

use std::collections::HashSet;

use ackwell_proto::{Failure, Reason};
use ackwell_tests::caller::{Caller, ack, delivered, message};
use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::wait;
use serde_json::json;

use crate::load::Load;
use crate::manifests::ORDERS;
use crate::queue::{LIMIT, broker, condition, patch, text, wait_condition, wait_up_to_date};

pub(crate) fn two_shards() -> String {
    ORDERS.replace("spec:\n", "spec:\n  shards: 2\n")
}

fn nothing_refused(load: Load) {
    assert_eq!(load.finish().refused, Vec::<String>::new());
}

/// Promise: volumes grow under a broker that is in use; it does not restart, and no message is lost.
#[test]
fn volume_grows_under_load_without_a_restart() {
    let namespace = Namespace::new("grow");
    namespace.queue(ORDERS);
    let (load, before) = (Load::start(&namespace), broker(&namespace, 0));
    patch(&namespace, &json!({"storage": {"size": "512Mi"}}));
    wait::until("all volumes to have grown", LIMIT, || {
        let queue = namespace.get("queues.ackwell.dev", "orders")?;
        anyhow::ensure!(queue["status"]["storage"]["floor"] == "512Mi", "{}", queue["status"]["storage"]);
        Ok(())
    });
    wait_up_to_date(&namespace);
    load.wait_flows();
    assert_eq!(broker(&namespace, 0), before);
    let set = namespace.get("statefulset", "ackwell-orders").unwrap();
    let template = &set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
    assert_eq!(template, "512Mi", "a shard that comes later has the same size");
    nothing_refused(load);
}

/// Promise: a volume that is full grows like any other; then senders are served again, and what was in it is whole.
#[tokio::test(flavor = "multi_thread")]
async fn full_volume_grows_and_takes_messages_again() {
    let namespace = Namespace::new("full");
    namespace.queue(ORDERS);
    let before = broker(&namespace, 0);
    let forward = PortForward::start(&namespace, "ackwell-orders-0", 7400);
    let caller = forward.caller("orders").await;
    let mut sent = fill(&caller).await;
    patch(&namespace, &json!({"storage": {"size": "512Mi"}}));
    let id = wait::until_async("messages to be taken again", LIMIT, async || {
        Ok(caller.try_send(message("one more")).await?.id)
    })
    .await;
    sent.insert(id);
    assert_eq!(broker(&namespace, 0), before);
    wait_up_to_date(&namespace);
    receive_all(&caller, sent).await;
}

/// Sends until the volume is full.
pub(crate) async fn fill(caller: &Caller) -> HashSet<String> {
    let mut sent = HashSet::new();
    loop {
        match caller.try_send(message(vec![7; 1 << 20])).await {
            Ok(result) => assert!(sent.insert(result.id)),
            Err(Failure { reason: Reason::DiskFull, .. }) if !sent.is_empty() => return sent,
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Receives and acks everything, until `ids` have all been seen.
async fn receive_all(caller: &Caller, mut ids: HashSet<String>) {
    while !ids.is_empty() {
        let delivery = caller.receive_one().await;
        ids.remove(&delivered(&delivery).id);
        caller.settle_one(ack(&delivery)).await.unwrap();
    }
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

/// Promise: a suspended Queue runs no broker and keeps everything; resumed, it goes on where it was, and callers who
/// waited meanwhile are answered.
#[test]
fn suspended_queue_keeps_its_messages_and_its_callers() {
    let namespace = Namespace::new("suspend");
    namespace.queue(ORDERS);
    let load = Load::start(&namespace);
    patch(&namespace, &json!({"suspend": true}));
    wait_condition(&namespace, "Suspended", "True/BySpec");
    namespace.wait("pod/ackwell-orders-0", "delete", LIMIT);
    wait_condition(&namespace, "Reconciling", "False/UpToDate");
    patch(&namespace, &json!({"suspend": false}));
    wait_up_to_date(&namespace);
    load.wait_flows();
    nothing_refused(load);
}

/// Promise: settings change while messages flow; nothing restarts, and no caller is refused.
#[test]
fn settings_change_under_load_without_a_restart() {
    let namespace = Namespace::new("hot");
    namespace.queue(&two_shards());
    let (load, before) = (Load::start(&namespace), [0, 1].map(|ordinal| broker(&namespace, ordinal)));
    for seconds in [60, 45] {
        let limits = json!({"maxInFlight": 1000 + seconds, "maxMessageBytes": "2Mi"});
        patch(&namespace, &json!({"delivery": {"ackTimeoutSeconds": seconds}, "limits": limits}));
        // Ready says that every shard has confirmed them.
        wait_up_to_date(&namespace);
        let queue = namespace.get("queue", "orders").unwrap();
        let runs = |ordinal| json!({"ordinal": ordinal, "generation": queue["metadata"]["generation"]});
        assert_eq!(queue["status"]["shardStates"], json!([0, 1].map(runs)));
        load.wait_flows();
    }
    assert_eq!([0, 1].map(|ordinal| broker(&namespace, ordinal)), before);
    nothing_refused(load);
}

/// Promise: a volume that cannot be made is said in the words of whoever refused it; the Queue goes on by itself when it can.
#[test]
fn missing_class_is_said_until_it_is_there() {
    let namespace = Namespace::new("no-class");
    let class = format!("late-{}", namespace.namespace());
    namespace.apply(&ORDERS.replace("size: 256Mi", &format!("size: 256Mi, className: {class}")));
    let why = wait_condition(&namespace, "Ready", "False/VolumePending");
    assert!(why.contains(&class), "{why}");
    let like = namespace.get("storageclass", "standard").unwrap();
    let made = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
        "provisioner": like["provisioner"], "volumeBindingMode": like["volumeBindingMode"],
    });
    namespace.apply(&made.to_string());
    wait_up_to_date(&namespace);
    namespace.expect(&["delete", "storageclass", &class]);
}

/// Promise: a template that does not work reaches one broker; the others serve, and taking it back is all that a person
/// has to do.
#[test]
fn bad_template_stops_at_one_broker_and_is_taken_back() {
    let namespace = Namespace::new("bad-template");
    namespace.queue(&two_shards());
    let [first, last] = [0, 1].map(|ordinal| broker(&namespace, ordinal));
    let load = Load::start(&namespace);
    patch(&namespace, &json!({"scheduling": {"nodeSelector": {"nowhere": "true"}}}));
    wait_condition(&namespace, "Ready", "False/PodFailing");
    assert_ne!(broker(&namespace, 1), last, "it has the new template");
    assert_eq!(condition(&namespace, "Available").unwrap(), "True/MinimumShards");
    load.wait_flows();
    patch(&namespace, &json!({"scheduling": {"nodeSelector": null}}));
    wait_up_to_date(&namespace);
    assert_eq!(broker(&namespace, 0), first, "it never stopped");
    load.finish();
}

/// Promise: a change that takes new brokers replaces them one after the other, while messages flow: none is lost, and no
/// caller is refused.
#[test]
fn brokers_are_replaced_one_after_the_other_under_load() {
    let namespace = Namespace::new("roll");
    namespace.queue(&two_shards());
    let load = Load::start(&namespace);
    patch(&namespace, &json!({"terminationGracePeriodSeconds": 45}));
    wait::until("both brokers to be replaced", LIMIT, || {
        let pods = namespace.list("pods", "ackwell.dev/queue=orders")?;
        let serves = |pod: &&serde_json::Value| {
            text(&pod["status"]["phase"]) == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
        };
        assert!(pods.iter().filter(serves).count() >= 1, "no broker is left");
        let new = pods.iter().filter(|pod| pod["spec"]["terminationGracePeriodSeconds"] == 45).count();
        anyhow::ensure!(new == 2, "{new} of 2 are new");
        Ok(())
    });
    wait_up_to_date(&namespace);
    load.wait_flows();
    nothing_refused(load);
}

/// Promise: hands off means hands off, and afterwards everything is made as the spec says.
#[test]
fn paused_queue_is_left_alone_until_it_is_not() {
    let namespace = Namespace::new("paused");
    namespace.queue(ORDERS);
    let grace = || {
        let set = namespace.get("statefulset", "ackwell-orders").unwrap();
        set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].clone()
    };
    let (load, before) = (Load::start(&namespace), grace());
    let annotate = |change| namespace.expect(&["annotate", "queues.ackwell.dev", "orders", change]);
    annotate("ackwell.dev/paused=true");
    wait_condition(&namespace, "Reconciling", "False/Paused");
    patch(&namespace, &json!({"terminationGracePeriodSeconds": 45}));
    wait_condition(&namespace, "Ready", "Unknown/Paused");
    load.wait_flows();
    assert_eq!(grace(), before);
    annotate("ackwell.dev/paused-");
    wait_up_to_date(&namespace);
    assert_eq!(grace(), 45);
    nothing_refused(load);
}
